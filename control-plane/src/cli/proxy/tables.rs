//! A proxy's configuration as tables, from its dump or from the control plane's, which have the same form.
//!
//! What a newer or older program leaves out is an empty cell, never an error.

use serde_json::Value;

use crate::cli::output::{Cell, Output, Style};

/// A part of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Part {
    Listeners,
    Routes,
    Clusters,
    Endpoints,
}

/// What a dump calls an endpoint that takes traffic.
const READY: &str = "ready";

const PARTS: [Part; 4] = [Part::Listeners, Part::Routes, Part::Clusters, Part::Endpoints];

/// Writes a part, or all of them.
pub(super) fn show(output: &Output, config: &Value, only: Option<Part>) -> std::io::Result<()> {
    for part in PARTS.into_iter().filter(|part| only.is_none_or(|only| only == *part)) {
        let (headings, rows) = table(config, part);
        if only.is_none() {
            if rows.is_empty() {
                continue;
            }
            output.line("")?;
        }
        output.table(headings, &rows)?;
    }
    Ok(())
}

fn table(config: &Value, part: Part) -> (&'static [&'static str], Vec<Vec<Cell>>) {
    let listeners = || list(&config["listeners"]).iter();
    let clusters = || list(&config["clusters"]).iter();
    match part {
        Part::Listeners => {
            (&["LISTENER", "DIRECTION", "ADDRESSES", "PROTOCOL", "TLS", "TO"], listeners().map(listener).collect())
        }
        Part::Routes => {
            (&["ROUTES OF", "HOSTS", "MATCH", "TO", "TIMEOUT", "RETRIES"], listeners().flat_map(routes).collect())
        }
        Part::Clusters => (&["CLUSTER", "SERVICE", "ENDPOINTS", "IDENTITIES"], clusters().map(cluster).collect()),
        Part::Endpoints => (
            &["ENDPOINTS OF", "ADDRESS", "WORKLOAD", "HEALTH", "TLS", "REQUESTS", "IN FLIGHT", "LATENCY"],
            clusters().flat_map(endpoints).collect(),
        ),
    }
}

fn listener(listener: &Value) -> Vec<Cell> {
    let detected = text(&listener["detected"]["protocol"]);
    let protocol = match text(&listener["protocol"]) {
        protocol if detected.is_empty() => protocol,
        protocol => format!("{protocol} ({detected})"),
    };
    let target = |name: &Value, what: &str| {
        let known = name["known"].as_bool().unwrap_or(true);
        let shown = format!("{what} {}", text(&name["name"]));
        if known { Cell::from(shown) } else { Cell::styled(format!("{shown} (unknown)"), Style::Bad) }
    };
    let to = if listener["routes"].is_object() {
        target(&listener["routes"], "routes")
    } else if listener["cluster"].is_object() {
        target(&listener["cluster"], "cluster")
    } else {
        let names = list(&listener["server_names"]).iter().flat_map(|entry| list(&entry["names"]));
        format!("server names {}", names.map(text).collect::<Vec<_>>().join(",")).into()
    };
    vec![
        text(&listener["name"]).into(),
        text(&listener["direction"]).into(),
        joined(&listener["addresses"]).into(),
        protocol.into(),
        text(&listener["tls"]).into(),
        to,
    ]
}

fn routes(listener: &Value) -> Vec<Vec<Cell>> {
    let hosts = list(&listener["routes"]["rules"]).iter();
    let of_host = |host: &Value| -> Vec<Vec<Cell>> {
        let row = |route: &Value| {
            let conditions = list(&route["conditions"]).iter().map(text);
            let rule = std::iter::once(text(&route["path"])).chain(conditions).collect::<Vec<_>>().join(", ");
            let share = |cluster: &Value| match cluster["weight"].as_u64() {
                Some(weight) if weight != 1 => format!("{}*{weight}", text(&cluster["name"])),
                _ => text(&cluster["name"]),
            };
            let timeout = route["timeout_ms"].as_u64().map(|timeout| format!("{timeout}ms")).unwrap_or_default();
            vec![
                text(&listener["name"]).into(),
                joined(&host["hosts"]).into(),
                rule.into(),
                list(&route["clusters"]).iter().map(share).collect::<Vec<_>>().join(",").into(),
                timeout.into(),
                text(&route["retries"]).into(),
            ]
        };
        list(&host["routes"]).iter().map(row).collect()
    };
    hosts.flat_map(of_host).collect()
}

fn cluster(cluster: &Value) -> Vec<Cell> {
    let endpoints = list(&cluster["endpoints"]);
    let takes = endpoints.iter().filter(|endpoint| endpoint["health"] == READY && endpoint["ejected"] != true).count();
    let style = if takes == 0 { Style::Bad } else { Style::Plain };
    vec![
        text(&cluster["name"]).into(),
        text(&cluster["service"]).into(),
        Cell::styled(format!("{takes} of {} ready", endpoints.len()), style),
        joined(&cluster["identities"]).into(),
    ]
}

fn endpoints(cluster: &Value) -> Vec<Vec<Cell>> {
    let row = |endpoint: &Value| {
        let health = match (text(&endpoint["health"]), endpoint["ejected"] == true) {
            (health, false) if health == READY => Cell::styled(health, Style::Good),
            (health, false) => Cell::styled(health, Style::Warning),
            (health, true) => Cell::styled(format!("{health}, ejected"), Style::Bad),
        };
        let latency = endpoint["latency_ms"].as_f64().map(|latency| format!("{latency:.1}ms")).unwrap_or_default();
        vec![
            text(&cluster["name"]).into(),
            text(&endpoint["address"]).into(),
            text(&endpoint["workload"]).into(),
            health,
            text(&endpoint["tls"]).into(),
            text(&endpoint["requests"]).into(),
            text(&endpoint["in_flight"]).into(),
            latency.into(),
        ]
    };
    list(&cluster["endpoints"]).iter().map(row).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn joined(value: &Value) -> String {
    list(value).iter().map(text).collect::<Vec<_>>().join(",")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_part_of_a_dump_is_in_a_table() {
        let config = json!({
            "listeners": [
                {"name": "outbound/shop/orders:80", "direction": "outbound", "addresses": ["10.0.0.1:80"], "protocol": "http",
                 "routes": {"name": "shop/orders:80", "known": true, "rules": [{"hosts": ["*"], "routes": [
                    {"path": "prefix /v2", "conditions": ["method GET"], "timeout_ms": 500, "retries": 2,
                     "clusters": [{"name": "a", "weight": 9}, {"name": "b", "weight": 1}]}]}]}},
                {"name": "inbound/5432", "direction": "inbound", "addresses": [], "protocol": "detect", "tls": "strict",
                 "detected": {"protocol": "server_first"}, "cluster": {"name": "c", "known": false}},
                {"name": "tls", "server_names": [{"names": ["a.example"], "clusters": []}]},
            ],
            "clusters": [{"name": "c", "service": "shop/db:5432", "identities": ["spiffe://x"], "endpoints": [
                {"address": "10.1.0.1:1", "workload": "shop/db-0", "health": "ready", "tls": "mutual", "ejected": true,
                 "in_flight": 1, "requests": 7, "latency_ms": 1.26}]}],
        });
        let shown = |part| {
            let (headings, rows) = table(&config, part);
            Output::new(crate::cli::Format::Table).table_text(headings, &rows)
        };
        for (part, words) in [
            (
                Part::Listeners,
                &[
                    "outbound/shop/orders:80",
                    "10.0.0.1:80",
                    "routes shop/orders:80",
                    "strict",
                    "cluster c (unknown)",
                    "detect (server_first)",
                    "server names a.example",
                ][..],
            ),
            (Part::Routes, &["prefix /v2, method GET", "a*9,b", "500ms", "2"]),
            (Part::Clusters, &["shop/db:5432", "0 of 1 ready", "spiffe://x"]),
            (Part::Endpoints, &["10.1.0.1:1", "shop/db-0", "ready, ejected", "mutual", "1.3ms"]),
        ] {
            let shown = shown(part);
            for word in words {
                assert!(shown.contains(word), "{part:?}: {word} is missing in\n{shown}");
            }
        }
        for part in PARTS {
            assert!(
                table(&json!({"clusters": [{}], "listeners": [{}]}), part).1.len() < 2,
                "what is missing is no error"
            );
        }
    }
}

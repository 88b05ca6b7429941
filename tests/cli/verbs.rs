//! What the verbs of `weft` promise their users: forms of output, exit codes, one line with a remedy.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::process::Stdio;

use serde_json::{Value, json};
use weft_tests::process::application::Application;
use weft_tests::process::pair::{self, Pair};
use weft_tests::process::plane::{Plane, weft};
use weft_tests::process::{command, program, run, until};

const DOCUMENTS: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  addresses: [10.96.0.2]
  ports: [{name: http, port: 80, targetPort: 8080, protocol: http}]
  selector: {app: orders}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: orders-1, namespace: shop, labels: {app: orders}}
spec: {addresses: [10.97.0.5], serviceAccount: orders}
";

/// Columns begin below their headings.
#[track_caller]
fn aligned(table: &str, headings: &[&str]) {
    let mut lines = table.lines();
    let head = lines.next().expect("a table has a head");
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), headings, "{table}");
    let columns: Vec<usize> = headings.iter().map(|heading| head.find(heading).expect("it was just found")).collect();
    let rows: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    assert!(!rows.is_empty(), "{table}");
    for row in rows {
        for column in columns.iter().skip(1).filter(|column| **column < row.len()) {
            assert_eq!(&row[column - 3..*column], "   ", "column {column} of `{row}` in\n{table}");
        }
        assert_eq!(row.trim_end(), row, "no blanks at a line's end");
    }
}

#[test]
fn results_come_as_aligned_tables_as_json_and_as_yaml() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    aligned(&plane.try_apply(DOCUMENTS).succeeded(), &["ACTION", "KIND", "NAMESPACE", "NAME"]);
    let services = plane.weft(&["get", "services", "-n", "shop"]).succeeded();
    aligned(&services, &["NAMESPACE", "SERVICE", "ADDRESSES", "PORTS", "BACKENDS", "REVISION", "AGE"]);
    assert!(services.contains("shop        orders    10.96.0.2   80->8080/http   app=orders   1"), "{services}");
    let workloads = plane.weft(&["get", "workload", "-A"]).succeeded();
    aligned(&workloads, &["NAMESPACE", "WORKLOAD", "ADDRESSES", "ACCOUNT", "STATE", "REVISION", "AGE"]);
    let status = plane.weft(&["status"]).succeeded();
    assert!(status.contains("revision") && status.contains("weft.local"), "{status}");

    for arguments in [
        &["get", "-A"][..],
        &["get", "service", "orders", "-n", "shop"],
        &["status"],
        &["token", "create", "--service-account", "orders", "-n", "shop"],
    ] {
        let json: Value = plane.json(arguments);
        let yaml = run(weft(&plane.data()).args(arguments).args(["-o", "yaml"])).succeeded();
        let documents: Vec<Value> = serde_yaml_ng::Deserializer::from_str(&yaml)
            .map(|document| serde::Deserialize::deserialize(document).unwrap_or_else(|error| panic!("{error}: {yaml}")))
            .collect();
        let listed = if let Value::Array(values) = &json { values.clone() } else { vec![json] };
        assert_eq!(documents.len(), listed.len(), "{arguments:?}: {yaml}");
        // A token is new each time.
        if arguments[0] == "get" {
            assert_eq!(documents, listed);
        }
    }
    for output in ["json", "yaml"] {
        let applied = run(weft(&plane.data()).args(["delete", "workload", "orders-1", "-n", "shop", "-o", output]));
        let applied: Value = serde_yaml_ng::from_str(&applied.succeeded()).unwrap();
        assert_eq!(applied["changes"][0]["action"], "deleted");
        plane.apply(DOCUMENTS);
    }
}

#[test]
fn what_get_writes_can_be_applied_again() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    plane.apply(DOCUMENTS);
    for output in ["yaml", "json"] {
        let written = plane.weft(&["get", "-A", "-o", output]).succeeded();
        // A JSON list is no stream of documents; each of its values is one.
        let again = if output == "json" {
            let values: Vec<Value> = serde_json::from_str(&written).unwrap();
            values.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
        } else {
            written
        };
        let applied = plane.try_apply(&again).succeeded();
        assert_eq!(applied.matches("unchanged").count(), 2, "{applied}");
        assert_eq!(plane.revision(), 1, "nothing changed, so there is no new revision");
    }
}

#[test]
fn a_dry_run_tells_and_stores_nothing() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let file = place.path().join("shop.yaml");
    std::fs::write(&file, DOCUMENTS).unwrap();
    let told = plane.weft(&["apply", "--dry-run", "-f", file.to_str().unwrap()]);
    assert!(told.stderr.contains("dry run"), "{told:?}");
    assert_eq!(told.succeeded().matches("created").count(), 2);
    assert_eq!(plane.json(&["get", "-A"]), json!([]));
    assert_eq!(plane.revision(), 0);
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    plane.apply(DOCUMENTS);
    for (arguments, code, says) in [
        (&["--help"][..], 0, ""),
        (&["--version"], 0, ""),
        (&["get", "service", "orders", "-n", "shop"], 0, ""),
        (&["get", "services"], 0, "no documents in namespace default; -A shows all namespaces"),
        (&["get", "service", "nobody"], 1, "Service default/nobody does not exist; list what does"),
        (&["delete", "service", "nobody"], 1, "Service default/nobody"),
        (&["apply", "-f", "/nowhere/at/all.yaml"], 1, "cannot read /nowhere/at/all.yaml"),
        (&["proxy", "config", "shop/orders-1"], 1, "is not connected"),
        (&["proxy", "config", "pod/shop/orders-1"], 2, "name a pod without its kind"),
        (&["proxy", "config", "orders-1", "secrets"], 2, "possible values: listeners, routes, clusters, endpoints"),
        (&["top"], 1, "there is no running proxy to ask"),
        (&["top", "--interval", "0"], 2, "--interval"),
        (&["support-bundle", "-f", "/nowhere/at/all.tar.gz"], 1, "name another file with --file"),
        (&["support-bundle", "--proxy", "orders-1"], 2, "expected NAMESPACE/NAME"),
        (&["token", "create", "--service-account", "a b"], 1, "is no workload identity"),
        (&["token", "create", "--service-account", "a", "--ttl", "400d"], 1, "365 days"),
        (&[], 2, "Usage"),
        (&["servce"], 2, "unrecognized subcommand 'servce'"),
        (&["get", "servce"], 2, "unknown kind `servce`; did you mean `Service`?"),
        (&["delete", "node", "x"], 2, "unknown kind `node`; allowed: Mesh, Service, Workload, TLSRoute, HTTPRoute"),
        (&["delete", "service"], 2, "<NAME>"),
        (&["apply"], 2, "--file"),
        (&["get", "-o", "xml"], 2, "possible values: table, json, yaml"),
        (&["token", "create"], 2, "--service-account"),
        (&["token", "create", "--service-account", "a", "--ttl", "soon"], 2, "such as 90s, 30m, 12h or 7d"),
        (&["control-plane", "--listen", "nowhere"], 2, "--listen"),
    ] {
        let finished = plane.weft(arguments);
        assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:#?}");
        assert!(finished.stderr.contains(says), "{arguments:?} does not say `{says}`: {}", finished.stderr);
        if code == 1 {
            assert_eq!(finished.stderr.lines().count(), 1, "{arguments:?}: {}", finished.stderr);
            assert!(finished.stderr.starts_with("error: ") && finished.stdout.is_empty(), "{finished:?}");
        }
    }
}

#[test]
fn a_batch_with_one_missing_document_deletes_none() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    plane.apply(DOCUMENTS);
    let file = place.path().join("more.yaml");
    std::fs::write(&file, format!("{DOCUMENTS}---\n{}", DOCUMENTS.replace("orders", "carts"))).unwrap();
    let refusal = plane.weft(&["delete", "-f", file.to_str().unwrap()]).failed(1);
    assert!(refusal.contains("carts"), "{refusal}");
    assert_eq!(plane.json(&["get", "-A"]).as_array().unwrap().len(), 2);
}

#[test]
fn without_a_control_plane_every_verb_says_how_to_start_one() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("shop.yaml");
    std::fs::write(&file, DOCUMENTS).unwrap();
    for arguments in [
        &["status"][..],
        &["get"],
        &["apply", "-f", file.to_str().unwrap()],
        &["delete", "service", "a"],
        &["token", "create", "--service-account", "a"],
        &["proxy", "config", "a"],
        &["top"],
        &["support-bundle"],
    ] {
        let data = place.path().join("data");
        let refusal = run(weft(&data).args(arguments)).failed(1);
        assert_eq!(refusal.lines().count(), 1, "{arguments:?}: {refusal}");
        let remedy = format!("start one with `weft control-plane --data {}`", data.display());
        assert!(refusal.contains("no control plane is running") && refusal.contains(&remedy), "{refusal}");
        assert!(!data.exists(), "{arguments:?} made the directory");
    }
}

#[test]
fn a_stopped_control_plane_is_told_from_a_running_one() {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(place.path());
    plane.kill();
    assert!(plane.weft(&["status"]).failed(1).contains("no control plane is running"), "after SIGKILL");
    plane.start_again();
    assert_eq!(plane.stop().code(), Some(0));
    assert!(plane.weft(&["status"]).failed(1).contains("no control plane is running"), "after SIGTERM");
    assert!(!plane.data().join("api.sock").exists());
}

#[test]
fn the_help_of_every_verb_lists_its_options_with_a_word_on_each() {
    let verbs = [
        (&["apply"][..], &["--file", "--dry-run"][..]),
        (&["get"], &["--namespace", "--all-namespaces", "[KIND]", "[NAME]"]),
        (&["delete"], &["--namespace", "--file", "[KIND]", "[NAME]"]),
        (&["status"], &[]),
        (&["proxy"], &["--workload", "--control-plane", "--bundle", "--join-token-file", "--state-dir", "--admin"]),
        (&["proxy", "config"], &["<WORKLOAD>", "[PART]", "--namespace", "--kubernetes"]),
        (&["proxy", "log-level"], &["<WORKLOAD>", "[LEVEL]", "--namespace"]),
        (&["top"], &["[VIEW]", "--namespace", "--once", "--interval", "--sort", "--kubernetes"]),
        (&["support-bundle"], &["--file", "--proxy", "--proxies", "--kubernetes"]),
        (&["token", "create"], &["--service-account", "--ttl", "--namespace"]),
        (&["control-plane"], &["--listen", "--config-dir", "--trust-domain"]),
        (&["up"], &["[MESH]", "--for", "--no-namespaces", "--quiet"]),
        (&["demo"], &["--for", "--no-namespaces"]),
        (&["scale"], &["<SERVICE>", "<REPLICAS>"]),
        (&["explain-code"], &["[CODE]"]),
    ];
    let top = run(command(program("weft")).arg("--help")).succeeded();
    assert!(top.contains("Exit codes: 0 done, 1 failed") && top.contains("NO_COLOR"), "{top}");
    for (verb, options) in verbs {
        assert!(top.contains(&format!("  {} ", verb[0])), "{verb:?} is not listed: {top}");
        let help = run(command(program("weft")).args(verb).arg("--help")).succeeded();
        for option in ["--data", "--output", "--help"].iter().chain(options) {
            let Some(at) = help.find(&format!("  {option}")).or_else(|| help.find(&format!(", {option}"))) else {
                panic!("{verb:?} does not list {option}:\n{help}");
            };
            // The text stands behind, or in the next line.
            let rest: String = help[at..].lines().take(2).collect();
            assert!(rest.split_whitespace().count() > 2, "{verb:?} says nothing about {option}:\n{help}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{verb:?}: a line is too long\n{help}");
    }
}

#[test]
fn a_pipe_that_closes_early_is_no_error() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    // More than a pipe holds, so that writing must fail.
    let many: Vec<String> = (0..1_500).map(|number| workload(&format!("w{number}"))).collect();
    plane.apply(&many.join("---\n"));
    for output in ["table", "json", "yaml"] {
        let mut weft = weft(&plane.data());
        let mut weft = weft.args(["get", "-o", output]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The reader goes away after one byte.
        let mut stdout = weft.stdout.take().unwrap();
        std::io::Read::read_exact(&mut stdout, &mut [0]).unwrap();
        drop(stdout);
        let ended = weft.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{output}");
        assert_eq!(ended.status.code(), Some(0), "{output}");
    }
}

fn workload(name: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, labels: {{app: many, part: of-the-whole}}}}\n\
         spec: {{addresses: [10.97.0.5]}}\n"
    )
}

/// `script` gives the command a terminal.
fn on_a_terminal(plane: &Plane, no_color: Option<&str>) -> String {
    let mut script = command("script");
    script.env("TERM", "xterm").env("WEFT_DATA", plane.data());
    if let Some(value) = no_color {
        script.env("NO_COLOR", value);
    }
    let line = format!("{} get -A", program("weft").display());
    run(script.args(["--quiet", "--return", "--command", &line, "/dev/null"])).succeeded()
}

#[test]
fn colour_is_for_terminals_without_no_color() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    plane.apply(DOCUMENTS);
    let escape = "\x1b[";
    assert!(on_a_terminal(&plane, None).contains(escape));
    assert!(on_a_terminal(&plane, Some("")).contains(escape), "an empty NO_COLOR means nothing (no-color.org)");
    assert!(!on_a_terminal(&plane, Some("1")).contains(escape));
    assert!(!plane.weft(&["get", "-A"]).succeeded().contains(escape), "a pipe is no terminal");
    // The control plane's own log goes to a file here.
    assert!(!plane.log().contains(escape), "{}", plane.log());
}

#[test]
fn top_and_a_support_bundle_ask_every_proxy() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    let top = pair.plane.json(&["top", "workloads", "--interval", "1"]);
    let mut names: Vec<&str> = top["rows"].as_array().unwrap().iter().filter_map(|row| row["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!((names, &top["silent"]), (vec!["default/client-1", "default/echo-1"], &serde_json::json!({})));
    let file = place.path().join("bundle.tar.gz");
    let made = pair.plane.json(&["support-bundle", "-f", file.to_str().unwrap()]);
    let parts: Vec<&str> = made["parts"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for part in [
        "status.json",
        "documents.json",
        "proxies/default/echo-1/config_dump.json",
        "proxies/default/client-1/metrics.txt",
    ] {
        assert!(parts.contains(&part), "{part} is missing in {made:#}");
    }
    let missing: Vec<&str> =
        made["missing"].as_array().unwrap().iter().filter_map(|one| one["part"].as_str()).collect();
    assert_eq!(missing, ["logs"]);
    assert!(std::fs::metadata(&file).unwrap().len() > 1_000);
}

#[test]
fn the_configuration_of_a_running_proxy_can_be_looked_at() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    for (name, arguments) in [("client-1", &["client-1"][..]), ("default/echo-1", &["default/echo-1"])] {
        let shown = pair.plane.json(&[&["proxy", "config"], arguments].concat());
        assert!(shown["clusters"].as_array().is_some_and(|clusters| !clusters.is_empty()), "{name}: {shown}");
        let yaml = pair.plane.weft(&[&["proxy", "config", "-o", "yaml"], arguments].concat()).succeeded();
        let yaml: Value = serde_yaml_ng::from_str(&yaml).unwrap();
        assert_eq!(yaml["listeners"], shown["listeners"]);
    }
    let table = pair.plane.weft(&["proxy", "config", "client-1"]).succeeded();
    assert!(table.contains("identity       spiffe://") && table.contains("ENDPOINTS OF"), "{table}");
    let level = |more: &[&str]| pair.plane.weft(&[&["proxy", "log-level", "client-1"], more].concat());
    // It was started so.
    assert_eq!(level(&[]).succeeded().trim(), "debug");
    assert_eq!(level(&["warn"]).succeeded().trim(), "warn");
    assert_eq!(level(&["-o", "json"]).succeeded().trim(), level_of("client-1", "warn"));
    assert!(level(&["loud"]).failed(2).contains("possible values: off"));
    let refusal = pair.plane.weft(&["proxy", "config", "nobody"]).failed(1);
    assert!(refusal.contains("connected are: default/client-1, default/echo-1"), "{refusal}");
}

fn level_of(name: &str, level: &str) -> String {
    serde_json::to_string_pretty(&json!({"workload": format!("default/{name}"), "level": level})).unwrap()
}

#[test]
fn a_running_proxy_is_asked_through_the_control_plane_and_a_change_is_logged_with_who_made_it() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    let asked = |question: &str| {
        pair.client.metrics().sum("weft_operations_total", &[("question", question), ("result", "answered")])
    };
    // A proxy that has just connected may not have said yet that it can be asked; its admin endpoint answers then.
    until("the control plane asks the proxy", || {
        pair.plane.weft(&["proxy", "log-level", "client-1", "trace"]).succeeded();
        pair.plane.weft(&["proxy", "config", "client-1"]).succeeded();
        let counts = (asked("set_log_level"), asked("read_configuration"));
        if counts.0 > 0 && counts.1 > 0 { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    let log = pair.plane.log();
    let change = log.lines().find(|line| line.contains("the log level of a proxy was changed")).expect("it is logged");
    let own = format!("uid {}", nix::unistd::getuid());
    assert!(change.contains("default/client-1") && change.contains("trace"), "{change}");
    assert!(change.contains(&own) && change.contains("cli:"), "{change}");
}

#[test]
fn the_status_names_each_proxy_and_how_far_it_is() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    let revision = until("both proxies are up to date", || {
        let status = pair.plane.status();
        let current = |proxy: &Value| proxy["appliedRevision"] == status["revision"] && proxy["pending"] == 0;
        let proxies = status["proxies"].as_array().unwrap();
        if proxies.len() == 2 && proxies.iter().all(current) {
            Ok(status["revision"].clone())
        } else {
            Err(status.to_string())
        }
    });
    let proxy = pair.plane.proxy("default/client-1").unwrap();
    assert_eq!(proxy["spiffeId"], "spiffe://weft.local/ns/default/sa/client");
    assert_eq!(proxy["admin"], pair.client.admin().to_string());
    assert_eq!((&proxy["nack"], &proxy["appliedRevision"]), (&json!(""), &revision));
    let table = pair.plane.weft(&["status"]).succeeded();
    assert!(table.contains("2 connected, 2 up to date"), "{table}");
    let proxies = table.lines().skip_while(|line| !line.starts_with("WORKLOAD")).collect::<Vec<_>>().join("\n");
    aligned(&proxies, &["WORKLOAD", "FROM", "VERSION", "CONNECTED", "REVISION", "STATE", "PROGRAM"]);
}

#[test]
fn a_service_that_selects_nothing_is_warned_about() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let application = Application::start("unused");
    let applied = plane.try_apply(&pair::service(application.port()));
    assert!(applied.stderr.starts_with("warning: Service default/echo: its selector app=echo"), "{applied:?}");
    assert_eq!(applied.code, Some(0));
}

#[test]
fn an_error_code_is_explained_in_every_form_and_an_unknown_one_is_wrong_usage() {
    let explain = |arguments: &[&str]| run(command(program("weft")).arg("explain-code").args(arguments));
    let text = explain(&["upstream-closed"]).succeeded();
    for part in ["upstream-closed", "503", "14 UNAVAILABLE", "Cause: ", "To confirm:", "Fix: "] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    let value: serde_json::Value = serde_json::from_str(&explain(&["no-route", "-o", "json"]).succeeded()).unwrap();
    assert_eq!(value["httpStatus"], 404);
    let all: serde_json::Value = serde_json::from_str(&explain(&["-o", "json"]).succeeded()).unwrap();
    assert!(all.as_array().is_some_and(|all| all.len() > 30));
    assert!(explain(&[]).succeeded().lines().count() > 30);
    let unknown = explain(&["upstream-close"]).failed(2);
    assert!(unknown.contains("did you mean `upstream-closed`"), "{unknown}");
}

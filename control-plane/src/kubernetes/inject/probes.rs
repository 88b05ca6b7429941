//! The application's probes and HTTP hooks, led through the proxy: the kubelet is not of the mesh, and strict ports refuse it.
//!
//! Each becomes an `httpGet` of the proxy's health port. What it was goes, with ports by number, to the proxy in a
//! variable, from which a later injection of the same pod takes it again. A pod's own `exec` stays: it needs no network.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};

use super::conflicts::proxy_port;
use super::error::{InjectError, shortened};
use crate::kubernetes::names;

/// Kubernetes' own default.
const DEFAULT_TIMEOUT_SECONDS: i32 = 1;

/// Probes as they were, by `CONTAINER/PROBE`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Probes(BTreeMap<String, Value>);

impl Probes {
    /// As the variable has it. Kubernetes reads `$(NAME)` in values as a variable, and `$$` as a dollar.
    pub(super) fn to_variable(&self) -> String {
        json!(self.0).to_string().replace('$', "$$")
    }

    /// What a probe or hook was.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub(super) fn insert(&mut self, key: String, was: Value) {
        self.0.insert(key, was);
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub(super) fn from_variable(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&text.replace("$$", "$")).map(Self)
    }
}

/// Leads the probes of one container through the proxy, in place, and collects what they were.
///
/// `raw` is the container as it was sent, which knows fields that the types of `container` may not; `stored` are the
/// probes of an earlier injection.
pub(super) fn redirect(
    raw: &mut Value,
    container: &Container,
    stored: &Probes,
    collected: &mut Probes,
) -> Result<(), InjectError> {
    let mut redirect = Redirect { container, stored, collected };
    let probes = [
        ("startupProbe", "startup", &container.startup_probe),
        ("readinessProbe", "readiness", &container.readiness_probe),
        ("livenessProbe", "liveness", &container.liveness_probe),
    ];
    for (field, name, probe) in probes {
        if let Some(probe) = probe {
            redirect.probe(&mut raw[field], name, probe)?;
        }
    }
    let Some(lifecycle) = &container.lifecycle else { return Ok(()) };
    for (name, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(get) = hook.as_ref().and_then(|hook| hook.http_get.as_ref()) {
            redirect.hook(&mut raw["lifecycle"][name], name, get)?;
        }
    }
    Ok(())
}

struct Redirect<'a> {
    container: &'a Container,
    stored: &'a Probes,
    collected: &'a mut Probes,
}

impl Redirect<'_> {
    fn probe(&mut self, raw: &mut Value, name: &str, probe: &Probe) -> Result<(), InjectError> {
        let place = || format!("the {name} probe of container {}", shortened(&self.container.name));
        let (field, action) = match (&probe.http_get, &probe.tcp_socket, &probe.grpc, &probe.exec) {
            (Some(get), None, None, None) if self.is_ours(get, name) => return self.keep(name, &place()),
            (Some(get), None, None, None) => ("httpGet", self.http(get, &place())?),
            (None, Some(tcp), None, None) => {
                let mut action = json!({ "port": self.port(&tcp.port, &place())? });
                if let Some(host) = named(tcp.host.as_deref()) {
                    action["host"] = json!(host);
                }
                ("tcpSocket", action)
            }
            (None, None, Some(grpc), None) => {
                let mut action = json!({ "port": self.port(&IntOrString::Int(grpc.port), &place())? });
                if let Some(service) = named(grpc.service.as_deref()) {
                    action["service"] = json!(service);
                }
                ("grpc", action)
            }
            // Nothing that needs the network; or several actions at once, which the API server will refuse.
            _ => return Ok(()),
        };
        let timeout = probe.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS).max(DEFAULT_TIMEOUT_SECONDS);
        self.replace(raw, name, field, json!({ field: action, "timeoutSeconds": timeout }));
        Ok(())
    }

    /// Hooks have no timeout of their own.
    fn hook(&mut self, raw: &mut Value, name: &str, get: &HTTPGetAction) -> Result<(), InjectError> {
        let place = format!("the {name} hook of container {}", shortened(&self.container.name));
        if self.is_ours(get, name) {
            return self.keep(name, &place);
        }
        let action = self.http(get, &place)?;
        self.replace(raw, name, "httpGet", json!({ "httpGet": action }));
        Ok(())
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.container.name)
    }

    fn is_ours(&self, get: &HTTPGetAction, name: &str) -> bool {
        let path = get.path.as_deref().and_then(|path| path.strip_prefix(names::APP_PROBE_PATH));
        get.port == IntOrString::Int(names::HEALTH_PORT.into()) && path == Some(&self.key(name))
    }

    /// Keeps what an earlier injection made of a probe.
    fn keep(&mut self, name: &str, place: &str) -> Result<(), InjectError> {
        let key = self.key(name);
        let lost = || InjectError::ProbeLost { place: place.to_owned() };
        let probe = self.stored.0.get(&key).cloned().ok_or_else(lost)?;
        self.collected.0.insert(key, probe);
        Ok(())
    }

    fn replace(&mut self, raw: &mut Value, name: &str, field: &str, was: Value) {
        let key = self.key(name);
        if let Value::Object(fields) = raw {
            fields.shift_remove(field);
        }
        raw["httpGet"] = json!({ "path": format!("{}{key}", names::APP_PROBE_PATH), "port": names::HEALTH_PORT });
        self.collected.0.insert(key, was);
    }

    fn http(&self, get: &HTTPGetAction, place: &str) -> Result<Value, InjectError> {
        let refused = |what: String| InjectError::Probe { place: place.to_owned(), what };
        let scheme = get.scheme.as_deref().filter(|scheme| !scheme.is_empty()).unwrap_or("HTTP");
        if !matches!(scheme, "HTTP" | "HTTPS") {
            return Err(refused(format!("scheme `{}` is neither HTTP nor HTTPS", shortened(scheme))));
        }
        let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let mut action = Map::new();
        action.insert("path".into(), json!(path));
        action.insert("port".into(), json!(self.port(&get.port, place)?));
        action.insert("scheme".into(), json!(scheme));
        if let Some(host) = named(get.host.as_deref()) {
            action.insert("host".into(), json!(host));
        }
        let headers = get.http_headers.as_deref().unwrap_or_default();
        for header in headers {
            let is_header =
                header.name.parse::<http::HeaderName>().is_ok() && header.value.parse::<http::HeaderValue>().is_ok();
            if !is_header {
                return Err(refused(format!(
                    "`{}: {}` is no header of HTTP",
                    shortened(&header.name),
                    shortened(&header.value)
                )));
            }
        }
        if !headers.is_empty() {
            let list: Vec<Value> =
                headers.iter().map(|header| json!({ "name": header.name, "value": header.value })).collect();
            action.insert("httpHeaders".into(), Value::Array(list));
        }
        Ok(Value::Object(action))
    }

    /// A port by number, found as the kubelet finds it: a name among the container's ports, or a number in quotes.
    fn port(&self, port: &IntOrString, place: &str) -> Result<u16, InjectError> {
        let ports = self.container.ports.as_deref().unwrap_or_default();
        let number = match port {
            IntOrString::Int(number) => u16::try_from(*number).ok(),
            IntOrString::String(name) => {
                let found = ports.iter().find(|port| port.name.as_ref() == Some(name));
                found.map_or_else(|| name.parse().ok(), |port| u16::try_from(port.container_port).ok())
            }
        };
        let Some(number) = number.filter(|number| *number != 0) else {
            let known: Vec<&str> = ports.iter().filter_map(|port| port.name.as_deref()).collect();
            let known = if known.is_empty() { "none has a name".to_owned() } else { shortened(&known.join(", ")) };
            let port = match port {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(name) => shortened(name),
            };
            return Err(InjectError::ProbePort { place: place.to_owned(), port, known });
        };
        match proxy_port(number) {
            Some(purpose) => Err(InjectError::PortTaken { place: place.to_owned(), port: number, purpose }),
            None => Ok(number),
        }
    }
}

fn named(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(mut raw: Value) -> Result<(Value, Probes), InjectError> {
        let container = serde_json::from_value(raw.clone()).expect("a container");
        let mut collected = Probes::default();
        redirect(&mut raw, &container, &Probes::default(), &mut collected)?;
        Ok((raw, collected))
    }

    fn web(probes: &Value) -> Value {
        let mut container = json!({"name": "web", "ports": [{"name": "http", "containerPort": 8080}]});
        container.as_object_mut().unwrap().extend(probes.as_object().unwrap().clone());
        container
    }

    #[test]
    fn each_kind_of_probe_goes_through_the_proxy_and_is_remembered() {
        let ours = |name: &str| json!({"path": format!("/app-probe/web/{name}"), "port": 15020});
        for (field, name, probe, was) in [
            (
                "startupProbe",
                "startup",
                json!({"httpGet": {"port": 80}}),
                json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1}),
            ),
            (
                "readinessProbe",
                "readiness",
                json!({"httpGet": {"port": "http", "path": "/r?x=1", "scheme": "HTTPS", "host": "h",
                    "httpHeaders": [{"name": "Host", "value": "shop"}]}, "timeoutSeconds": 7}),
                json!({"httpGet": {"path": "/r?x=1", "port": 8080, "scheme": "HTTPS", "host": "h",
                    "httpHeaders": [{"name": "Host", "value": "shop"}]}, "timeoutSeconds": 7}),
            ),
            (
                "livenessProbe",
                "liveness",
                json!({"tcpSocket": {"port": "9000", "host": ""}}),
                json!({"tcpSocket": {"port": 9000}, "timeoutSeconds": 1}),
            ),
            (
                "livenessProbe",
                "liveness",
                json!({"grpc": {"port": 9000, "service": "s"}, "timeoutSeconds": 0}),
                json!({"grpc": {"port": 9000, "service": "s"}, "timeoutSeconds": 1}),
            ),
        ] {
            let mut probe = probe;
            probe["periodSeconds"] = json!(3);
            probe["fieldOfAFutureVersion"] = json!({"kept": true});
            let (raw, collected) = redirected(web(&json!({ field: probe.clone() }))).unwrap();
            let mut expected = probe;
            for action in ["httpGet", "tcpSocket", "grpc"] {
                expected.as_object_mut().unwrap().remove(action);
            }
            expected["httpGet"] = ours(name);
            assert_eq!(raw[field], expected);
            assert_eq!(collected.0, BTreeMap::from([(format!("web/{name}"), was)]));
        }
    }

    #[test]
    fn what_needs_no_network_stays() {
        let several = json!({"httpGet": {"port": 80}, "tcpSocket": {"port": 80}});
        for container in [
            web(&json!({"livenessProbe": {"exec": {"command": ["true"]}}})),
            web(&json!({"livenessProbe": several})),
            web(
                &json!({"lifecycle": {"preStop": {"exec": {"command": ["true"]}}, "postStart": {"sleep": {"seconds": 1}}}}),
            ),
            web(&json!({})),
        ] {
            let (raw, collected) = redirected(container.clone()).unwrap();
            assert_eq!((raw, collected), (container, Probes::default()));
        }
    }

    #[test]
    fn hooks_over_http_go_through_the_proxy() {
        let hook = json!({"httpGet": {"path": "/stop", "port": "http"}});
        let (raw, collected) = redirected(web(&json!({"lifecycle": {"preStop": hook}}))).unwrap();
        assert_eq!(raw["lifecycle"]["preStop"], json!({"httpGet": {"path": "/app-probe/web/preStop", "port": 15020}}));
        let was = json!({"httpGet": {"path": "/stop", "port": 8080, "scheme": "HTTP"}});
        assert_eq!(collected.0, BTreeMap::from([("web/preStop".to_owned(), was)]));
    }

    #[test]
    fn probes_that_cannot_be_made_are_refused_by_name() {
        for (probe, words) in [
            (
                json!({"httpGet": {"port": "web"}}),
                "has port `web`; expected a number from 1 to 65535 or a name among the container's ports (http)",
            ),
            (json!({"httpGet": {"port": 0}}), "has port `0`"),
            (json!({"tcpSocket": {"port": 65536}}), "has port `65536`"),
            (json!({"grpc": {"port": -1}}), "has port `-1`"),
            (json!({"httpGet": {"port": 15001}}), "uses port 15001"),
            (json!({"httpGet": {"port": 80, "scheme": "FTP"}}), "scheme `FTP`"),
            (json!({"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": ""}]}}), "no header"),
            (json!({"httpGet": {"port": 80, "httpHeaders": [{"name": "a", "value": "x\ny"}]}}), "no header"),
            (json!({"httpGet": {"port": 15020, "path": "/app-probe/web/readiness"}}), "is not known"),
            (json!({"httpGet": {"port": 15020, "path": "/app-probe/other/readiness"}}), "uses port 15020"),
        ] {
            let refusal = redirected(web(&json!({ "readinessProbe": probe }))).unwrap_err().to_string();
            assert!(
                refusal.starts_with("the readiness probe of container web") && refusal.contains(words),
                "{refusal}"
            );
        }
    }

    #[test]
    fn dollars_survive_the_variable() {
        let header = json!([{"name": "X-Price", "value": "$(HOME) $$ $5"}]);
        let get = json!({"httpGet": {"port": 80, "path": "/$(A)", "httpHeaders": header}});
        let (_, collected) = redirected(web(&json!({ "livenessProbe": get }))).unwrap();
        let text = collected.to_variable();
        // As Kubernetes expands: a pair is one dollar, and nothing else may be left to expand.
        assert!(!text.replace("$$", "").contains('$'), "{text}");
        assert_eq!(Probes::from_variable(&text).unwrap(), collected);
    }
}

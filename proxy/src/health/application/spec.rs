//! The setting: probes as Kubernetes writes them, by `CONTAINER/PROBE`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;

/// What the last part of a probe's name may be.
const PROBES: [&str; 3] = ["startup", "readiness", "liveness"];
const HOOKS: [&str; 2] = ["postStart", "preStop"];
/// Kubernetes' own default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Hooks have no timeout in Kubernetes: they end with the pod's grace period, or when the kubelet goes away. This is longer
/// than grace periods are.
const HOOK_TIMEOUT: Duration = Duration::from_hours(1);

/// The probes of a pod's application.
#[derive(Debug, Clone, Default)]
pub struct AppProbes(BTreeMap<String, Arc<Probe>>);

/// Why a text is not a list of probes.
#[derive(Debug, thiserror::Error)]
pub enum ParseProbesError {
    #[error("not JSON of the form {{\"CONTAINER/readiness\": {{\"httpGet\": {{..}}, \"timeoutSeconds\": 1}}}}: {0}")]
    Form(#[from] serde_json::Error),
    #[error(
        "`{0}` is no name of a probe; expected CONTAINER/ and one of startup, readiness, liveness, postStart, preStop"
    )]
    Name(String),
    #[error("probe `{name}`: {problem}")]
    Probe { name: String, problem: String },
}

#[derive(Debug)]
pub(super) struct Probe {
    pub(super) action: Action,
    pub(super) timeout: Duration,
}

#[derive(Debug)]
pub(super) enum Action {
    Http(HttpProbe),
    Tcp(TcpProbe),
    Grpc(GrpcProbe),
    /// Of a hook: nothing is asked, the answer comes after this.
    Sleep(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::health) enum Scheme {
    Http,
    Https,
}

#[derive(Debug)]
pub(in crate::health) struct HttpProbe {
    pub(in crate::health) scheme: Scheme,
    pub(in crate::health) host: Option<String>,
    pub(in crate::health) port: u16,
    pub(in crate::health) path: PathAndQuery,
    /// Without `Host`.
    pub(in crate::health) headers: HeaderMap,
    /// The `Host` among the headers the author wrote.
    pub(in crate::health) authority: Option<HeaderValue>,
}

#[derive(Debug)]
pub(super) struct TcpProbe {
    pub(super) host: Option<String>,
    pub(super) port: u16,
}

#[derive(Debug)]
pub(in crate::health) struct GrpcProbe {
    pub(in crate::health) port: u16,
    pub(in crate::health) service: String,
}

impl AppProbes {
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Probe>> {
        self.0.get(name)
    }
}

impl FromStr for AppProbes {
    type Err = ParseProbesError;

    /// An empty text means no probes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let written: BTreeMap<String, Written> = serde_json::from_str(text)?;
        let read = |(name, written): (String, Written)| {
            let problem = |problem: String| ParseProbesError::Probe { name: name.clone(), problem };
            let is_hook = is_hook(&name).ok_or_else(|| ParseProbesError::Name(name.clone()))?;
            let probe = written.read(is_hook).map_err(problem)?;
            Ok((name, Arc::new(probe)))
        };
        written.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

/// Whether a name is that of a hook; `None` when it is no name.
fn is_hook(name: &str) -> Option<bool> {
    let (container, probe) = name.split_once('/')?;
    let is_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if container.is_empty() || !container.bytes().all(is_label) {
        return None;
    }
    let hook = HOOKS.contains(&probe);
    (hook || PROBES.contains(&probe)).then_some(hook)
}

/// A probe as in a pod's specification. Fields that say when it is made are passed over: that is the kubelet's.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    http_get: Option<WrittenHttp>,
    tcp_socket: Option<WrittenTcp>,
    grpc: Option<WrittenGrpc>,
    sleep: Option<WrittenSleep>,
    timeout_seconds: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct WrittenSleep {
    seconds: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenHttp {
    #[serde(default)]
    path: Option<String>,
    port: WrittenPort,
    host: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    http_headers: Vec<WrittenHeader>,
}

#[derive(Debug, Deserialize)]
struct WrittenHeader {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
struct WrittenTcp {
    port: WrittenPort,
    host: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WrittenGrpc {
    port: WrittenPort,
    service: Option<String>,
}

/// A number, or one in quotes as Kubernetes takes it; names of ports were resolved by whoever wrote the setting.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum WrittenPort {
    Number(i64),
    Text(String),
}

impl fmt::Display for WrittenPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl WrittenPort {
    fn read(&self) -> Result<u16, String> {
        let number = match self {
            Self::Number(number) => u16::try_from(*number).ok(),
            Self::Text(text) => text.parse().ok(),
        };
        number.filter(|port| *port != 0).ok_or_else(|| format!("port {self} is not a number from 1 to 65535"))
    }
}

impl Written {
    fn read(self, is_hook: bool) -> Result<Probe, String> {
        let action = match (self.http_get, self.tcp_socket, self.grpc, self.sleep) {
            (Some(get), None, None, None) => Action::Http(get.read()?),
            (None, Some(tcp), None, None) => Action::Tcp(TcpProbe { port: tcp.port.read()?, host: named(tcp.host) }),
            (None, None, Some(grpc), None) => {
                Action::Grpc(GrpcProbe { port: grpc.port.read()?, service: grpc.service.unwrap_or_default() })
            }
            (None, None, None, Some(sleep)) if is_hook => Action::Sleep(Duration::from_secs(sleep.seconds)),
            _ => return Err("expected exactly one of httpGet, tcpSocket, grpc, or sleep for a hook".to_owned()),
        };
        let given =
            self.timeout_seconds.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()));
        let timeout = given.unwrap_or(if is_hook { HOOK_TIMEOUT } else { DEFAULT_TIMEOUT });
        Ok(Probe { action, timeout })
    }
}

impl WrittenHttp {
    fn read(self) -> Result<HttpProbe, String> {
        let scheme = match self.scheme.as_deref() {
            None | Some("" | "HTTP") => Scheme::Http,
            Some("HTTPS") => Scheme::Https,
            Some(other) => return Err(format!("scheme {other} is neither HTTP nor HTTPS")),
        };
        let (mut headers, mut authority) = (HeaderMap::new(), None);
        for WrittenHeader { name, value } in self.http_headers {
            let invalid = || format!("header {name}: {value} is not one of HTTP");
            let field: HeaderName = name.parse().map_err(|_| invalid())?;
            let value: HeaderValue = value.parse().map_err(|_| invalid())?;
            if field == header::HOST {
                authority = Some(value);
            } else {
                headers.append(field, value);
            }
        }
        Ok(HttpProbe {
            scheme,
            host: named(self.host),
            port: self.port.read()?,
            path: path(self.path.as_deref().unwrap_or_default())?,
            headers,
            authority,
        })
    }
}

fn named(host: Option<String>) -> Option<String> {
    host.filter(|host| !host.is_empty())
}

/// The path as it goes over the wire: begins with a slash, and what may not stand there is escaped.
fn path(written: &str) -> Result<PathAndQuery, String> {
    let mut text = String::with_capacity(written.len() + 1);
    if !written.starts_with('/') {
        text.push('/');
    }
    for byte in written.bytes() {
        match byte {
            b'!'..=b'~' if !b"\"<>\\^`{|}".contains(&byte) => text.push(byte.into()),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text.parse().map_err(|_| format!("path {written} is not one of HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        text.parse::<AppProbes>().expect_err(text).to_string()
    }

    #[test]
    fn probes_are_read_as_kubernetes_writes_them() {
        let probes: AppProbes = r#"{
            "web/readiness": {"httpGet": {"path": "/ready?a=b c", "port": 8080, "scheme": "HTTPS", "host": "shop.test",
                "httpHeaders": [{"name": "Host", "value": "shop"}, {"name": "X-Probe", "value": "1"}]},
                "timeoutSeconds": 3, "periodSeconds": 5, "failureThreshold": 2},
            "web/liveness": {"tcpSocket": {"port": "9000"}},
            "web/startup": {"grpc": {"port": 7000, "service": null}},
            "web/preStop": {"httpGet": {"port": 8080}}
        }"#
        .parse()
        .expect("valid");
        let readiness = probes.get("web/readiness").expect("listed");
        assert_eq!(readiness.timeout, Duration::from_secs(3));
        let Action::Http(get) = &readiness.action else { panic!("{readiness:?}") };
        assert_eq!((get.scheme, get.port, get.path.as_str()), (Scheme::Https, 8080, "/ready?a=b%20c"));
        assert_eq!((get.host.as_deref(), get.headers.len()), (Some("shop.test"), 1));
        assert_eq!(get.authority.as_ref().expect("given"), "shop");
        let liveness = probes.get("web/liveness").expect("listed");
        assert!(matches!(&liveness.action, Action::Tcp(TcpProbe { port: 9000, host: None })), "{liveness:?}");
        assert_eq!(liveness.timeout, DEFAULT_TIMEOUT);
        let startup = probes.get("web/startup").expect("listed");
        assert!(matches!(&startup.action, Action::Grpc(GrpcProbe { port: 7000, service }) if service.is_empty()));
        let hook = probes.get("web/preStop").expect("listed");
        assert!(matches!(&hook.action, Action::Http(get) if get.path == "/"));
        assert_eq!(hook.timeout, HOOK_TIMEOUT);
        assert!(probes.get("web/other").is_none());
        assert!("".parse::<AppProbes>().expect("none").0.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_the_probes_name() {
        let table = [
            ("[]", "not JSON of the form"),
            (r#"{"web": {"tcpSocket": {"port": 1}}}"#, "`web` is no name"),
            (r#"{"web/ready": {"tcpSocket": {"port": 1}}}"#, "`web/ready` is no name"),
            (r#"{"../readiness": {"tcpSocket": {"port": 1}}}"#, "`../readiness` is no name"),
            (r#"{"web/startup": {"sleep": {"seconds": 1}}}"#, "probe `web/startup`: expected exactly one"),
            (r#"{"web/startup": {}}"#, "probe `web/startup`: expected exactly one"),
            (r#"{"web/startup": {"tcpSocket": {"port": 1}, "grpc": {"port": 1}}}"#, "expected exactly one"),
            (r#"{"web/startup": {"tcpSocket": {"port": "http"}}}"#, "port http is not a number"),
            (r#"{"web/startup": {"tcpSocket": {"port": 65536}}}"#, "port 65536 is not a number"),
            (r#"{"web/startup": {"httpGet": {"port": 1, "scheme": "FTP"}}}"#, "scheme FTP is neither"),
            (
                r#"{"web/startup": {"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": ""}]}}}"#,
                "header a b",
            ),
        ];
        for (text, words) in table {
            assert!(refused(text).contains(words), "{text}: {}", refused(text));
        }
    }
}

//! Probes and hooks, from where a kubelet does them: outside the pod, to its address.

use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::container::execute;

/// Longest head of an answer that is looked at.
const HEAD: usize = 4 << 10;

/// What a probe is done on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) address: Ipv4Addr,
    pub(super) pid: u32,
    pub(super) container: &'a Container,
}

/// When a probe's word counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) delay: Duration,
    pub(super) period: Duration,
    pub(super) successes: u32,
    pub(super) failures: u32,
}

impl Pace {
    /// With the defaults of the API.
    pub(super) fn of(probe: &Probe) -> Self {
        let seconds = |given: Option<i32>, default: u64| {
            Duration::from_secs(given.and_then(|given| u64::try_from(given).ok()).unwrap_or(default))
        };
        let count =
            |given: Option<i32>, default: u32| given.and_then(|given| u32::try_from(given).ok()).unwrap_or(default);
        Self {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, 3),
        }
    }
}

/// One look.
pub(super) async fn look(target: Target<'_>, probe: &Probe) -> Result<(), String> {
    let limit = Duration::from_secs(probe.timeout_seconds.and_then(|given| u64::try_from(given).ok()).unwrap_or(1));
    let attempt = act(target, probe.http_get.as_ref(), probe.tcp_socket.as_ref(), probe.exec.as_ref());
    timeout(limit, attempt).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

/// A hook at start or stop; as long as it takes.
pub(super) async fn hook(target: Target<'_>, handler: &LifecycleHandler) -> Result<(), String> {
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.unsigned_abs())).await;
        return Ok(());
    }
    act(target, handler.http_get.as_ref(), handler.tcp_socket.as_ref(), handler.exec.as_ref()).await
}

async fn act(
    target: Target<'_>,
    http: Option<&HTTPGetAction>,
    tcp: Option<&TCPSocketAction>,
    exec: Option<&ExecAction>,
) -> Result<(), String> {
    if let Some(action) = http {
        return http_get(target, action).await;
    }
    if let Some(action) = tcp {
        let port = port(target.container, &action.port)?;
        return TcpStream::connect((target.address, port)).await.map(drop).map_err(|error| error.to_string());
    }
    match exec {
        Some(action) => execute(target.pid, action.command.as_deref().unwrap_or_default()).await,
        None => Err("a probe the node in miniature does not know".to_owned()),
    }
}

async fn http_get(target: Target<'_>, action: &HTTPGetAction) -> Result<(), String> {
    if action.scheme.as_deref().unwrap_or("HTTP") != "HTTP" {
        return Err("the node in miniature knows no probe over HTTPS".to_owned());
    }
    let port = port(target.container, &action.port)?;
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let mut head = vec![format!("GET {path} HTTP/1.1")];
    head.push("user-agent: kube-probe/1.36\r\nconnection: close".to_owned());
    let own = || action.http_headers.iter().flatten();
    if !own().any(|header| header.name.eq_ignore_ascii_case("host")) {
        head.push(format!("host: {}:{port}", target.address));
    }
    head.extend(own().map(|header| format!("{}: {}", header.name, header.value)));
    let request = head.join("\r\n") + "\r\n\r\n";
    let answer = async {
        let mut stream = TcpStream::connect((target.address, port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        stream.take(HEAD as u64).read_to_end(&mut head).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&head).into_owned())
    };
    let answer = answer.await.map_err(|error| format!("{}:{port}{path}: {error}", target.address))?;
    let status: Option<u16> = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    match status {
        Some(200..=399) => Ok(()),
        _ => Err(format!("{}:{port}{path}: {}", target.address, answer.lines().next().unwrap_or("nothing"))),
    }
}

/// Of a number, or the name of one of the container's ports.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            ports.find(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port)
        }
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| format!("no port {port:?}"))
}

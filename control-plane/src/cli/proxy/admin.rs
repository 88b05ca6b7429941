//! The admin endpoint of a proxy on this machine.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use weft_proto::weft::ProxyStatus;

use crate::cli::Failure;

/// For connecting and for the whole answer.
pub(in crate::cli) const PATIENCE: Duration = Duration::from_secs(10);
/// More than the configuration of a large mesh.
pub(in crate::cli) const MAX_BYTES: usize = 256 << 20;

/// The admin address of the proxy beside a workload.
pub(in crate::cli) fn admin_of<'s>(workload: &str, proxies: &'s [ProxyStatus]) -> Result<&'s str, Failure> {
    let Some(proxy) = proxies.iter().find(|proxy| proxy.workload == workload) else {
        let others: Vec<&str> = proxies.iter().take(10).map(|proxy| proxy.workload.as_str()).collect();
        let remedy = if others.is_empty() {
            "no proxy is; start one for this workload".to_owned()
        } else {
            format!("connected are: {}", others.join(", "))
        };
        return Err(Failure::new(format!("the proxy of {workload} is not connected; {remedy}")));
    };
    // The first of several addresses is as good as any.
    let first = proxy.admin.split(',').map(str::trim).find(|address| !address.is_empty());
    first.ok_or_else(|| {
        Failure::new(format!("the proxy of {workload} did not say where its admin endpoint is; give it WEFT_ADMIN"))
    })
}

/// GETs a path from `unix:/path` or `host:port`.
pub(in crate::cli) async fn fetch(address: &str, path: &str, patience: Duration) -> Result<Bytes, String> {
    ask(address, Method::GET, path, patience).await
}

/// PUTs nothing to a path of `unix:/path` or `host:port`.
pub(super) async fn put(address: &str, path: &str, patience: Duration) -> Result<Bytes, String> {
    ask(address, Method::PUT, path, patience).await
}

async fn ask(address: &str, method: Method, path: &str, patience: Duration) -> Result<Bytes, String> {
    let exchange = async {
        match address.strip_prefix("unix:") {
            Some(socket) => {
                exchange_on(UnixStream::connect(socket).await.map_err(|e| e.to_string())?, method, path).await
            }
            None => exchange_on(TcpStream::connect(address).await.map_err(|e| e.to_string())?, method, path).await,
        }
    };
    let late = |_| format!("no answer within {} s", patience.as_secs());
    tokio::time::timeout(patience, exchange).await.map_err(late)?
}

async fn exchange_on(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    method: Method,
    path: &str,
) -> Result<Bytes, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the connection, which the answer's end closes at the latest when the program exits.
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "proxy.weft")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(|error| error.to_string())?;
    if status.is_success() { Ok(body.to_bytes()) } else { Err(format!("it answered {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_is_not_there_is_told_with_those_that_are() {
        let proxy = |workload: &str, admin: &str| ProxyStatus {
            workload: workload.into(),
            admin: admin.into(),
            ..ProxyStatus::default()
        };
        let proxies = [proxy("shop/a", "unix:/run/a.sock, 127.0.0.1:15000"), proxy("shop/b", "")];
        assert_eq!(admin_of("shop/a", &proxies), Ok("unix:/run/a.sock"));
        let refusal = admin_of("shop/c", &proxies).unwrap_err().to_string();
        assert_eq!(refusal, "the proxy of shop/c is not connected; connected are: shop/a, shop/b");
        assert!(admin_of("shop/b", &proxies).unwrap_err().to_string().contains("WEFT_ADMIN"));
    }
}

//! A probe by HTTP GET: what the kubelet's is, from inside the pod.
//!
//! Statuses from 200 to 399 pass. A redirect is followed when it stays at the same scheme, host and port, ten times at
//! most; every other redirect passes as it is. (The kubelet also follows redirects to other ports of the same host: from
//! here nothing but the listed ports is reached.) TLS is not verified, as the kubelet does not.

use std::io;

use ::http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use ::http::uri::{Authority, PathAndQuery, Uri};
use ::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::application::{HttpProbe, Outcome, Place, Scheme};
use super::tls;

/// As many as Go's client follows.
const REDIRECTS: usize = 10;
/// Read of a body before the connection is closed, so that an application that just answered is not cut off. The kubelet
/// reads as much.
const BODY: usize = 10 * 1024;

/// Makes the probe; whoever calls limits its time.
pub(super) async fn get(probe: &HttpProbe, place: &Place, asked_by: Option<HeaderValue>) -> Outcome {
    let mut path = probe.path.clone();
    for _ in 0..=REDIRECTS {
        let response = match exchange(probe, place, &path, asked_by.clone()).await {
            Ok(response) => response,
            Err(reason) => return Outcome::failed(reason),
        };
        let Some(next) = followed(probe, place, &path, &response) else { return judged(response.status()) };
        path = next;
    }
    Outcome::failed(format!("stopped after {REDIRECTS} redirects"))
}

fn judged(status: StatusCode) -> Outcome {
    match status.as_u16() {
        200..=399 => Outcome::Passed,
        400..=599 => Outcome::Failed { status, reason: format!("the application answered {status}") },
        // No status for an answer of ours.
        other => Outcome::failed(format!("the application answered {other}")),
    }
}

/// The head of an answer; its body was read and thrown away.
type Head = Response<()>;

async fn exchange(
    probe: &HttpProbe,
    place: &Place,
    path: &PathAndQuery,
    asked_by: Option<HeaderValue>,
) -> Result<Head, String> {
    let stream = place.connect(probe.host.as_deref(), probe.port).await?;
    let request = request(probe, place, path, asked_by)?;
    match probe.scheme {
        Scheme::Http => send(stream, request).await,
        Scheme::Https => {
            let stream = tls::connect(stream, &place.host(probe.host.as_deref())).await;
            send(stream.map_err(|error| format!("TLS with the application failed: {error}"))?, request).await
        }
    }
}

fn request(
    probe: &HttpProbe,
    place: &Place,
    path: &PathAndQuery,
    asked_by: Option<HeaderValue>,
) -> Result<Request<Empty<Bytes>>, String> {
    let authority = match &probe.authority {
        Some(written) => written.clone(),
        None => HeaderValue::try_from(format!("{}:{}", place.host(probe.host.as_deref()), probe.port))
            .map_err(|_| "the probe's host is none of HTTP".to_owned())?,
    };
    let mut headers = HeaderMap::new();
    headers.insert(HOST, authority);
    // Applications tell the kubelet's requests by its name.
    headers.insert(USER_AGENT, asked_by.unwrap_or(HeaderValue::from_static("kube-probe/weft")));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let mut last = None;
    for (name, value) in &probe.headers {
        // The author's instead of ours, all of them where one name stands twice.
        if last == Some(name) {
            headers.append(name, value.clone());
        } else {
            headers.insert(name, value.clone());
        }
        last = Some(name);
    }
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = Uri::from(path.clone());
    *request.headers_mut() = headers;
    Ok(request)
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Head, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| format!("the application gave no answer of HTTP: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with this function, however that ends.
    let mut driving = JoinSet::new();
    driving.spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a probe's connection ended");
        }
    });
    let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
    // What follows the head decides nothing.
    let _ = drain(body).await;
    Ok(Response::from_parts(head, ()))
}

async fn drain(mut body: Incoming) -> io::Result<()> {
    let mut left = BODY;
    while let Some(frame) = body.frame().await {
        let length = frame.map_err(io::Error::other)?.data_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(length);
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// Where a redirect leads, when it is one to follow.
fn followed(probe: &HttpProbe, place: &Place, path: &PathAndQuery, response: &Head) -> Option<PathAndQuery> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let location = location.split('#').next().unwrap_or_default();
    if let Some(rest) = location.strip_prefix("//") {
        return same_place(probe, place, probe.scheme, rest);
    }
    if let Some((scheme, rest)) = location.split_once("://") {
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        return same_place(probe, place, scheme, rest);
    }
    let joined = match location.as_bytes().first()? {
        b'/' => location.to_owned(),
        b'?' => format!("{}{location}", path.path()),
        _ => format!("{}/{location}", path.path().rsplit_once('/').map_or("", |(directory, _)| directory)),
    };
    joined.parse().ok()
}

/// The path of `HOST:PORT/PATH` when that is where the probe went.
fn same_place(probe: &HttpProbe, place: &Place, scheme: Scheme, rest: &str) -> Option<PathAndQuery> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority: Authority = authority.parse().ok()?;
    let port = authority.port_u16().unwrap_or(if scheme == Scheme::Https { 443 } else { 80 });
    let is_same = scheme == probe.scheme
        && port == probe.port
        && authority.host().eq_ignore_ascii_case(&place.host(probe.host.as_deref()));
    if !is_same {
        return None;
    }
    if path.starts_with('/') { path.parse().ok() } else { format!("/{path}").parse().ok() }
}

//! Stage: detect. What comes on a port whose protocol nobody declared.
//!
//! Never stalls: the upstream is dialled at once, both sides are watched, and whoever speaks first decides. A server that
//! speaks first is opaque; a client that sends an HTTP/1 request line or the preface of HTTP/2 gets requests; anything
//! else is opaque.
//!
//! And what TLS is that nobody here terminates: it goes where the name in its ClientHello says.

#[cfg(any(test, feature = "fuzzing"))]
pub mod check;
pub mod client_hello;
mod sniff;
mod tls;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use weft_core::model::Protocol;

use crate::clock;
use crate::connect;
use crate::drain::Place;
use crate::forward::tcp;
use crate::forward::{Service, http1};
use crate::http2;
use crate::state::{Listener, Version};
use crate::stream::Connection;
use crate::tls::MeshProtocol;

pub use sniff::{Sniffed, sniff};
pub use tls::{Begin, begins, serve as serve_tls};

/// How long a client may take between the first byte of what may be a request line and its end, before its bytes go on
/// as they are. 100 ms: a request line arrives in one piece but for the unluckiest.
const UNDECIDED: Duration = Duration::from_millis(100);

/// How long a client may say nothing when there is nobody it could be waiting for: the upstream cannot be reached, or
/// this proxy drains. 1 s: a client that speaks first does so at once.
const SILENT: Duration = Duration::from_secs(1);

/// Serves a connection as what it turns out to be.
pub async fn serve(service: &Service<'_>, mut client: Connection, listener: Arc<Listener>) {
    let place = service.worker.drain.enter(service.direction);
    let Some(cluster) = listener.cluster.clone() else {
        tracing::debug!(listener = %listener.spec.name, "no cluster: connection closed");
        return;
    };
    let edge = service.edge(&cluster);
    let connected = tcp::connect(service, &cluster, &edge, MeshProtocol::Detect).await;
    let (mut upstream, in_flight) = match connected {
        Ok(connected) => connected,
        Err(failure) => {
            // A client that speaks HTTP gets an answer that says why.
            service.tell(&edge, &failure.into());
            let verdict = watch(service, &place, &mut client, None).await;
            drop(place);
            if verdict.is_ok_and(|verdict| verdict == Protocol::Http) {
                Box::pin(http1::serve(service, client, listener)).await;
            }
            return;
        }
    };
    let Ok(verdict) = watch(service, &place, &mut client, Some(&mut upstream.connection)).await else { return };
    metrics::counter!(
        "weft_detected_total",
        "destination" => cluster.spec.service.to_string(),
        "protocol" => if verdict == Protocol::Http { "http" } else { "tcp" }
    )
    .increment(1);
    if verdict == Protocol::Http {
        drop(in_flight);
        drop(place);
        // What was dialled while the client was watched carries its first request.
        let is_http2 = http2::is_preface(client.data()) == Some(true);
        match cluster.version(if is_http2 { Version::Http2 } else { Version::Http1 }) {
            Version::Http1 => service.worker.pool.give(upstream, clock::now()),
            Version::Http2 => connect::adopt(service.worker, upstream),
        }
        Box::pin(http1::serve(service, client, listener)).await;
    } else {
        Box::pin(tcp::carry(service, &cluster, &edge, &mut client, &mut upstream, in_flight)).await;
    }
}

/// Watches both sides until one has said enough. A side that ends without a word makes the connection opaque, so that
/// the end is passed on.
///
/// # Errors
/// What a socket says, or `TimedOut` when both stay silent.
async fn watch(
    service: &Service<'_>,
    place: &Place<'_>,
    client: &mut Connection,
    mut upstream: Option<&mut Connection>,
) -> io::Result<Protocol> {
    let since = Instant::from(clock::now());
    let mut spoken = None;
    let mut timer = pin!(tokio::time::sleep_until(since + service.worker.timeouts.tcp_idle));
    poll_fn(|cx| {
        loop {
            match sniff(client.data()) {
                Sniffed::Http => return Poll::Ready(Ok(Protocol::Http)),
                Sniffed::Other => return Poll::Ready(Ok(Protocol::Tcp)),
                Sniffed::NeedMore => {}
            }
            match client.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Protocol::Tcp)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        if let Some(upstream) = &mut upstream {
            match upstream.poll_fill(cx) {
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(Protocol::Tcp)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        let is_silent = client.data().is_empty();
        let deadline = if !is_silent {
            *spoken.get_or_insert_with(|| Instant::from(clock::now()) + UNDECIDED)
        } else if upstream.is_none() || service.worker.drain.is_draining(service.direction) {
            since + SILENT
        } else {
            place.wait(cx.waker());
            since + service.worker.timeouts.tcp_idle
        };
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) if is_silent => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Ready(()) => Poll::Ready(Ok(Protocol::Tcp)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

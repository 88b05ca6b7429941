//! An upstream of HTTP/1 that is asked for a client of HTTP/2.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use weft_core::endpoint::Endpoint;

use super::Request;
use super::http1::Http1;
use super::side::{AnswerHead, RequestHead, Tunnel, Upstream};
use crate::clock;
use crate::connect;
use crate::failure::Failure;
use crate::forward::Service;
use crate::http1::{BodyKind, FieldStorage, Framing, HeadError, HeadScan, ResponseHead};
use crate::http2::{response_from_http1, tunnel_from_http1};
use crate::pool::Pooled;
use crate::stream::Connection;

/// A connection of the pool, and whether it may go back there.
#[derive(Debug)]
pub(in crate::forward) struct Borrowed {
    pooled: Box<Pooled>,
    keeps: bool,
    scan: HeadScan,
}

impl AsMut<Connection> for Borrowed {
    fn as_mut(&mut self) -> &mut Connection {
        &mut self.pooled.connection
    }
}

impl Upstream for Http1<Borrowed> {
    async fn reach(
        service: &Service<'_>,
        request: &Request,
        endpoint: &Arc<Endpoint>,
        fresh: bool,
    ) -> Result<Self, Failure> {
        let RequestHead::Http1 { bytes, outgoing } = &request.head else { return Err(Failure::UpstreamProtocol) };
        let (worker, target) = (service.worker, &request.target);
        let kept = if fresh { None } else { worker.pool.take(&target.cluster, endpoint) };
        let pooled = if let Some(kept) = kept {
            kept
        } else {
            // Boxed: the state of a handshake would set the size of every request.
            let open = connect::open_http1(worker, &target.cluster, endpoint, &target.edge);
            Box::pin(open).await?
        };
        // What comes before its head was read is nothing of a body.
        let mut upstream = Self::new(Borrowed { pooled, keeps: false, scan: HeadScan::default() }, Framing::Done);
        upstream.stage().extend_from_slice(bytes);
        upstream.send_as(*outgoing);
        Ok(upstream)
    }

    fn may_be_stale(&self, failure: Failure) -> bool {
        failure == Failure::UpstreamClosed && self.connection.pooled.reused
    }

    fn sent_nothing(&self) -> bool {
        self.written == 0
    }

    fn poll_head(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, Failure>> {
        loop {
            if let Some(head) = self.read_head(request)? {
                return Poll::Ready(Ok(head));
            }
            match ready!(self.connection.as_mut().poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Failure::UpstreamClosed)),
                Ok(_) => {}
            }
        }
    }

    fn into_tunnel(self) -> Tunnel {
        Tunnel::Http1(self.connection.pooled)
    }

    fn give_back(self, service: &Service<'_>) {
        if self.connection.keeps && self.has_ended() {
            service.worker.pool.give(self.connection.pooled, clock::now());
        }
    }
}

impl Http1<Borrowed> {
    /// Takes a complete head from the buffer; `None` when more must be read.
    fn read_head(&mut self, request: &Request) -> Result<Option<AnswerHead>, Failure> {
        let connection = &mut self.connection.pooled.connection;
        if !self.connection.scan.should_parse(connection.data()) {
            return if connection.is_full() { Err(Failure::UpstreamLimit) } else { Ok(None) };
        }
        let mut storage = FieldStorage::new();
        let head = match ResponseHead::parse(connection.data(), &mut storage, request.to_head) {
            Ok(Some(head)) => head,
            Ok(None) if connection.is_full() => return Err(Failure::UpstreamLimit),
            Ok(None) => return Ok(None),
            Err(HeadError::TooManyFields | HeadError::TooLong) => return Err(Failure::UpstreamLimit),
            Err(error) => {
                tracing::debug!(%error, "answer refused");
                return Err(Failure::UpstreamProtocol);
            }
        };
        let keep_error = request.upstream_is_proxy;
        let (fields, is_tunnel) = match &request.websocket {
            Some(accept) if head.status == 101 => (tunnel_from_http1(&head, accept, keep_error), true),
            // To the client it would look as if its tunnel were there.
            Some(_) if (200..300).contains(&head.status) => return Err(Failure::ProtocolMismatch),
            _ => (response_from_http1(&head, keep_error), false),
        };
        let fields = fields.map_err(|error| {
            tracing::debug!(%error, "answer refused");
            Failure::UpstreamProtocol
        })?;
        let answer = AnswerHead {
            fields,
            status: if is_tunnel { 200 } else { head.status },
            ended: head.body == BodyKind::Empty && !head.is_informational() && !is_tunnel,
            is_tunnel,
            is_unsent: request.says_unsent(head.weft_error()),
        };
        self.connection.keeps = head.keep_alive;
        self.connection.pooled.said = head.idle_timeout();
        self.connection.scan = HeadScan::default();
        let (length, body) = (head.length, head.body);
        connection.consume(length);
        if !answer.is_interim() {
            self.expect(Framing::from(body));
        }
        Ok(Some(answer))
    }
}

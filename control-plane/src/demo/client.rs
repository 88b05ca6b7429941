//! Plain HTTP/1.1 calls over kept connections, as an ordinary application makes them: no retry once a request has left,
//! no mesh knowledge.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// No answer of the shop comes near this; a larger one is somebody else's.
const LARGEST_BODY: usize = 1 << 20;
/// Connections a pool keeps for later; more may be open while they are in use.
const MOST_IDLE: usize = 64;

/// Where a call goes: a plain `http://` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    authority: String,
    path: String,
}

/// An address that cannot be called.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an address to call; write http://HOST[:PORT][/PATH]")]
pub struct InvalidTarget(String);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("cannot connect to {authority}: {source}")]
    Connect { authority: String, source: std::io::Error },
    #[error("call to {authority} failed: {source}")]
    Exchange { authority: String, source: hyper::Error },
    #[error("answer of {authority} broke off or exceeds {LARGEST_BODY} bytes: {source}")]
    Body { authority: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl Target {
    /// The same host with another path.
    #[must_use]
    pub fn with_path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// Host and, unless it is 80, port: what a `Host` header says.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let invalid = || InvalidTarget(text.to_owned());
        let uri: http::Uri = text.parse().map_err(|_| invalid())?;
        if uri.scheme_str() != Some("http") {
            return Err(invalid());
        }
        let written = uri.host().ok_or_else(invalid)?;
        let port = uri.port_u16().unwrap_or(80);
        let authority = if port == 80 { written.to_owned() } else { format!("{written}:{port}") };
        let host = written.trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        Ok(Self { host, port, authority, path })
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// One kept connection, opened when first needed and again when the peer has closed it.
#[derive(Debug)]
pub struct Client {
    target: Target,
    kept: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    /// A client without a connection yet.
    pub fn new(target: Target) -> Self {
        Self { target, kept: None }
    }

    /// GETs the target. Dropping the future closes the connection; its answer can no longer be told from the next one.
    ///
    /// # Errors
    /// When there is no connection, or it ends before the whole answer.
    pub async fn get(&mut self) -> Result<Answer, CallError> {
        let mut request = self.request();
        // A kept connection the peer closed meanwhile hands the request back unsent: that alone is tried again.
        if let Some(mut kept) = self.kept.take()
            && kept.ready().await.is_ok()
        {
            match kept.try_send_request(request).await {
                Ok(response) => return self.finish(kept, response).await,
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(self.exchange(failed.into_error())),
                },
            }
        }
        let mut fresh = self.open().await?;
        let response = fresh.send_request(request).await.map_err(|source| self.exchange(source))?;
        self.finish(fresh, response).await
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        Request::get(&self.target.path)
            .header(HOST, &self.target.authority)
            .body(Empty::new())
            .expect("path and authority come from a parsed address")
    }

    async fn open(&self) -> Result<SendRequest<Empty<Bytes>>, CallError> {
        let stream = TcpStream::connect((self.target.host.as_str(), self.target.port))
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| CallError::Connect { authority: self.target.authority.clone(), source })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|source| self.exchange(source))?;
        // Ends by itself when the sender is dropped or the peer closes; its errors arrive with the request.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn finish(
        &mut self,
        connection: SendRequest<Empty<Bytes>>,
        response: Response<Incoming>,
    ) -> Result<Answer, CallError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_BODY)
            .collect()
            .await
            .map_err(|source| CallError::Body { authority: self.target.authority.clone(), source })?
            .to_bytes();
        self.kept = Some(connection);
        Ok(Answer { status, body })
    }

    fn exchange(&self, source: hyper::Error) -> CallError {
        CallError::Exchange { authority: self.target.authority.clone(), source }
    }
}

/// Kept connections to one target, shared by concurrent callers.
#[derive(Debug)]
pub struct Pool {
    target: Target,
    idle: Mutex<Vec<Client>>,
}

impl Pool {
    /// An empty pool.
    pub fn new(target: Target) -> Self {
        Self { target, idle: Mutex::new(Vec::new()) }
    }

    /// What this pool calls.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// GETs the target over an idle connection or a new one.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get(&self) -> Result<Answer, CallError> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut client = kept.unwrap_or_else(|| Client::new(self.target.clone()));
        let answer = client.get().await?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(client);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    async fn listener() -> (TcpListener, Target) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        (listener, target)
    }

    async fn read_head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap() == 0 {
                break;
            }
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    #[test]
    fn targets_are_plain_http_addresses() {
        let target: Target = "http://orders".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("orders", 80, "/"));
        let target: Target = "http://[::1]:8080/a?b=c".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("::1", 8080, "/a?b=c"));
        assert_eq!(target.authority(), "[::1]:8080");
        for text in ["", "orders", "https://orders", "/path", "http://", "http:///x"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn one_connection_carries_several_requests() {
        let (listener, target) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..3 {
                let head = read_head(&mut stream).await;
                assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
                stream.write_all(OK).await.unwrap();
            }
        });
        let mut client = Client::new(target.with_path("/x"));
        for _ in 0..3 {
            let answer = client.get().await.unwrap();
            assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"ok"[..]));
        }
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_closed_while_idle_is_replaced() {
        let (listener, target) = listener().await;
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_head(&mut stream).await;
                stream.write_all(OK).await.unwrap();
            }
        });
        let mut client = Client::new(target);
        client.get().await.unwrap();
        let closed = async {
            while !client.kept.as_ref().is_some_and(SendRequest::is_closed) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), closed).await.unwrap();
        client.get().await.unwrap();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_left_is_not_sent_again() {
        let (listener, target) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            read_head(&mut stream).await;
            drop(stream);
            // A second connection would be a retry; there must be none while the client gives its verdict.
            listener
        });
        let mut client = Client::new(target);
        client.get().await.unwrap();
        assert!(matches!(client.get().await, Err(CallError::Exchange { .. })));
        let listener = server.await.unwrap();
        let another = std::future::poll_fn(|context| std::task::Poll::Ready(listener.poll_accept(context).is_ready()));
        assert!(!another.await, "the client connected again");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_refused() {
        let (listener, target) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let problem = Client::new(target).get().await.unwrap_err();
        assert!(matches!(problem, CallError::Body { .. }), "{problem}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_pool_reuses_what_it_has() {
        let (listener, target) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                read_head(&mut stream).await;
                stream.write_all(OK).await.unwrap();
            }
        });
        let pool = Pool::new(target);
        pool.get().await.unwrap();
        pool.get().await.unwrap();
        server.await.unwrap();
    }
}

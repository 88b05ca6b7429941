//! Peers of HTTP/2: the `h2` crate, as a client and as an application.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::thread;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::server::{self, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::testing::PATIENCE;

/// Runs a test that talks HTTP/2 itself. Its connections live in threads of their own, so that it may wait for other
/// sockets as it likes.
pub(in crate::forward::tests) fn block_on<T>(test: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    });
    RUNTIME.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") })
}

/// A client's connection.
pub(in crate::forward::tests) struct Client2 {
    pub(super) send: SendRequest<Bytes>,
    /// Changes whenever something may have come from the other end.
    news: watch::Receiver<()>,
    /// Ends with the connection.
    pub(super) ended: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Client2 {
    pub(in crate::forward::tests) async fn connect(address: SocketAddr) -> Self {
        Self::with(address, &client::Builder::new()).await
    }

    pub(in crate::forward::tests) async fn with(address: SocketAddr, builder: &client::Builder) -> Self {
        let socket = TcpStream::connect(address).await.expect("the worker listens");
        socket.set_nodelay(true).expect("a socket");
        let (send, connection) = builder.handshake(socket).await.expect("a handshake");
        let (tell, news) = watch::channel(());
        let mut connection = Box::pin(connection);
        let telling = std::future::poll_fn(move |cx| {
            let state = connection.as_mut().poll(cx);
            tell.send_replace(());
            state
        });
        Self { send, news, ended: tokio::spawn(telling) }
    }

    /// Waits until the other end has said what makes this true.
    pub(super) async fn until(&mut self, mut is_so: impl FnMut(&mut SendRequest<Bytes>) -> bool) {
        // In this order: what comes after the look is news.
        while self.news.has_changed().is_ok() {
            self.news.mark_unchanged();
            if is_so(&mut self.send) {
                return;
            }
            let _ended = self.news.changed().await;
        }
        assert!(is_so(&mut self.send), "the connection ended first");
    }

    /// Begins a request.
    pub(in crate::forward::tests) async fn ask(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send = self.send.clone().ready().await.expect("a connection");
        send.send_request(request, ends).expect("a stream")
    }

    /// A whole exchange.
    pub(in crate::forward::tests) async fn exchange(&mut self, request: Request<()>, body: &[u8]) -> Whole {
        let (answer, mut stream) = self.ask(request, body.is_empty()).await;
        if !body.is_empty() {
            // An answer may come before all of it was taken, and is what counts.
            let _ = send_all(&mut stream, body, None).await;
        }
        whole(answer.await.expect("an answer")).await
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(in crate::forward::tests) struct Whole {
    pub(in crate::forward::tests) head: http::response::Parts,
    pub(in crate::forward::tests) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Whole {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    pub(super) fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).map(|value| value.to_str().expect("text"))
    }
}

pub(super) async fn whole(answer: Response<RecvStream>) -> Whole {
    try_whole(answer).await.expect("a whole answer")
}

pub(super) async fn try_whole(answer: Response<RecvStream>) -> Result<Whole, h2::Error> {
    let (head, mut stream) = answer.into_parts();
    let body = read_all(&mut stream).await?;
    let trailers = stream.trailers().await?;
    Ok(Whole { head, body, trailers })
}

/// Reads a body, giving back what was read as window.
pub(super) async fn read_all(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    Ok(body)
}

/// Sends a body as windows allow, and its end.
pub(super) async fn send_all(
    stream: &mut SendStream<Bytes>,
    body: &[u8],
    trailers: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    send_some(stream, body).await?;
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
}

/// Sends the beginning of a body.
pub(super) async fn send_some(stream: &mut SendStream<Bytes>, body: &[u8]) -> Result<(), h2::Error> {
    let mut rest = Bytes::copy_from_slice(body);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let room = match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(room) => room?,
            None => return Err(h2::Reason::CANCEL.into()),
        };
        stream.send_data(rest.split_to(room.min(rest.len())), false)?;
    }
    Ok(())
}

/// An application that speaks HTTP/2, in a thread of its own until the process ends.
#[derive(Debug)]
pub(super) struct Application2 {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
}

impl Application2 {
    /// Every request is given to `answer`.
    pub(super) fn start<F>(answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::with(server::Builder::new(), answer)
    }

    pub(super) fn with<F>(
        builder: server::Builder,
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let answer = Arc::new(std::sync::Mutex::new(answer));
        Self::serving(move |socket| {
            let (builder, answer) = (builder.clone(), Arc::clone(&answer));
            async move {
                let mut connection = builder.handshake(socket).await?;
                while let Some(request) = connection.accept().await {
                    let (request, respond) = request?;
                    let answering = (answer.lock().expect("never poisoned"))(request, respond);
                    tokio::spawn(answering);
                }
                Ok(())
            }
        })
    }

    /// Every connection is given to `serve`.
    pub(super) fn serving<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        listener.set_nonblocking(true).expect("a socket");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let served: io::Result<()> = runtime.block_on(async {
                let listener = TcpListener::from_std(listener)?;
                loop {
                    let (socket, _) = listener.accept().await?;
                    socket.set_nodelay(true)?;
                    count.fetch_add(1, Relaxed);
                    tokio::spawn(serve(socket));
                }
            });
            served.expect("connections");
        });
        Self { address, connections }
    }

    /// Answers everything with what was sent, trailers included.
    pub(super) fn echo() -> Self {
        Self::start(echo)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

pub(super) async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        if send_some(&mut stream, &data).await.is_err() {
            return;
        }
    }
    let trailers = body.trailers().await.ok().flatten();
    let _ = match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    };
}

/// The same, once everything has come.
pub(super) async fn echo_whole(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let Ok(bytes) = read_all(&mut body).await else { return };
    let trailers = body.trailers().await.ok().flatten();
    let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
    let _ = send_all(&mut stream, &bytes, trailers).await;
}

/// Answers at once with a short body.
pub(super) async fn ok(_: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(Bytes::from_static(b"ok"), true);
    }
}

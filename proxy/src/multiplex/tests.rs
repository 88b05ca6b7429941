//! The engine over real sockets: with itself, and with the `h2` crate as either end.

mod endings;
mod peers;
mod protected;

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;

use super::{Available, Client, ConnectionError, Incoming, Server, Settings, Stream, StreamError, client};
use crate::http2::Fields;
use crate::stream::{Connection, Stream as Socket};
use crate::testing::PATIENCE;

/// Runs `test` on one thread, as a worker does.
fn on_one_thread<F: Future>(test: F) -> F::Output {
    let local = LocalOptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(local).expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("it ends in time") })
}

/// Two ends of a connection on loopback.
async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
    let (far, _) = listener.accept().await.expect("it came");
    near.set_nodelay(true).expect("a socket");
    far.set_nodelay(true).expect("a socket");
    (near, far)
}

fn plain(socket: TcpStream) -> Connection {
    Connection::new(Socket::Plain(socket))
}

/// Our client, whose driver runs, and our server on the other end.
async fn pair(settings: Settings) -> (Client, tokio::task::JoinHandle<Result<(), ConnectionError>>, Server) {
    let (near, far) = sockets().await;
    let (client, driver) = client(plain(near), settings);
    (client, tokio::task::spawn_local(driver), Server::new(plain(far), settings))
}

/// Serves with `answer` until the connection ends.
async fn serve<F, A>(mut server: Server, answer: F) -> Result<(), ConnectionError>
where
    F: Fn(Incoming) -> A + 'static,
    A: Future<Output = ()> + 'static,
{
    let answer = Rc::new(answer);
    while let Some(incoming) = poll_fn(|cx| server.poll_accept(cx)).await {
        let incoming = incoming?;
        let answer = Rc::clone(&answer);
        tokio::task::spawn_local(async move { answer(incoming).await });
    }
    Ok(())
}

fn request(path: &str) -> Fields {
    let mut head = Fields::new();
    for (name, value) in [(":method", "POST"), (":scheme", "http"), (":authority", "orders"), (":path", path)] {
        head.push(name.as_bytes(), value.as_bytes());
    }
    head
}

fn response(status: &str) -> Fields {
    let mut head = Fields::new();
    head.push(b":status", status.as_bytes());
    head
}

async fn send_all(stream: &mut Stream, mut data: &[u8], end: bool) -> Result<(), StreamError> {
    loop {
        let count = stream.send_data(data, end)?;
        data = &data[count..];
        if data.is_empty() {
            return Ok(());
        }
        poll_fn(|cx| stream.poll_capacity(cx)).await?;
    }
}

async fn read_all(stream: &mut Stream) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while poll_fn(|cx| stream.poll_data(cx)).await? == Available::Data {
        stream.with_data(|data| {
            all.extend_from_slice(data);
            (data.len(), ())
        });
    }
    Ok(all)
}

async fn head(stream: &mut Stream) -> Result<(Fields, bool), StreamError> {
    poll_fn(|cx| stream.poll_head(cx)).await
}

/// Answers with what was asked, trailers too.
async fn echo(mut incoming: Incoming) {
    let stream = &mut incoming.stream;
    let mut answer = response("200");
    answer.push(b"x-path", incoming.head.get(b":path").unwrap_or_default());
    if stream.send_head(&answer, false).is_err() {
        return;
    }
    while let Ok(Available::Data) = poll_fn(|cx| stream.poll_data(cx)).await {
        let Ok(room) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let mut text = Vec::new();
        stream.with_data(|data| {
            text.extend_from_slice(&data[..data.len().min(room)]);
            (text.len(), ())
        });
        assert_eq!(stream.send_data(&text, false), Ok(text.len()));
    }
    match stream.trailers() {
        Some(trailers) => drop(stream.send_trailers(&trailers)),
        None => drop(stream.send_data(&[], true)),
    }
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 31 + seed * 7) % 251) as u8).collect()
}

/// Asks for an echo of `length` bytes and checks it.
async fn ask(client: &Client, number: usize, length: usize) {
    let mut stream = client.open(&request(&format!("/{number}")), false).expect("room for a stream");
    let data = pattern(length, number);
    let mut trailers = Fields::new();
    trailers.push(b"x-sum", length.to_string().as_bytes());
    let mut sent = 0;
    let mut heard = Vec::new();
    let mut head = None;
    // Both ways at once: an echo of more than the windows needs it.
    loop {
        let step = poll_fn(|cx| {
            if head.is_none()
                && let std::task::Poll::Ready(result) = stream.poll_head(cx)
            {
                head = Some(result.expect("a head").0);
            }
            if sent < length
                && let std::task::Poll::Ready(room) = stream.poll_capacity(cx)
            {
                let room = room.expect("the stream is well").min(length - sent);
                sent += stream.send_data(&data[sent..sent + room], false).expect("the stream is well");
                if sent == length {
                    stream.send_trailers(&trailers).expect("the stream is well");
                }
                return std::task::Poll::Ready(None);
            }
            if head.is_some() { stream.poll_data(cx).map(Some) } else { std::task::Poll::Pending }
        });
        match step.await {
            None => {}
            Some(Ok(Available::Data)) => stream.with_data(|data| {
                heard.extend_from_slice(data);
                (data.len(), ())
            }),
            Some(Ok(Available::End)) => break,
            Some(Err(error)) => panic!("{number}: {error}"),
        }
    }
    assert!(heard == data, "{number}: the echo differs");
    let head = head.expect("a head");
    assert_eq!(head.get(b"x-path"), Some(format!("/{number}").as_bytes()));
    let trailers = stream.trailers().expect("trailers");
    assert_eq!(trailers.get(b"x-sum"), Some(length.to_string().as_bytes()));
}

#[test]
fn many_streams_at_once_get_each_its_own_answer() {
    on_one_thread(async {
        let (client, driver, server) = pair(Settings::default()).await;
        let served = tokio::task::spawn_local(serve(server, echo));
        let asking: Vec<_> = (0..100)
            .map(|number| {
                let client = client.clone();
                let length = [1, 700, 20_000, 600_000][number % 4];
                tokio::task::spawn_local(async move { ask(&client, number, length).await })
            })
            .collect();
        for asked in asking {
            asked.await.expect("no panic");
        }
        assert_eq!(client.open_streams(), 0);
        drop(client);
        assert_eq!(driver.await.expect("no panic"), Ok(()));
        assert_eq!(served.await.expect("no panic"), Ok(()));
    });
}

#[test]
fn a_quiet_connection_owns_no_buffer() {
    on_one_thread(async {
        let before = crate::stream::lent();
        let (client, _driver, server) = pair(Settings::default()).await;
        tokio::task::spawn_local(serve(server, echo));
        ask(&client, 1, 100_000).await;
        // The last frames may still be on their way.
        while crate::stream::lent() > before {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_slow_reader_holds_up_only_its_own_stream() {
    on_one_thread(async {
        let settings = Settings { stream_window: 32 * 1024, ..Settings::default() };
        let (client, _driver, server) = pair(settings).await;
        tokio::task::spawn_local(serve(server, echo));
        let mut slow = client.open(&request("/slow"), false).expect("room");
        let sending = pattern(60_000, 0);
        // What is sent comes back and is not read: it stops after a window on the way out and one on the way back.
        let sent =
            tokio::time::timeout(Duration::from_millis(300), send_all(&mut slow, &sending.repeat(10), true)).await;
        assert!(sent.is_err(), "600 KB went through windows of 32 KiB that nobody opens");
        assert!(slow.received() <= 32 * 1024);
        ask(&client, 7, 300_000).await;
    });
}

/// What one connection costs while nothing is under way: its share of the worker's memory, for each idle client.
#[test]
fn an_idle_connection_is_small() {
    use std::mem::size_of;
    assert!(size_of::<super::shared::Shared>() <= 1024, "{}", size_of::<super::shared::Shared>());
    assert!(size_of::<super::wire::Wire>() <= 120, "{}", size_of::<super::wire::Wire>());
    assert!(size_of::<super::Driver>() <= 128, "{}", size_of::<super::Driver>());
    assert!(size_of::<super::Server>() <= 128, "{}", size_of::<super::Server>());
    assert!(size_of::<Stream>() <= 16, "{}", size_of::<Stream>());
}

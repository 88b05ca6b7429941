//! The `h2` crate as the other end: what it says is not our idea of the protocol.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::super::NotOpened;
use super::*;

async fn ask_with_h2(sender: h2::client::SendRequest<Bytes>, number: usize, length: usize) {
    let mut sender = sender.ready().await.expect("a stream");
    let request = Request::post(format!("http://orders/{number}")).body(()).expect("a request");
    let (answer, mut body) = sender.send_request(request, false).expect("a stream");
    let data = pattern(length, number);
    let expected = data.clone();
    let sending = tokio::task::spawn_local(async move {
        let mut rest = Bytes::from(data);
        while !rest.is_empty() {
            body.reserve_capacity(rest.len());
            let room = poll_fn(|cx| body.poll_capacity(cx)).await.expect("open").expect("well");
            body.send_data(rest.split_to(room.min(rest.len())), false).expect("well");
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", length.to_string().parse().expect("digits"));
        body.send_trailers(trailers).expect("well");
    });
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-path"], format!("/{number}"));
    let mut body = answer.into_body();
    let mut heard = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("well");
        body.flow_control().release_capacity(data.len()).expect("well");
        heard.extend_from_slice(&data);
    }
    assert!(heard == expected, "{number}: the echo differs");
    let trailers = body.trailers().await.expect("well").expect("trailers");
    assert_eq!(trailers["x-sum"], length.to_string());
    sending.await.expect("no panic");
}

#[test]
fn an_h2_client_is_served() {
    on_one_thread(async {
        let (near, far) = sockets().await;
        let served = tokio::task::spawn_local(serve(Server::new(plain(far), Settings::default()), echo));
        let (sender, connection) = h2::client::handshake(near).await.expect("a handshake");
        let connection = tokio::task::spawn_local(connection);
        let asking: Vec<_> = (0..100)
            .map(|number| {
                let length = [1, 700, 20_000, 600_000][number % 4];
                tokio::task::spawn_local(ask_with_h2(sender.clone(), number, length))
            })
            .collect();
        for asked in asking {
            asked.await.expect("no panic");
        }
        drop(sender);
        connection.await.expect("no panic").expect("a clean end");
        assert_eq!(served.await.expect("no panic"), Ok(()));
    });
}

async fn echo_with_h2(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let path = request.uri().path().to_owned();
    let answer = Response::builder().header("x-path", path).body(()).expect("an answer");
    let mut sender = respond.send_response(answer, false).expect("well");
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let Ok(mut data) = data else { return };
        let _ = body.flow_control().release_capacity(data.len());
        while !data.is_empty() {
            sender.reserve_capacity(data.len());
            let Some(Ok(room)) = poll_fn(|cx| sender.poll_capacity(cx)).await else { return };
            sender.send_data(data.split_to(room.min(data.len())), false).expect("well");
        }
    }
    match body.trailers().await.expect("well") {
        Some(trailers) => sender.send_trailers(trailers).expect("well"),
        None => sender.send_data(Bytes::new(), true).expect("well"),
    }
}

async fn serve_with_h2(socket: TcpStream, builder: h2::server::Builder) {
    let mut connection = builder.handshake::<_, Bytes>(socket).await.expect("a handshake");
    while let Some(accepted) = connection.accept().await {
        let Ok((request, respond)) = accepted else { return };
        tokio::task::spawn_local(echo_with_h2(request, respond));
    }
}

#[test]
fn an_h2_server_serves_us() {
    on_one_thread(async {
        let (near, far) = sockets().await;
        tokio::task::spawn_local(serve_with_h2(far, h2::server::Builder::new()));
        let (client, driver) = client(plain(near), Settings::default());
        let driver = tokio::task::spawn_local(driver);
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
        drop(client);
        assert_eq!(driver.await.expect("no panic"), Ok(()));
    });
}

#[test]
fn the_limit_of_a_server_is_kept() {
    on_one_thread(async {
        let (near, far) = sockets().await;
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(3);
        tokio::task::spawn_local(serve_with_h2(far, builder));
        let (client, driver) = client(plain(near), Settings::default());
        let _driver = tokio::task::spawn_local(driver);
        ask(&client, 0, 10).await;
        let open: Vec<_> = (0..3).map(|_| client.open(&request("/"), false).expect("room")).collect();
        assert!(!client.can_open());
        assert_eq!(client.open(&request("/"), true).expect_err("full"), NotOpened::Full);
        drop(open);
        ask(&client, 1, 10).await;
    });
}

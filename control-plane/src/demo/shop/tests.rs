use clap::Parser;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::super::client::{Answer, Client};
use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

struct Running {
    url: String,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

fn start(words: &[&str]) -> Running {
    let line = Line::parse_from(["shop", "--port", "0"].iter().chain(words));
    let listeners = listen(line.arguments.port).unwrap();
    let url = format!("http://127.0.0.1:{}", listeners[0].local_addr().unwrap().port());
    let (stop, stopped) = oneshot::channel::<()>();
    let shop = Arc::new(Shop::new(&line.arguments, clock::now()));
    let served = tokio::spawn(serve(shop, listeners, async { drop(stopped.await) }));
    Running { url, stop: Some(stop), served }
}

async fn get(url: &str, path: &str) -> (u16, Value) {
    let target: Target = url.parse().unwrap();
    let Answer { status, body } = Client::new(target.with_path(path)).get().await.unwrap();
    (status.as_u16(), serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn an_answer_names_every_replica_on_the_way() {
    let inventory = start(&["inventory", "--name", "inventory-1"]);
    let orders = start(&["orders", "--name", "orders-2", "--inventory", &inventory.url]);
    let frontend = start(&["frontend", "--name", "frontend-1", "--orders", &orders.url]);
    let (status, answer) = get(&frontend.url, "/").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["replica"], "frontend-1");
    assert_eq!(answer["from"]["replica"], "orders-2");
    assert_eq!(answer["from"]["from"]["replica"], "inventory-1");
}

#[tokio::test]
async fn both_address_families_answer() {
    let listeners = listen(0).unwrap();
    let port = listeners[0].local_addr().unwrap().port();
    let has_ipv6 = listeners.len() == 2;
    let line = Line::parse_from(["shop", "inventory"]);
    tokio::spawn(serve(Arc::new(Shop::new(&line.arguments, clock::now())), listeners, std::future::pending()));
    assert_eq!(get(&format!("http://127.0.0.1:{port}"), "/stock").await.0, 200);
    if has_ipv6 {
        assert_eq!(get(&format!("http://[::1]:{port}"), "/stock").await.0, 200);
    }
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let listeners = listen(0).unwrap();
    let address = listeners[0].local_addr().unwrap();
    let problem = listen(address.port()).unwrap_err().to_string();
    assert!(problem.contains(&address.port().to_string()), "{problem}");
}

#[tokio::test]
async fn a_failing_replica_answers_500_and_calls_itself_healthy() {
    let shop = start(&["inventory", "--fail", "100%"]);
    let (status, answer) = get(&shop.url, "/stock").await;
    assert_eq!((status, answer["error"].is_string()), (500, true));
    assert_eq!(get(&shop.url, "/healthz").await.0, 200);
}

#[tokio::test]
async fn a_slow_replica_delays_every_answer() {
    let shop = start(&["inventory", "--slow", "60ms"]);
    let before = clock::now();
    assert_eq!(get(&shop.url, "/stock").await.0, 200);
    assert!(clock::now() - before >= Duration::from_millis(60));
}

#[tokio::test]
async fn a_failure_behind_a_service_is_its_bad_gateway() {
    let inventory = start(&["inventory", "--fail", "100%"]);
    let orders = start(&["orders", "--inventory", &inventory.url]);
    let (status, answer) = get(&orders.url, "/orders").await;
    assert_eq!(status, 502);
    assert!(answer["error"].as_str().unwrap().contains("500"), "{answer}");

    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let orders = start(&["orders", "--inventory", &gone]);
    let (status, answer) = get(&orders.url, "/orders").await;
    assert_eq!(status, 502);
    assert!(answer["error"].as_str().unwrap().contains("cannot connect"), "{answer}");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let shop = start(&["inventory"]);
    assert_eq!(get(&shop.url, "/elsewhere").await.0, 404);
    let line = Line::parse_from(["shop", "inventory"]);
    let (status, _) = Shop::new(&line.arguments, clock::now()).answer(&Method::POST, "/stock").await;
    assert_eq!(status, 405);
}

#[tokio::test]
async fn stopping_finishes_the_request_in_flight_and_accepts_no_more() {
    let orders = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let orders_url = format!("http://{}", orders.local_addr().unwrap());
    let mut frontend = start(&["frontend", "--orders", &orders_url]);
    let url = frontend.url.clone();
    let in_flight = tokio::spawn(async move { get(&url, "/").await });
    // A call to orders proves that the frontend is in the middle of its own request.
    let (mut called, _) = orders.accept().await.unwrap();
    frontend.stop.take().unwrap().send(()).unwrap();
    while TcpStream::connect(frontend.url.trim_start_matches("http://")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    called.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    assert_eq!(in_flight.await.unwrap().0, 200);
    tokio::time::timeout(Duration::from_secs(5), frontend.served).await.unwrap().unwrap();
}

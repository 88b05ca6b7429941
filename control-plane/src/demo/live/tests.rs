use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::Notify;

use super::*;

/// A proxy that counts 10 requests more at each look, is busy at the third, and tells after `looks`.
fn proxy(directory: &Path, name: &str, looks: u32, done: Arc<Notify>) -> Proxy {
    let socket = directory.join(name);
    let listener = UnixListener::bind(&socket).unwrap();
    let count = AtomicU32::new(0);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let look = count.fetch_add(1, Ordering::Relaxed) + 1;
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await.unwrap();
            let body = format!(
                "weft_requests_total{{direction=\"outbound\",source=\"default/load\",\
                 destination=\"default/shop:80\",code_class=\"2xx\"}} {}\n",
                1000 + look * 10
            );
            let status = if look == 3 { "503 Busy" } else { "200 OK" };
            let reply = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(reply.as_bytes()).await.unwrap();
            if look == looks {
                done.notify_one();
            }
        }
    });
    Proxy { name: name.to_owned(), socket }
}

fn display(form: Form) -> Display {
    Display { form, colour: false, interval: Duration::from_millis(5) }
}

#[tokio::test]
async fn intervals_are_shown_and_sum_up_whatever_a_proxy_does_in_between() {
    let directory = tempfile::tempdir().unwrap();
    let done = Arc::new(Notify::new());
    let proxies = vec![
        proxy(directory.path(), "load-1", 6, done.clone()),
        Proxy { name: "absent-1".into(), socket: directory.path().join("absent") },
    ];
    let mut output = Vec::new();
    let summary = follow(|| proxies.clone(), &display(Form::Json), &mut output, done.notified()).await.unwrap();
    let lines: Vec<Value> =
        String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let requests: Vec<f64> = lines.iter().map(|line| line["edges"][0]["requests"].as_f64().unwrap()).collect();
    // The first look is the baseline; the third gave nothing, and the fourth caught up.
    assert_eq!(requests[..3], [10.0, 0.0, 20.0]);
    let events: Vec<&Value> = lines.iter().flat_map(|line| line["events"].as_array().unwrap()).collect();
    assert_eq!(events, ["the proxy of load-1 is silent", "the proxy of load-1 answers again"]);
    let total = summary.edges()[0].requests;
    assert!(total >= 50.0 && total % 10.0 == 0.0, "{total}");
    assert!(total >= requests.iter().sum::<f64>(), "the last look counts too");
}

#[tokio::test]
async fn lines_follow_each_other_without_control_characters() {
    let directory = tempfile::tempdir().unwrap();
    let done = Arc::new(Notify::new());
    let proxies = vec![proxy(directory.path(), "load-1", 4, done.clone())];
    let mut output = Vec::new();
    follow(|| proxies.clone(), &display(Form::Lines), &mut output, done.notified()).await.unwrap();
    let text = String::from_utf8(output).unwrap();
    assert!(text.starts_with("+0s  load -> shop:80  "), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[tokio::test]
async fn a_reader_who_left_ends_the_display() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let proxies = vec![proxy(directory.path(), "load-1", 0, Arc::default())];
    let shown = async { follow(|| proxies.clone(), &display(Form::Json), &mut Closed, std::future::pending()).await };
    tokio::time::timeout(Duration::from_secs(5), shown).await.unwrap().unwrap();
}

fn interval(seconds: u64, edges: usize, events: usize) -> Interval {
    let edge =
        |index| Edge { source: format!("default/{index}"), destination: "default/shop:80".into(), ..Edge::default() };
    let event = |index| Event::Silent { proxy: format!("{seconds}-{index}") };
    Interval {
        at: Duration::from_secs(seconds),
        edges: (0..edges).map(edge).collect(),
        replicas: Vec::new(),
        events: (0..events).map(event).collect(),
    }
}

fn drawn(picture: &mut Picture, interval: &Interval, height: usize) -> String {
    let mut output = Vec::new();
    picture.draw(interval, 100, height, false, &mut output).unwrap();
    String::from_utf8(output).unwrap()
}

#[test]
fn a_picture_is_drawn_over_the_last_one() {
    let mut picture = Picture::default();
    let first = drawn(&mut picture, &interval(1, 1, 1), 40);
    assert!(first.starts_with("\r\x1b[J"), "{first:?}");
    assert_eq!(first.lines().count(), 4, "heading, edge, gap, event: {first:?}");
    let second = drawn(&mut picture, &interval(2, 3, 0), 40);
    assert!(second.starts_with("\x1b[4A\r\x1b[J"), "{second:?}");
    assert!(second.ends_with("+1s  the proxy of 1-0 is silent\n"), "{second:?}");
}

#[test]
fn a_picture_never_scrolls_the_screen() {
    let mut picture = Picture::default();
    for height in [0, 1, 2, 5] {
        let text = drawn(&mut picture, &interval(1, 9, 9), height);
        assert!(text.matches('\n').count() < height.max(1), "{height}: {text:?}");
    }
}

#[test]
fn only_the_last_events_are_kept() {
    let mut picture = Picture::default();
    let text = drawn(&mut picture, &interval(1, 0, 20), 40);
    assert_eq!(text.matches("is silent").count(), EVENTS);
    assert!(text.contains("1-19 is silent") && !text.contains("1-13 is silent"), "{text}");
}

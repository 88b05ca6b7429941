use clap::Parser;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn arguments(words: &[&str]) -> Arguments {
    Line::try_parse_from(["load"].iter().chain(words)).unwrap_or_else(|problem| panic!("{problem}")).arguments
}

/// Answers request `n`, counted over all connections, with `answer(n)`: a status after a delay.
async fn server(answer: fn(u64) -> (u16, Duration)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicU64::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let requests = requests.clone();
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let mut lines = BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.is_empty() {
                        let (status, delay) = answer(requests.fetch_add(1, Ordering::Relaxed));
                        tokio::time::sleep(delay).await;
                        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                        if write.write_all(head.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    url
}

async fn drive_to_end(words: &[&str]) -> (Figures, Vec<Value>) {
    let mut output = Vec::new();
    let summary = drive(&arguments(words), &mut output, std::future::pending()).await.unwrap();
    let text = String::from_utf8(output).unwrap();
    (summary, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[tokio::test]
async fn a_fixed_count_is_sent_exactly_and_summed_up() {
    let url = server(|n| (if n % 10 == 9 { 500 } else { 200 }, Duration::ZERO)).await;
    let (summary, lines) = drive_to_end(&[&url, "--rate", "1000", "--connections", "4", "--requests", "50"]).await;
    assert_eq!((summary.requests, summary.failures), (50, 5));
    assert_eq!(summary.last_failure.as_deref(), Some("answered 500 Internal Server Error"));
    let last = lines.last().unwrap();
    assert_eq!((last["kind"].as_str(), last["requests"].as_u64()), (Some("summary"), Some(50)));
}

#[tokio::test]
async fn a_stall_is_charged_to_the_requests_behind_it() {
    // One connection, one answer late by 300 ms: the requests due meanwhile waited too, though each was answered
    // at once when it was finally sent.
    let url = server(|n| (200, Duration::from_millis(if n == 0 { 300 } else { 0 }))).await;
    let (summary, _) = drive_to_end(&[&url, "--rate", "100", "--connections", "1", "--requests", "40"]).await;
    assert_eq!(summary.failures, 0);
    assert!(summary.p50_ms > 50.0, "{summary:?}");
}

#[tokio::test]
async fn every_second_has_a_line_unless_quiet() {
    let url = server(|_| (200, Duration::ZERO)).await;
    let words = [&url, "--rate", "100", "--for", "1200ms"];
    let (summary, lines) = drive_to_end(&words).await;
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert_eq!(kinds, ["second", "summary"]);
    assert_eq!(summary.requests, 120);
    let quiet: Vec<&str> = words.into_iter().chain(["--quiet"]).collect();
    assert_eq!(drive_to_end(&quiet).await.1.len(), 1);
}

#[tokio::test]
async fn what_could_not_be_sent_by_the_end_is_a_failure() {
    let url = server(|_| (200, Duration::from_millis(400))).await;
    let (summary, _) = drive_to_end(&[&url, "--rate", "100", "--connections", "2", "--for", "500ms"]).await;
    assert_eq!(summary.requests, 50);
    assert_eq!(summary.failures, 46, "two connections send at 0 and at 400 ms: {summary:?}");
}

#[tokio::test]
async fn a_silent_server_costs_the_timeout_and_not_more() {
    let url = server(|_| (200, Duration::from_mins(1))).await;
    let (summary, _) = drive_to_end(&[&url, "--requests", "2", "--timeout", "50ms"]).await;
    assert_eq!((summary.requests, summary.failures), (2, 2));
    assert_eq!(summary.last_failure.as_deref(), Some("no answer in 50ms"));
}

#[tokio::test]
async fn waiting_begins_the_load_at_the_first_success() {
    let url = server(|n| (if n < 3 { 503 } else { 200 }, Duration::ZERO)).await;
    let (summary, _) = drive_to_end(&[&url, "--wait", "20s", "--requests", "3"]).await;
    assert_eq!((summary.requests, summary.failures), (3, 0));
}

#[tokio::test]
async fn waiting_gives_up_with_the_reason() {
    let url = server(|_| (503, Duration::ZERO)).await;
    let problem = drive(&arguments(&[&url, "--wait", "150ms"]), &mut Vec::new(), std::future::pending()).await;
    let problem = problem.unwrap_err().to_string();
    assert!(problem.contains("503"), "{problem}");
}

#[tokio::test]
async fn a_stop_ends_an_endless_load_with_a_summary() {
    let url = server(|_| (200, Duration::ZERO)).await;
    let mut output = Vec::new();
    let stop = tokio::time::sleep(Duration::from_millis(200));
    let summary = drive(&arguments(&[&url]), &mut output, stop).await.unwrap();
    assert_eq!(summary.failures, 0, "{summary:?}");
    assert!((5..=40).contains(&summary.requests), "{summary:?}");
}

#[test]
fn senseless_arguments_are_refused() {
    let refused: [&[&str]; 5] = [
        &["https://x"],
        &["http://x", "--rate", "0"],
        &["http://x", "--rate", "NaN"],
        &["http://x", "--connections", "0"],
        &["http://x", "--for", "5"],
    ];
    for words in refused {
        assert!(Line::try_parse_from(["load"].iter().chain(words)).is_err(), "{words:?}");
    }
}

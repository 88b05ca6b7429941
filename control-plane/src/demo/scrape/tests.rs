use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_page_is_read_with_its_comments_escapes_and_time_stamps() {
    let text = concat!(
        "# HELP requests Requests \\ done.\n",
        "# TYPE requests counter\n",
        "requests 3\n",
        "requests{a=\"x\"} 4.5e3\n",
        "requests{ a = \"q\\\"b\\\\n\\n\" , } +Inf 1700000000000\n",
        "\n",
        "  up 1\t\r\n",
        "ns:rule_x -2",
    );
    let scrape = parse(text).unwrap();
    assert_eq!(scrape.value("requests", &Labels::new()), Some(3.0));
    assert_eq!(scrape.value("requests", &labels(&[("a", "x")])), Some(4500.0));
    assert_eq!(scrape.value("requests", &labels(&[("a", "q\"b\\n\n")])), Some(f64::INFINITY));
    assert_eq!(scrape.value("up", &Labels::new()), Some(1.0));
    assert_eq!(scrape.value("ns:rule_x", &Labels::new()), Some(-2.0));
    assert_eq!(scrape.series("requests").count(), 3);
    assert_eq!(scrape.series("absent").count(), 0);
}

#[test]
fn what_is_not_the_format_is_refused_with_its_line() {
    let table = [
        ("9x 1", Problem::MetricName("9x".into())),
        ("{a=\"b\"} 1", Problem::MetricName(String::new())),
        ("a-b 1", Problem::MetricName("a-b".into())),
        ("x", Problem::Value(String::new())),
        ("x one", Problem::Value("one".into())),
        ("x nan", Problem::Value("nan".into())),
        ("x +infinity", Problem::Value("+infinity".into())),
        ("x -inf", Problem::Value("-inf".into())),
        ("x +nan", Problem::Value("+nan".into())),
        ("x 1 soon", Problem::TimeStamp("soon".into())),
        ("x 1 2 3", Problem::Rest("3".into())),
        ("x{a=\"b\" 1", Problem::AfterLabel('1')),
        ("x{a=\"b\"", Problem::UnendedLabels),
        ("x{a", Problem::UnendedLabels),
        ("x{", Problem::UnendedLabels),
        ("x{a=b} 1", Problem::Unquoted("a".into())),
        ("x{a=\"b} 1", Problem::Unended("a".into())),
        ("x{a=\"b\\", Problem::Unended("a".into())),
        ("x{a=\"\\t\"} 1", Problem::Escape('t')),
        ("x{a:b=\"c\"} 1", Problem::LabelName("a:b".into())),
        ("x{,a=\"c\"} 1", Problem::LabelName(",a".into())),
        ("x{a=\"b\",a=\"c\"} 1", Problem::LabelTwice("a".into())),
        ("x{a=\"b\"} 1\nx{a=\"b\"} 2", Problem::SeriesTwice),
        ("é 1", Problem::MetricName("é".into())),
    ];
    for (text, problem) in table {
        let before = "# fine\nfine 1\n";
        let line = 2 + text.lines().count();
        assert_eq!(parse(&format!("{before}{text}\n")), Err(ParseError { line, problem }), "{text}");
    }
}

/// A proxy whose admin socket gives the same reply to everybody.
fn answering(reply: String) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let read = stream.read(&mut head).await.unwrap();
            assert!(head[..read].starts_with(b"GET /metrics HTTP/1.1\r\n"));
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    (directory, path)
}

fn page(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn metrics_come_from_the_admin_socket() {
    let (_directory, path) = answering(page("200 OK", "up 1\n"));
    assert_eq!(scrape(&path).await.unwrap(), parse("up 1").unwrap());
}

#[tokio::test]
async fn whatever_is_wrong_names_the_socket() {
    let (_directory, absent) = (tempfile::tempdir().unwrap(), PathBuf::from("/nowhere/admin.sock"));
    let (_directory, unavailable) = answering(page("503 Service Unavailable", ""));
    let (_directory, other) = answering(page("200 OK", "<html>"));
    let (_directory, broken) = answering("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nup".to_owned());
    for (path, reason) in [(absent, "connect"), (unavailable, "503"), (other, "line 1"), (broken, "broke off")] {
        let problem = scrape(&path).await.unwrap_err().to_string();
        assert!(problem.contains(path.to_str().unwrap()) && problem.contains(reason), "{problem}");
    }
}

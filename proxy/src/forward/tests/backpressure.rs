//! Who does not read is not read for: memory stays bounded by the kernel's buffers and ours.

use std::io::ErrorKind;
use std::time::Duration;

use super::*;

/// More than all buffers between the two ends hold: the kernel's of four sockets, at most 6 MiB each.
const TOTAL: usize = 96 << 20;
/// A write that has waited so long is taken for stuck.
const STUCK: Duration = Duration::from_millis(300);

/// Writes until nothing is taken any more; how much was.
fn write_until_stuck(stream: &mut TcpStream) -> usize {
    let block = vec![b'x'; 1 << 16];
    stream.set_write_timeout(Some(STUCK)).expect("a timeout");
    let mut written = 0;
    while written < TOTAL {
        let length = block.len().min(TOTAL - written);
        match stream.write(&block[..length]) {
            Ok(count) => written += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    written
}

fn read_all(stream: &mut TcpStream, mut left: usize) {
    let mut block = vec![0; 1 << 16];
    while left > 0 {
        let count = block.len().min(left);
        let count = stream.read(&mut block[..count]).expect("readable");
        assert!(count > 0 && block[..count].iter().all(|&b| b == b'x'));
        left -= count;
    }
}

/// What the writer could not place waits there until the reader reads.
fn passes_when_read(writer: &mut TcpStream, reader: &mut TcpStream, worker: &RunningWorker) {
    let written = write_until_stuck(writer);
    assert!(written < TOTAL, "everything was taken from the writer while nobody read");
    let lent = worker.run(|_| crate::stream::lent());
    assert!(lent <= 2, "{lent} buffers for one connection");
    std::thread::scope(|scope| {
        scope.spawn(|| read_all(reader, TOTAL));
        let block = vec![b'x'; TOTAL - written];
        writer.set_write_timeout(Some(crate::testing::PATIENCE)).expect("a timeout");
        writer.write_all(&block).expect("written");
    });
}

#[test]
fn an_answer_nobody_reads_is_not_read() {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n");
    send(&mut upstream, &head);
    expect(&mut client, &head);
    passes_when_read(&mut upstream, &mut client, &worker);
}

#[test]
fn a_request_nobody_reads_is_not_read() {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {TOTAL}\r\n\r\n"));
    let mut upstream = application.accept();
    expect(
        &mut upstream,
        &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {TOTAL}\r\nx-request-id: *ID*\r\n\r\n"),
    );
    passes_when_read(&mut client, &mut upstream, &worker);
    send(&mut upstream, OK);
    expect(&mut client, OK);
}

#[test]
fn bytes_nobody_reads_are_not_read() {
    let application = Application::start();
    let worker = proxy(Protocol::Tcp, &[application.address]);
    let mut client = worker.connect();
    let mut upstream = application.accept();
    passes_when_read(&mut client, &mut upstream, &worker);
    passes_when_read(&mut upstream, &mut client, &worker);
}

#[test]
fn requests_sent_ahead_wait_in_one_buffer() {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    let written = write_until_stuck(&mut client);
    assert!(written < TOTAL, "everything was taken while the first request was still under way");
    let lent = worker.run(|_| crate::stream::lent());
    assert!(lent <= 2, "{lent} buffers for one connection");
    send(&mut upstream, OK);
    expect(&mut client, OK);
    expect_failure(&mut client, 414, "target-too-long");
}

//! Applications that say who they are, and remember what they were asked.

use std::sync::{Arc, Mutex};
use std::thread;

use super::*;

/// An application of HTTP/1 that answers every request at once, until the process ends.
pub(super) struct Named {
    pub(super) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Named {
    pub(super) fn start(name: &'static str) -> Self {
        Self::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))
    }

    pub(super) fn answering(answer: String) -> Self {
        let application = Application::start();
        let this = Self { address: application.address, heads: Arc::default() };
        let heads = Arc::clone(&this.heads);
        thread::spawn(move || {
            while let Some(mut stream) = application.accept_within(std::time::Duration::from_mins(1)) {
                let (heads, answer) = (Arc::clone(&heads), answer.clone());
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
                    while reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
                        let (head, _) = read_message(&mut reader, false);
                        heads.lock().expect("a count").push(head);
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        this
    }

    /// Heads of its requests.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("a count").clone()
    }

    pub(super) fn requests(&self) -> usize {
        self.heads().len()
    }
}

/// Asks, and gives status and body of the answer.
pub(super) fn ask(client: &mut TcpStream, request: &str) -> (u16, String) {
    send(client, request);
    let (head, body) = read_message(&mut BufReader::with_capacity(1, client), false);
    (head[9..12].parse().expect("a status"), String::from_utf8(body).expect("text"))
}

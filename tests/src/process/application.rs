//! An application: answers every request with its name, and `/slow` when the test lets it.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// A server on 127.0.0.1, in threads of the test.
#[derive(Debug)]
pub struct Application {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    ended: AtomicBool,
    requests: AtomicUsize,
    slow: Mutex<Slow>,
    turned: Condvar,
}

/// Requests to `/slow`.
#[derive(Debug, Default)]
struct Slow {
    waiting: usize,
    is_released: bool,
}

impl Application {
    pub fn start(name: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            ended: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            slow: Mutex::default(),
            turned: Condvar::new(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if serving.ended.load(Ordering::SeqCst) {
                    return;
                }
                let serving = Arc::clone(&serving);
                thread::spawn(move || drop(serving.serve(connection)));
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Requests it has read.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Requests to `/slow` that wait for [`Application::release`].
    pub fn waiting(&self) -> usize {
        self.shared.slow().waiting
    }

    /// Answers what waits, and all that comes from now on.
    pub fn release(&self) {
        self.shared.slow().is_released = true;
        self.shared.turned.notify_all();
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.release();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn slow(&self) -> std::sync::MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, connection: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(connection);
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut line = String::new();
            while reader.read_line(&mut line)? > 2 {
                line.clear();
            }
            self.requests.fetch_add(1, Ordering::SeqCst);
            let (status, body) = match first.split(' ').nth(1).unwrap_or_default() {
                "/slow" => {
                    self.wait();
                    ("200 OK", format!("{}: slowly\n", self.name))
                }
                "/missing" => ("404 Not Found", "nothing here\n".to_owned()),
                "/broken" => ("500 Internal Server Error", "broken\n".to_owned()),
                _ => ("200 OK", format!("{}\n", self.name)),
            };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
            reader.get_mut().write_all((head + &body).as_bytes())?;
        }
    }

    fn wait(&self) {
        let mut slow = self.slow();
        slow.waiting += 1;
        while !slow.is_released {
            slow = self.turned.wait(slow).unwrap_or_else(PoisonError::into_inner);
        }
        slow.waiting -= 1;
    }
}

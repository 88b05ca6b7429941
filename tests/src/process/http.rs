//! HTTP/1.1 as plain as it goes, and curl: what the tests ask with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{PATIENCE, command, run};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Lines of the head after the first.
    pub fields: Vec<String>,
    pub body: String,
}

impl Answer {
    /// The value of a field, whatever the case of its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let named = |line: &&String| line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name));
        self.fields.iter().find(named).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }
}

/// A connection that is kept between requests.
#[derive(Debug)]
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a GET without waiting for the answer.
    pub fn ask(&mut self, path: &str) -> std::io::Result<()> {
        self.0.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes())
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> std::io::Result<Answer> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let status = lines.first().and_then(|line| line.split(' ').nth(1)).and_then(|text| text.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status in {lines:?}")))?;
        lines.remove(0);
        let mut answer = Answer { status, fields: lines, body: String::new() };
        let mut body = Vec::new();
        match answer.field("content-length").map(str::parse::<u64>) {
            Some(Ok(length)) => drop(self.0.by_ref().take(length).read_to_end(&mut body)?),
            Some(Err(error)) => return Err(std::io::Error::other(error)),
            None if answer.field("transfer-encoding") == Some("chunked") => self.chunks(&mut body)?,
            None => drop(self.0.read_to_end(&mut body)?),
        }
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> std::io::Result<()> {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            self.0.by_ref().take(length).read_to_end(body)?;
            self.0.read_line(&mut line)?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    pub fn get(&mut self, path: &str) -> std::io::Result<Answer> {
        self.ask(path)?;
        self.answer()
    }

    /// Whether the other side closes within `limit` without saying anything more.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        let _ = self.0.get_ref().set_read_timeout(Some(limit));
        matches!(self.0.fill_buf(), Ok([]))
    }
}

/// GETs a path on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    let mut connection = Connection::open(address)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    connection.0.get_mut().write_all(request.as_bytes())?;
    connection.answer()
}

/// Asks with these fields and no body, on a connection of its own.
pub fn ask(
    address: SocketAddr,
    method: &str,
    target: &str,
    host: &str,
    fields: &[(&str, &str)],
) -> std::io::Result<Answer> {
    let mut connection = Connection::open(address)?;
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head =
        format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n{fields}connection: close\r\n\r\n");
    connection.0.get_mut().write_all(head.as_bytes())?;
    connection.answer()
}

/// What curl got: status (0 when it got no answer) and body.
pub fn curl(address: SocketAddr, path: &str) -> (u16, String) {
    let url = format!("http://{address}{path}");
    let mut curl = command("curl");
    let finished = run(curl.args(["--silent", "--max-time", "20", "--write-out", "\n%{http_code}", &url]));
    let (body, status) = finished.stdout.rsplit_once('\n').unwrap_or(("", &finished.stdout));
    let status = status.parse().unwrap_or_else(|_| panic!("curl gave no status: {finished:?}"));
    (status, body.to_owned())
}

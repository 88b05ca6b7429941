//! A server that reads HTTP/1.1 in the strictest way there is and keeps every byte: what our proxies really send.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// What one connection brought: its bytes, and where they broke the rules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) violation: Option<String>,
    /// Complete requests: method, target, body.
    pub(crate) requests: Vec<(String, String, Vec<u8>)>,
}

/// The server, in threads of the test.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<Mutex<Recorded>>>>>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let connections: Arc<Mutex<Vec<Arc<Mutex<Recorded>>>>> = Arc::default();
        let all = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let recorded = Arc::new(Mutex::new(Recorded::default()));
                all.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&recorded));
                thread::spawn(move || serve(stream, &recorded));
            }
        });
        Self { address, connections }
    }

    pub(crate) fn all(&self) -> Vec<Recorded> {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().map(|one| one.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }
}

/// Copies what is read into the record.
struct Tee<'r>(TcpStream, &'r Mutex<Recorded>);

impl Read for Tee<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(into)?;
        self.1.lock().unwrap_or_else(PoisonError::into_inner).bytes.extend_from_slice(&into[..count]);
        Ok(count)
    }
}

fn serve(stream: TcpStream, recorded: &Mutex<Recorded>) {
    let Ok(mut answers) = stream.try_clone() else { return };
    let mut reader = BufReader::new(Tee(stream, recorded));
    loop {
        match request(&mut reader) {
            Ok(Some((method, target, body))) => {
                let text = format!("{method} {target}\n");
                let to_head = method == "HEAD";
                recorded.lock().unwrap_or_else(PoisonError::into_inner).requests.push((method, target, body));
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
                let answer = if to_head { head } else { head + &text };
                if answers.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(violation) => {
                recorded.lock().unwrap_or_else(PoisonError::into_inner).violation = Some(violation);
                return;
            }
        }
    }
}

type Request = (String, String, Vec<u8>);

/// One request; `None` when the connection ends before it is complete.
fn request(reader: &mut impl BufRead) -> Result<Option<Request>, String> {
    let Some(first) = line(reader)? else { return Ok(None) };
    let words: Vec<&str> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err(format!("request line {first:?}")) };
    if method.is_empty() || !method.bytes().all(is_token) || target.is_empty() {
        return Err(format!("request line {first:?}"));
    }
    let (mut length, mut chunked, mut hosts) = (None, false, 0);
    loop {
        let Some(field) = line(reader)? else { return Ok(None) };
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':').ok_or_else(|| format!("field line {field:?}"))?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("field name {name:?}"));
        }
        if value.bytes().any(|byte| byte == 0x7f || byte < b' ' && byte != b'\t') {
            return Err(format!("field value {value:?}"));
        }
        let value = value.trim_matches([' ', '\t']);
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                if !digits || length.is_some() {
                    return Err(format!("second or odd Content-Length {value:?}"));
                }
                length = value.parse::<u64>().ok();
            }
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") && !chunked => chunked = true,
            "transfer-encoding" => return Err(format!("second or odd Transfer-Encoding {value:?}")),
            "host" => hosts += 1,
            _ => {}
        }
    }
    if hosts != 1 {
        return Err(format!("{hosts} Host fields"));
    }
    if chunked && length.is_some() {
        return Err("both Transfer-Encoding and Content-Length".to_owned());
    }
    let body = if chunked { chunks(reader)? } else { exactly(reader, length.unwrap_or(0))? };
    Ok(body.map(|body| (method.to_owned(), target.to_owned(), body)))
}

fn chunks(reader: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut body = Vec::new();
    loop {
        let Some(size) = line(reader)? else { return Ok(None) };
        let is_size = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = u64::from_str_radix(&size, 16).ok().filter(|_| is_size).ok_or_else(|| format!("chunk {size:?}"))?;
        if size == 0 {
            break;
        }
        let Some(data) = exactly(reader, size)? else { return Ok(None) };
        body.extend(data);
        match line(reader)? {
            Some(end) if end.is_empty() => {}
            Some(end) => return Err(format!("after a chunk {end:?}")),
            None => return Ok(None),
        }
    }
    loop {
        match line(reader)? {
            Some(trailer) if trailer.is_empty() => return Ok(Some(body)),
            Some(trailer) if trailer.contains(':') => {}
            Some(trailer) => return Err(format!("trailer {trailer:?}")),
            None => return Ok(None),
        }
    }
}

fn exactly(reader: &mut impl BufRead, length: u64) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok((bytes.len() as u64 == length).then_some(bytes))
}

/// A line that ends in CRLF and has neither of them within.
fn line(reader: &mut impl BufRead) -> Result<Option<String>, String> {
    let mut bytes = Vec::new();
    if reader.read_until(b'\n', &mut bytes).is_err() || bytes.last() != Some(&b'\n') {
        return Ok(None);
    }
    bytes.pop();
    if bytes.pop() != Some(b'\r') || bytes.iter().any(|byte| matches!(byte, b'\r' | 0)) {
        return Err(format!("line {:?}", String::from_utf8_lossy(&bytes)));
    }
    Ok(Some(bytes.iter().map(|byte| char::from(*byte)).collect()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

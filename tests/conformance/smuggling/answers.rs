//! What a client got on one connection, read as strictly as a client can.

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) weft_error: Option<String>,
    pub(crate) closes: bool,
    /// Head and body.
    pub(crate) text: String,
    is_bodiless: bool,
}

impl Answer {
    /// Whether it can be the answer to this request: servers repeat in it what they were asked.
    pub(crate) fn is_about(&self, method: &str, target: &str) -> bool {
        if self.is_bodiless && !self.text.contains("x-seen") {
            return true;
        }
        // A server's own refusal repeats nothing.
        self.status != 200 || self.text.contains(&format!("{method} {}", target.split('?').next().unwrap_or(target)))
    }

    /// A proxy's refusal that ends the connection.
    pub(crate) fn is_refusal(&self, status: u16) -> bool {
        self.status == status && self.weft_error.is_some() && self.closes
    }
}

/// All answers to requests with these methods, and what comes after them; interim answers are left out.
pub(crate) fn answers(mut bytes: &[u8], methods: &[&str]) -> Result<Vec<Answer>, String> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let to_head = methods.get(answers.len()) == Some(&"HEAD");
        let (answer, rest) = answer(bytes, to_head)?;
        bytes = rest;
        if answer.status >= 200 || answer.status == 101 {
            answers.push(answer);
        }
    }
    Ok(answers)
}

fn answer(bytes: &[u8], to_head: bool) -> Result<(Answer, &[u8]), String> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or("an answer without an end of its head")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|digits| digits.parse().ok());
    let status: u16 = status.ok_or_else(|| format!("status line {first:?}"))?;
    let field = |name: &str| {
        let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        let mut values = fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        values.next().map(str::to_owned)
    };
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let (body, rest) = if to_head || status < 200 || status == 204 || status == 304 {
        (Vec::new(), rest)
    } else if field("transfer-encoding").is_some() {
        chunks(rest)?
    } else if let Some(length) = field("content-length") {
        let length: usize = length.parse().map_err(|_| format!("length {length:?}"))?;
        if rest.len() < length {
            return Err(format!("an answer of {length} bytes was cut off"));
        }
        (rest[..length].to_vec(), &rest[length..])
    } else {
        (rest.to_vec(), &[][..])
    };
    let text = format!("{head}\n\n{}", String::from_utf8_lossy(&body));
    let is_bodiless = body.is_empty();
    Ok((Answer { status, weft_error: field("weft-error"), closes, text, is_bodiless }, rest))
}

fn chunks(mut bytes: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").ok_or("a chunk without an end")?;
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or("a chunk size that is none")?;
        bytes = &bytes[end + 2..];
        if bytes.len() < size + 2 {
            return Err("a chunk was cut off".to_owned());
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
        if size == 0 {
            return Ok((body, bytes));
        }
    }
}

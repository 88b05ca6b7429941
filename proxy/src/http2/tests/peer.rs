//! Against the `h2` crate: its encoder and our decoder, our encoder and its decoder, over many requests of one
//! connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Names and values as text, sorted: `h2` groups fields of one name.
type Sorted = Vec<(String, String)>;

const REQUESTS: usize = 200;

/// Fields as applications send them: some the same each time, some new, some long, some of odd bytes.
fn random_fields(chance: &mut fastrand::Rng) -> Vec<(String, String)> {
    let names = ["user-agent", "accept", "x-trace", "cookie", "authorization", "etag", "x-a", "x-b", "grpc-timeout"];
    (0..chance.usize(..12))
        .map(|_| {
            let name =
                if chance.bool() { names[chance.usize(..names.len())].into() } else { format!("x-{}", chance.u8(..)) };
            let length = if chance.u8(..) == 0 { chance.usize(..3000) } else { chance.usize(..40) };
            let value = match chance.u8(..3) {
                0 => "the same each time".into(),
                1 => (0..length).map(|_| chance.char('!'..='~')).collect(),
                _ => (0..length).map(|_| chance.alphanumeric()).collect::<String>(),
            };
            (name, value)
        })
        .collect()
}

fn sorted(fields: impl IntoIterator<Item = (String, String)>) -> Sorted {
    let mut sorted: Sorted = fields.into_iter().collect();
    sorted.sort();
    sorted
}

fn regular(fields: &Fields) -> Sorted {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    sorted(fields.iter().filter(|field| field.name[0] != b':').map(|field| (text(field.name), text(field.value))))
}

async fn read_frame(stream: &mut tokio::io::DuplexStream) -> (FrameHeader, Vec<u8>) {
    let mut head = [0; frame::HEADER_BYTES];
    stream.read_exact(&mut head).await.expect("a frame");
    let header = FrameHeader::parse(&head);
    let mut payload = vec![0; header.length as usize];
    stream.read_exact(&mut payload).await.expect("its payload");
    (header, payload)
}

#[tokio::test]
async fn what_the_h2_crate_encodes_is_decoded() {
    let (near, mut far) = tokio::io::duplex(16 * 1024 * 1024);
    let mut settings = Vec::new();
    frame::write_settings(&[(frame::setting::MAX_CONCURRENT_STREAMS, 1000)], &mut settings);
    frame::write_settings_ack(&mut settings);
    far.write_all(&settings).await.expect("room");
    let (client, connection) = h2::client::handshake(near).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.expect("ready");
    let mut chance = fastrand::Rng::with_seed(7541);
    let mut preface = [0; 24];
    far.read_exact(&mut preface).await.expect("the preface");
    assert_eq!(&preface, PREFACE);
    let mut decoder = hpack::Decoder::new(4096);
    let mut fields = Fields::new();
    // A dropped one would take its request back.
    let mut answers = Vec::new();
    for _ in 0..REQUESTS {
        let expected = random_fields(&mut chance);
        let mut request = http::Request::get("http://orders/path");
        for (name, value) in &expected {
            request = request.header(name, value);
        }
        answers.push(client.send_request(request.body(()).expect("valid"), true).expect("sent"));
        client = client.ready().await.expect("ready");
        let mut block = Vec::new();
        loop {
            let (header, payload) = read_frame(&mut far).await;
            match header.kind {
                Kind::Headers => {
                    block.extend_from_slice(&payload[frame::headers_range(&header, &payload).expect("valid")]);
                }
                Kind::Continuation => block.extend_from_slice(&payload),
                _ => continue,
            }
            if header.has(frame::flags::END_HEADERS) {
                break;
            }
        }
        decoder.decode(&block, &mut fields, &HeadLimits::default()).expect("valid");
        assert_eq!(regular(&fields), sorted(expected));
        let head = RequestHead::read(&fields, true).expect("valid");
        assert_eq!((head.method, head.target, head.authority), ("GET", "/path", &b"orders"[..]));
    }
    connection.abort();
}

#[tokio::test]
async fn what_is_encoded_the_h2_crate_decodes() {
    let (near, mut far) = tokio::io::duplex(16 * 1024 * 1024);
    let mut start = PREFACE.to_vec();
    frame::write_settings(&[], &mut start);
    far.write_all(&start).await.expect("room");
    let mut server = h2::server::Builder::new()
        .max_header_list_size(1 << 20)
        .handshake::<_, bytes::Bytes>(near)
        .await
        .expect("a handshake");
    let mut chance = fastrand::Rng::with_seed(9113);
    for number in 0..REQUESTS {
        let expected = random_fields(&mut chance);
        let mut fields = get_with(&[]);
        for (name, value) in &expected {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let (mut block, mut out) = (Vec::new(), Vec::new());
        hpack::encode(&fields, &mut block);
        frame::write_headers(1 + 2 * number as u32, &block, true, 1000, &mut out);
        far.write_all(&out).await.expect("room");
        let (request, mut answer) = server.accept().await.expect("a request").expect("valid");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let seen = request.headers().iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
        assert_eq!(sorted(seen), sorted(expected));
        assert_eq!(request.uri(), "http://orders/");
        answer.send_response(http::Response::new(()), true).expect("sent");
    }
}

//! Protocols in which the server speaks first, on ports nobody declared: nothing is configured, and nothing is waited for.
//!
//! The servers say what real ones say (greetings recorded from the wire); Redis is itself.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use weft_tests::process::crossing::{Behind, Crossing, Way};
use weft_tests::process::{PATIENCE, Port, Process, command, need, now, run_within, until};

/// What a server says at once, and what it answers to which line.
#[derive(Debug, Clone, Copy)]
struct Script {
    name: &'static str,
    greeting: &'static [u8],
    asked: &'static [u8],
    answer: &'static [u8],
}

const SCRIPTS: [Script; 4] = [
    Script {
        name: "mysql",
        // Protocol version 10, `8.0.36`, connection 8, salt, capabilities, `caching_sha2_password`.
        greeting: b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0\x1b\x5c\x2f\x11\x6a\x48\x60\x02\0\xff\xff\xff\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0\x05\x33\x1d\x76\x64\x41\x3b\x29\x5a\x1e\x52\x40\0caching_sha2_password\0\0",
        asked: b"\x20\0\0\x01\x85\xa6\xff\x01\0\0\0\x01\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        answer: b"\x17\0\0\x02\xff\x15\x04#28000Access denied!",
    },
    Script {
        name: "smtp",
        greeting: b"220 mail.example ESMTP Postfix\r\n",
        asked: b"EHLO client.example\r\n",
        answer: b"250-mail.example\r\n250 STARTTLS\r\n",
    },
    Script {
        name: "ssh",
        greeting: b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
        asked: b"SSH-2.0-OpenSSH_9.6\r\n",
        answer: b"\0\0\0\x0c\x0a\x14\0\0\0\0\0\0\0\0\0\0",
    },
    Script {
        name: "ftp",
        greeting: b"220 (vsFTPd 3.0.5)\r\n",
        // Looks like the begin of a request until its line ends.
        asked: b"USER anonymous\r\n",
        answer: b"331 Please specify the password.\r\n",
    },
];

/// Where a wait of the detection's own would show: it waits 100 ms and more wherever it waits at all. What a busy machine
/// adds, a direct connection beside it suffers as well.
const NO_WAIT: Duration = Duration::from_millis(60);
const ROUNDS: usize = 15;

fn serve(script: Script) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut asked = vec![0; script.asked.len()];
                stream.write_all(script.greeting)?;
                stream.read_exact(&mut asked)?;
                let answer = if asked == script.asked { script.answer } else { b"what?" };
                stream.write_all(answer)
            });
        }
    });
    address
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the proxy takes connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a plain option");
    stream
}

/// The whole conversation; how long its first byte took.
fn talk(script: Script, address: SocketAddr) -> Duration {
    let begin = now();
    let mut stream = connect(address);
    let mut greeting = vec![0; script.greeting.len()];
    stream.read_exact(&mut greeting[..1]).expect("the greeting comes although the client is silent");
    let first = begin.elapsed();
    stream.read_exact(&mut greeting[1..]).expect("the greeting comes whole");
    assert_eq!(greeting, script.greeting, "{}", script.name);
    stream.write_all(script.asked).expect("the server listens");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the answer comes and the end");
    assert_eq!(answer, script.answer, "{}", script.name);
    first
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_greeting_arrives_at_once_where_nobody_declared_the_port() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let servers: Vec<(Script, SocketAddr)> = SCRIPTS.iter().map(|script| (*script, serve(*script))).collect();
    let behind: Vec<Behind> =
        servers.iter().map(|(script, address)| Behind::new(script.name, *address, None)).collect();
    let crossing = Crossing::start(place.path(), &behind);
    let mut late = Vec::new();
    for (script, address) in &servers {
        for way in Way::BOTH {
            // In turns, so that both see the same machine.
            let entrance = crossing.entrance(script.name, way);
            let (direct, through): (Vec<_>, Vec<_>) =
                (0..ROUNDS).map(|_| (talk(*script, *address), talk(*script, entrance))).unzip();
            let (direct, through) = (median(direct), median(through));
            println!(
                "{:<6} {:<5} first byte: direct {direct:?}, through the mesh {through:?}",
                script.name,
                way.name()
            );
            if through > direct + NO_WAIT {
                late.push(format!("{} {}: {through:?}, directly {direct:?}", script.name, way.name()));
            }
        }
    }
    assert!(late.is_empty(), "{}", late.join("\n"));
    // It was seen for what it is, not guessed by a timer: the verdict says so.
    let metrics = crossing.client.metrics();
    assert_eq!(metrics.sum("weft_detections_total", &[("protocol", "http1")]), 0, "nothing was taken for HTTP");
}

#[test]
fn redis_and_its_own_load_work_where_nobody_declared_the_port() {
    need(&["redis-server", "redis-benchmark"]);
    let place = tempfile::tempdir().expect("a temporary directory");
    let port = Port::reserve();
    let mut redis = command("redis-server");
    redis.args([
        "--port",
        &port.number().to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
    ]);
    let process = Process::start("Redis", redis.arg(place.path()), &place.path().join("redis.log"));
    until("Redis answers", || {
        assert!(!process.log().contains("# Failed listening"), "{}", process.log());
        TcpStream::connect(port.address()).map(drop).map_err(|error| error.to_string())
    });
    let crossing = Crossing::start(place.path(), &[Behind::new("redis", port.address(), None)]);
    for way in Way::BOTH {
        let entrance = crossing.entrance("redis", way);
        // Inline commands begin like requests: `GET key` has no version.
        let mut stream = connect(entrance);
        for (asked, answer) in
            [("SET key value\r\n", "+OK\r\n"), ("GET key\r\n", "$5\r\nvalue\r\n"), ("QUIT\r\n", "+OK\r\n")]
        {
            stream.write_all(asked.as_bytes()).expect("Redis listens");
            let mut got = vec![0; answer.len()];
            stream.read_exact(&mut got).expect("Redis answers");
            assert_eq!(String::from_utf8_lossy(&got), answer, "{} {asked:?}", way.name());
        }
        let (host, port) = (entrance.ip().to_string(), entrance.port().to_string());
        let mut load = command("redis-benchmark");
        load.args(["-h", &host, "-p", &port, "-n", "5000", "-c", "20", "-P", "8", "-t", "set,get,lpush", "--csv"]);
        let finished = run_within(&mut load, Duration::from_mins(1)).succeeded();
        assert!(["SET", "GET", "LPUSH"].iter().all(|name| finished.contains(name)), "{finished}");
        println!("Redis {}: {}", way.name(), finished.lines().nth(1).unwrap_or_default());
    }
}

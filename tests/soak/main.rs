//! Minutes of full load through the mesh pair: does it leak, does it stall, does it fail?
//!
//! `cargo build --release --workspace --bins && target/release/soak --minutes 10`. HTTP/1.1 and HTTP/2 by h2load, TCP by
//! threads here, and a heartbeat of a few bytes every 2 ms through the mesh and beside it: a stall that only the first sees
//! is ours. Ends by itself; the exit code is 1 when memory or descriptors grew, requests failed, or a stall was ours.

mod heartbeat;
mod usage;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use heartbeat::Heartbeat;
use usage::Usage;
use weft_tests::process::crossing::{Behind, Crossing, Way};
use weft_tests::process::{PATIENCE, Port, Process, command, now, run_within, until};

/// Between two looks at memory and descriptors.
const SAMPLE: Duration = Duration::from_secs(2);

fn minutes() -> Result<f64, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(10.0),
        ["--minutes", number] => {
            number.parse().ok().filter(|minutes| *minutes > 0.0).ok_or("MINUTES is no number".into())
        }
        _ => Err("usage: soak [--minutes MINUTES]".to_owned()),
    }
}

fn main() -> ExitCode {
    let minutes = match minutes() {
        Ok(minutes) => minutes,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let wrong = soak(Duration::from_secs_f64(minutes * 60.0));
    for line in &wrong {
        println!("WRONG {line}");
    }
    ExitCode::from(u8::from(!wrong.is_empty()))
}

fn soak(length: Duration) -> Vec<String> {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (web, _web) = nginx(place.path());
    let (http2, _http2) = nghttpd(place.path());
    // The heartbeat has servers of its own, whose threads are told from others by name.
    let [echo, beat, beside] = ["echo", heartbeat::SERVER, "beside"].map(echo);
    let behind = [
        Behind::new("web", web.address(), Some("http")),
        Behind::new("web2", http2.address(), Some("http")),
        Behind::new("echo", echo, Some("tcp")),
        Behind::new("beat", beat, Some("tcp")),
    ];
    let crossing = Crossing::start(place.path(), &behind);
    let at = |name: &str| crossing.entrance(name, Way::Pair);
    let proxies = [&crossing.client, &crossing.server].map(|sidecar| sidecar.process.id());
    let (over, carried) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut wrong = Vec::new();
    thread::scope(|scope| {
        let ours = scope.spawn(|| Heartbeat::beat(at("beat"), &over, &proxies));
        let beside = scope.spawn(|| Heartbeat::beat(beside, &over, &[]));
        let carry = scope.spawn(|| carry(at("echo"), &over, &carried));
        let first = scope.spawn(|| h2load(&["--h1", "-c", "16"], at("web"), length));
        let second = scope.spawn(|| h2load(&["-c", "4", "-m", "16"], at("web2"), length));
        let (mut client, mut server) =
            (Usage::of(crossing.client.process.id()), Usage::of(crossing.server.process.id()));
        let end = now() + length;
        while now() < end {
            pause(SAMPLE.min(end.saturating_duration_since(now())));
            client.sample();
            server.sample();
        }
        for (name, load) in [("HTTP/1.1", first), ("HTTP/2", second)] {
            match load.join().expect("a load does not panic") {
                Ok(said) => println!("{name}: {said}"),
                Err(error) => wrong.push(format!("{name}: {error}")),
            }
        }
        over.store(true, Ordering::SeqCst);
        if let Err(error) = carry.join().expect("a load does not panic") {
            wrong.push(format!("TCP: {error}"));
        }
        println!("TCP: {} MiB there and back", carried.load(Ordering::SeqCst) >> 20);
        for (name, usage) in [("client's proxy", client), ("server's proxy", server)] {
            println!("{name}: {usage}");
            wrong.extend(usage.growth().map(|growth| format!("{name}: {growth}")));
        }
        let (ours, beside) = (ours.join().expect("it beats"), beside.join().expect("it beats"));
        println!("heartbeat through the mesh: {ours}; beside it: {beside}");
        wrong.extend(ours.stalls_of_our_own(&beside));
    });
    wrong
}

/// A soak is made of time.
#[allow(clippy::disallowed_methods)]
fn pause(time: Duration) {
    thread::sleep(time);
}

/// Runs h2load for `length`; what it says of requests when none failed.
fn h2load(options: &[&str], entrance: SocketAddr, length: Duration) -> Result<String, String> {
    let seconds = length.as_secs().max(1).to_string();
    let mut load = command("h2load");
    load.args(options).args(["-D", &seconds, &format!("http://{entrance}/")]);
    let said = run_within(&mut load, length + PATIENCE);
    let line = said.stdout.lines().find(|line| line.starts_with("requests:")).unwrap_or_default().to_owned();
    let statuses = said.stdout.lines().find(|line| line.starts_with("status codes:")).unwrap_or_default();
    let clean = ["0 failed", "0 errored", "0 timeout"].iter().all(|part| line.contains(&format!(", {part}")));
    let only_2xx = ["0 3xx", "0 4xx", "0 5xx"].iter().all(|part| statuses.contains(part));
    let some = !line.contains(" 0 succeeded");
    if clean && only_2xx && some { Ok(line) } else { Err(format!("{line} {statuses} {}", said.stderr)) }
}

/// Carries bytes there and back, checked, until it is over.
fn carry(entrance: SocketAddr, over: &AtomicBool, carried: &AtomicU64) -> std::io::Result<()> {
    let block: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
    let mut back = vec![0; block.len()];
    while !over.load(Ordering::SeqCst) {
        // A new connection now and then: opening and closing is load as well.
        let mut stream = TcpStream::connect(entrance)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        for _ in 0..200 {
            stream.write_all(&block)?;
            stream.read_exact(&mut back)?;
            if back != block {
                return Err(std::io::Error::other("other bytes came back"));
            }
            carried.fetch_add(block.len() as u64, Ordering::SeqCst);
        }
    }
    Ok(())
}

/// Sends back whatever comes, in threads of this name.
fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
                let _ = stream.set_nodelay(true);
                let mut bytes = vec![0; 1 << 16];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
            thread.expect("a thread can be had");
        }
    });
    address
}

fn nginx(place: &Path) -> (Port, Process) {
    let port = Port::reserve();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {place}/nginx.pid;\nerror_log {place}/error.log;\nevents {{ }}\n\
         http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {place}/1; proxy_temp_path {place}/2; \
         fastcgi_temp_path {place}/3; uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;\n\
         server {{ listen {}; location / {{ return 200 'hello\\n'; }} }} }}\n",
        port.address(),
        place = place.display(),
    );
    let file = place.join("nginx.conf");
    std::fs::write(&file, text).expect("the place can be written to");
    let mut nginx = command("nginx");
    nginx
        .env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin")
        .arg("-p")
        .arg(place)
        .arg("-c")
        .arg(&file);
    started("nginx", &mut nginx, port, place)
}

fn nghttpd(place: &Path) -> (Port, Process) {
    let port = Port::reserve();
    std::fs::write(place.join("index.html"), "hello\n").expect("the place can be written to");
    let mut nghttpd = command("nghttpd");
    nghttpd.args(["--no-tls", "--htdocs"]).arg(place).arg(port.number().to_string());
    started("nghttpd", &mut nghttpd, port, place)
}

fn started(name: &str, program: &mut std::process::Command, port: Port, place: &Path) -> (Port, Process) {
    let process = Process::start(name, program, &place.join(format!("{name}.log")));
    until(&format!("{name} listens"), || {
        TcpStream::connect(port.address()).map(drop).map_err(|error| format!("{error}: {}", process.log()))
    });
    (port, process)
}

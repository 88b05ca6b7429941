//! `weft up` with everything around it faked, for `tests/up.rs`: a control plane that only remembers, a proxy that only
//! says it is ready, and small applications.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Request, Response, Status};
use weft_control_plane::up;
use weft_proto::weft::management_server::{Management, ManagementServer};
use weft_proto::weft::{
    ApplyRequest, ApplyResponse, CreateTokenRequest, CreateTokenResponse, DeleteRequest, DeleteResponse, Document,
    GetRequest, GetResponse, LogLevelRequest, LogLevelResponse, ProxyConfigurationRequest, ProxyConfigurationResponse,
    StatusRequest, StatusResponse,
};

#[derive(Parser)]
struct Arguments {
    #[arg(long, global = true)]
    data: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Up(up::UpArguments),
    Scale(up::ScaleArguments),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["pod", ..] => return up::pod::main(&arguments[1..]),
        ["control-plane", "--data", data, "--listen", address] => block_on(control_plane(Path::new(data), address)),
        ["proxy"] => block_on(proxy()),
        ["serve"] => serve(),
        ["ask", address] => ask(address),
        ["resolve", name] => resolve(name),
        _ => {
            let Arguments { data, verb } = Arguments::parse();
            return match verb {
                Verb::Up(arguments) => up::main(arguments, data),
                Verb::Scale(arguments) => up::scale_main(&arguments, data.as_deref()),
            };
        }
    };
    outcome.map_or_else(
        |error| {
            println!("error: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn block_on(work: impl Future<Output = Result<(), Box<dyn Error>>>) -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Answers every connection with who it is.
fn serve() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::var("PORT")?.parse()?;
    let listener = TcpListener::bind(("::", port))?;
    println!("serving as uid {}", nix::unistd::Uid::effective());
    for stream in listener.incoming() {
        // The prober has hung up already.
        writeln!(stream?, "hello from {}", nix::unistd::gethostname()?.to_string_lossy()).ok();
    }
    Ok(())
}

fn ask(address: &str) -> Result<(), Box<dyn Error>> {
    let mut said = String::new();
    TcpStream::connect(address)?.read_to_string(&mut said)?;
    print!("{address}: {said}");
    Ok(())
}

fn resolve(name: &str) -> Result<(), Box<dyn Error>> {
    for address in (name, 80).to_socket_addrs()? {
        println!("{name} is {address}");
    }
    Ok(())
}

/// Ready as soon as it runs; carries what is redirected to it as it is; says what it was told and when it was asked to
/// end.
async fn proxy() -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut settings: Vec<_> = std::env::vars().filter(|(key, _)| key.starts_with("WEFT_")).collect();
    settings.sort();
    println!("proxy of uid {} with {settings:?}", nix::unistd::Uid::effective());
    std::fs::read_to_string(std::env::var("WEFT_JOIN_TOKEN_FILE")?)?;
    std::fs::read_to_string(std::env::var("WEFT_BUNDLE")?)?;
    let admin = std::env::var("WEFT_ADMIN")?;
    let admin = PathBuf::from(admin.strip_prefix("unix:").ok_or("WEFT_ADMIN")?);
    std::fs::remove_file(&admin).ok();
    let listener = tokio::net::UnixListener::bind(admin)?;
    if std::env::var_os("WEFT_INBOUND").is_none() {
        for (address, inbound) in
            [("127.0.0.1:15001", false), ("[::1]:15001", false), ("0.0.0.0:15006", true), ("[::]:15006", true)]
        {
            tokio::spawn(carry(listen(address.parse()?)?, inbound));
        }
    }
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (mut stream, _) = accepted?;
                let mut request = [0; 1024];
                let _whatever = stream.read(&mut request).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok();
            }
            _ = terminate.recv() => {
                println!("proxy asked to end");
                return Ok(());
            }
        }
    }
}

fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener, Box<dyn Error>> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    // One that was killed leaves connections behind that hold its port for a while.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(64)?)
}

async fn carry(listener: tokio::net::TcpListener, inbound: bool) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            if let Err(error) = carry_one(stream, inbound).await {
                println!("carrying: {error}");
            }
        });
    }
}

async fn carry_one(mut stream: tokio::net::TcpStream, inbound: bool) -> std::io::Result<()> {
    let mut to = if stream.local_addr()?.is_ipv4() {
        let original = getsockopt(&stream, sockopt::OriginalDst)?;
        SocketAddr::from((original.sin_addr.s_addr.to_ne_bytes(), u16::from_be(original.sin_port)))
    } else {
        let original = getsockopt(&stream, sockopt::Ip6tOriginalDst)?;
        SocketAddr::from((original.sin6_addr.s6_addr, u16::from_be(original.sin6_port)))
    };
    let socket = if inbound || to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if inbound {
        to.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    if let Some(mark) = std::env::var("WEFT_SOCKET_MARK").ok().and_then(|mark| mark.parse().ok()) {
        setsockopt(&socket, sockopt::Mark, &mark)?;
    }
    let way = if inbound { "in" } else { "out" };
    println!("carrying {way} to {to}");
    tokio::io::copy_bidirectional(&mut stream, &mut socket.connect(to).await?).await.map(drop)
}

/// Remembers documents, and writes every change to `DIR/history`.
struct Memory {
    history: PathBuf,
    /// Revision, and documents by kind and name.
    documents: Mutex<(u64, Documents)>,
}

type Documents = BTreeMap<(String, String), serde_json::Value>;

impl Memory {
    fn note(&self, line: &str) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.history);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .expect("the history can be written: the data directory is ours");
    }
}

#[tonic::async_trait]
impl Management for Memory {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let mut state = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        for source in &request.get_ref().sources {
            for text in source.text.split("\n---\n") {
                let mut value: serde_json::Value =
                    serde_json::from_str(text).map_err(|error| Status::invalid_argument(error.to_string()))?;
                let kind = value["kind"].as_str().unwrap_or_default().to_owned();
                let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if kind == "Service" {
                    let number = 2 + state.1.keys().filter(|(kind, _)| kind == "Service").count();
                    value["spec"]["addresses"] =
                        serde_json::json!([format!("10.96.0.{number}"), format!("fd57::{number}")]);
                }
                self.note(&format!("{kind} {name} {}", value["spec"]["state"].as_str().unwrap_or("-")));
                state.1.insert((kind, name), value);
            }
        }
        state.0 += 1;
        Ok(Response::new(ApplyResponse { revision: state.0, changes: Vec::new() }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let state = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = state.1.iter().filter(|((kind, _), _)| *kind == request.get_ref().kind);
        let documents = of_kind.map(|((kind, name), value)| Document {
            kind: kind.clone(),
            namespace: "default".to_owned(),
            name: name.clone(),
            json: value.to_string(),
            ..Document::default()
        });
        Ok(Response::new(GetResponse { documents: documents.collect(), revision: state.0 }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let mut state = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &request.get_ref().documents {
            if state.1.remove(&(name.kind.clone(), name.name.clone())).is_none() {
                return Err(Status::not_found(name.name.clone()));
            }
            self.note(&format!("{} {} deleted", name.kind, name.name));
        }
        state.0 += 1;
        Ok(Response::new(DeleteResponse { revision: state.0, changes: Vec::new() }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let revision = self.documents.lock().unwrap_or_else(PoisonError::into_inner).0;
        Ok(Response::new(StatusResponse { revision, ..StatusResponse::default() }))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let token = format!("token of {}", request.get_ref().service_account);
        Ok(Response::new(CreateTokenResponse { token, expires_at: 0 }))
    }

    async fn log_level(&self, _: Request<LogLevelRequest>) -> Result<Response<LogLevelResponse>, Status> {
        Err(Status::unavailable("no proxy is connected to a control plane that only remembers"))
    }

    async fn proxy_configuration(
        &self,
        _: Request<ProxyConfigurationRequest>,
    ) -> Result<Response<ProxyConfigurationResponse>, Status> {
        Err(Status::unavailable("no proxy is connected to a control plane that only remembers"))
    }
}

async fn control_plane(data: &Path, address: &str) -> Result<(), Box<dyn Error>> {
    // The address must exist where the control plane runs.
    let _listener = tokio::net::TcpListener::bind(address).await?;
    std::fs::write(data.join("bundle.pem"), "")?;
    let listener = tokio::net::UnixListener::bind(data.join("api.sock"))?;
    let memory = Memory { history: data.join("history"), documents: Mutex::default() };
    let mut terminate = signal(SignalKind::terminate())?;
    tonic::transport::Server::builder()
        .add_service(ManagementServer::new(memory))
        .serve_with_incoming_shutdown(tokio_stream::wrappers::UnixListenerStream::new(listener), async {
            terminate.recv().await;
        })
        .await?;
    Ok(())
}

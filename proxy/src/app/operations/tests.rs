//! The stream against a control plane on loopback that asks what it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Streaming};
use weft_proto::weft::operations_server::{Operations, OperationsServer};
use weft_proto::weft::question::Question as Asked;
use weft_proto::weft::{ProgramChunk, ProgramRequest, ReadConfiguration, ReadLogLevel, SetLogLevel, Upgrade};

use super::*;
use crate::admin::{Admin, Readiness};
use crate::config::Tuning;
use crate::state::Store;
use crate::telemetry::Registry;
use crate::tls::CredentialStore;

const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// One stream, as the control plane has it.
struct Opened {
    answers: Streaming<Answer>,
    questions: mpsc::Sender<Result<Question, Status>>,
}

impl Opened {
    async fn answer(&mut self) -> (u64, answer::Answer) {
        let answer = soon(self.answers.message()).await.unwrap().expect("the stream goes on");
        (answer.number, answer.answer.expect("every answer says something"))
    }

    async fn ask(&mut self, number: u64, question: Option<Asked>) -> answer::Answer {
        self.questions.send(Ok(Question { number, question })).await.unwrap();
        let (answered, answer) = self.answer().await;
        assert_eq!(answered, number);
        answer
    }
}

struct ControlPlane(mpsc::Sender<Opened>);

#[tonic::async_trait]
impl Operations for ControlPlane {
    type ServeStream = ReceiverStream<Result<Question, Status>>;
    type ProgramStream = ReceiverStream<Result<ProgramChunk, Status>>;

    async fn serve(&self, request: Request<Streaming<Answer>>) -> Result<Response<Self::ServeStream>, Status> {
        let (questions, outgoing) = mpsc::channel(64);
        self.0.send(Opened { answers: request.into_inner(), questions }).await.map_err(|_| Status::aborted("over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn program(&self, _: Request<ProgramRequest>) -> Result<Response<Self::ProgramStream>, Status> {
        Err(Status::not_found("none"))
    }
}

/// A control plane, and a channel to it.
async fn control_plane(tasks: &mut JoinSet<()>) -> (Channel, mpsc::Receiver<Opened>) {
    let (opened, streams) = mpsc::channel(16);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let server = Server::builder().add_service(OperationsServer::new(ControlPlane(opened)));
        server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    (Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy(), streams)
}

/// Settings as they are without a word.
#[derive(clap::Parser)]
struct Defaults {
    #[command(flatten)]
    tuning: Tuning,
}

fn handlers() -> Handlers {
    let admin = Admin {
        readiness: Readiness::default(),
        registry: Registry::default(),
        store: Arc::new(Store::new("shop/orders".to_owned())),
        credentials: Arc::new(CredentialStore::new()),
        tuning: <Defaults as clap::Parser>::parse_from(["proxy"]).tuning,
    };
    Handlers { admin, upgrades: None }
}

/// A proxy that knows no connection yet.
fn proxy(tasks: &mut JoinSet<()>) -> watch::Sender<Option<Channel>> {
    let (connected, connection) = watch::channel(None);
    let backoff = Backoff::new(fastrand::Rng::with_seed(1));
    tasks.spawn(run("orders-1".to_owned(), handlers(), connection, || std::future::ready(None), backoff));
    connected
}

fn refusal(answer: answer::Answer) -> String {
    match answer {
        answer::Answer::Refusal(reason) => reason,
        other => panic!("no refusal: {other:?}"),
    }
}

#[tokio::test]
async fn each_connection_gets_an_introduction_and_every_question_its_answer() {
    let mut tasks = JoinSet::new();
    let (channel, mut streams) = control_plane(&mut tasks).await;
    let connected = proxy(&mut tasks);
    connected.send_replace(Some(channel.clone()));
    let mut stream = soon(streams.recv()).await.unwrap();
    let (number, answer) = stream.answer().await;
    let answer::Answer::Introduction(introduction) = answer else { panic!("no introduction: {answer:?}") };
    assert_eq!((number, introduction.workload.as_str(), introduction.digest.len()), (0, "orders-1", 64));
    assert_eq!(introduction.architecture, std::env::consts::ARCH);

    let answer::Answer::Configuration(dump) = stream.ask(7, Some(Asked::ReadConfiguration(ReadConfiguration {}))).await
    else {
        panic!("no configuration")
    };
    assert!(dump.is_last);
    let dump: serde_json::Value = serde_json::from_slice(&dump.data).unwrap();
    assert_eq!(dump["version"], env!("CARGO_PKG_VERSION"));
    let level = |level: &str| Some(Asked::SetLogLevel(SetLogLevel { level: level.to_owned() }));
    for (question, reason) in [
        (None, "does not know this question"),
        (level("loud"), "off, error, warn, info, debug or trace"),
        (level("3"), "off, error, warn, info, debug or trace"),
        // Nothing starts a log in this process.
        (level("debug"), "no log was started"),
        (Some(Asked::ReadLogLevel(ReadLogLevel {})), "no log was started"),
        (Some(Asked::Upgrade(Upgrade::default())), "cannot be replaced"),
    ] {
        let told = refusal(stream.ask(8, question.clone()).await);
        assert!(told.contains(reason), "{question:?}: {told}");
    }

    // The configuration's stream was lost, and found a connection again.
    connected.send_replace(None);
    assert!(!matches!(soon(stream.answers.message()).await, Ok(Some(_))), "the stream goes on without a connection");
    connected.send_replace(Some(channel));
    let mut stream = soon(streams.recv()).await.unwrap();
    assert!(matches!(stream.answer().await, (0, answer::Answer::Introduction(_))));
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again_on_the_same_connection() {
    let mut tasks = JoinSet::new();
    let (channel, mut streams) = control_plane(&mut tasks).await;
    let connected = proxy(&mut tasks);
    connected.send_replace(Some(channel));
    for _ in 0..3 {
        let mut stream = soon(streams.recv()).await.unwrap();
        stream.answer().await;
        stream.questions.send(Err(Status::unavailable("not now"))).await.unwrap();
    }
}

#[tokio::test]
async fn a_control_plane_without_the_service_is_asked_once_a_connection() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tasks.spawn(async move {
        let service = tower::service_fn(move |_: http::Request<tonic::body::Body>| {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = Status::unimplemented("of an earlier version").into_http::<tonic::body::Body>();
            std::future::ready(Ok::<_, std::convert::Infallible>(answer))
        });
        let router = Server::builder().add_service(Named(service));
        router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    let connected = proxy(&mut tasks);
    let channel = || Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    for expected in 1..=2 {
        connected.send_replace(Some(channel()));
        soon(async {
            while asked.load(Ordering::SeqCst) < expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    // Longer than the first waits between attempts together.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

/// A service in the place of ours.
#[derive(Clone)]
struct Named<S>(S);

impl<S> tonic::server::NamedService for Named<S> {
    const NAME: &'static str = "weft.v1.Operations";
}

impl<S, R> tower::Service<R> for Named<S>
where
    S: tower::Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}

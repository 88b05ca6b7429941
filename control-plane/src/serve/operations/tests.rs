//! The service over loopback, with proxies that say what they like.

use std::collections::BTreeMap;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::{Channel, Server};
use weft_proto::weft::answer::Answer as Message;
use weft_proto::weft::operations_client::OperationsClient;
use weft_proto::weft::{ConfigurationPart, Introduction, ReadConfiguration, ReadLogLevel, SetLogLevel};

use super::*;
use crate::world::{Own, WorkloadKey};

const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "waited in vain until {what}");
}

fn level(text: &str) -> Message {
    Message::LogLevel(text.to_owned())
}

fn read_level() -> Question {
    Question::ReadLogLevel(ReadLogLevel {})
}

struct Bench {
    operations: Operations,
    client: OperationsClient<Channel>,
    stop: watch::Sender<bool>,
    world: Arc<World>,
    tasks: JoinSet<()>,
}

impl Bench {
    /// Knows of `default/orders-1` and `default/orders-2` as workloads of the account `orders`.
    async fn start() -> Self {
        let world = World::new();
        let own = Own { account: "orders".into(), resources: Vec::new() };
        let workloads = ["orders-1", "orders-2"].map(|name| (WorkloadKey::new("default", name), own.clone()));
        world.put(1, Vec::new(), BTreeMap::from(workloads));
        Self::over(world, OPENING).await
    }

    /// Who calls says in a header which service account they have.
    async fn over(world: Arc<World>, opening: Duration) -> Self {
        let operations = Operations::new(Arc::clone(&world));
        let (stop, stopped) = watch::channel(false);
        let mut service = OperationsService::new(Arc::clone(&world), operations.clone(), identify, stopped);
        service.opening = opening;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let router = Server::builder().add_service(service.into_service());
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self { operations, client: OperationsClient::new(channel), stop, world, tasks }
    }

    async fn open(&self, account: Option<&str>) -> Result<Proxy, Status> {
        let (answers, outgoing) = mpsc::channel(64);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if let Some(account) = account {
            request.metadata_mut().insert("account", account.parse().unwrap());
        }
        let questions = soon(self.client.clone().serve(request)).await?.into_inner();
        Ok(Proxy { answers, questions })
    }

    /// A proxy that has introduced itself and can be asked.
    async fn proxy(&self, workload: &str, version: &str) -> Proxy {
        let proxy = self.open(Some("orders")).await.unwrap();
        proxy.introduce(workload, version).await;
        until("it is connected", || {
            let mut proxies = self.operations.proxies().into_iter();
            proxies.any(|found| found.introduction.workload == workload && found.introduction.version == version)
        })
        .await;
        proxy
    }

    fn ask(&mut self, workload: &str, question: Question) -> oneshot::Receiver<Result<Answer, AskError>> {
        let (told, answer) = oneshot::channel();
        let (operations, workload) = (self.operations.clone(), workload.to_owned());
        self.tasks.spawn(async move {
            let _ = told.send(operations.ask(&workload, question, PATIENCE).await);
        });
        answer
    }
}

fn identify(request: &Request<()>) -> Result<SpiffeId, Status> {
    let account = request.metadata().get("account").and_then(|value| value.to_str().ok());
    let account = account.ok_or_else(|| Status::unauthenticated("no certificate"))?;
    Ok(SpiffeId::workload("shop.local", "default", account))
}

struct Proxy {
    answers: mpsc::Sender<weft::Answer>,
    questions: Streaming<weft::Question>,
}

impl Proxy {
    async fn introduce(&self, workload: &str, version: &str) {
        let introduction =
            Introduction { workload: workload.to_owned(), version: version.to_owned(), ..Introduction::default() };
        self.say(0, Some(Message::Introduction(introduction))).await;
    }

    async fn say(&self, number: u64, answer: Option<Message>) {
        self.answers.send(weft::Answer { number, answer }).await.unwrap();
    }

    async fn question(&mut self) -> (u64, Question) {
        let question = soon(self.questions.message()).await.unwrap().expect("the stream goes on");
        (question.number, question.question.expect("every question asks something"))
    }

    async fn end(&mut self) -> Status {
        soon(self.questions.message()).await.expect_err("the stream is ended with a reason")
    }
}

#[tokio::test]
async fn a_connected_proxy_is_asked_and_its_answer_is_handed_on() {
    let mut bench = Bench::start().await;
    let mut proxy = bench.proxy("orders-1", "1").await;
    let set = Question::SetLogLevel(SetLogLevel { level: "debug".to_owned() });
    let [first, second] = [set.clone(), Question::ReadConfiguration(ReadConfiguration {})]
        .map(|question| bench.ask("default/orders-1", question));
    let mut asked = [proxy.question().await, proxy.question().await];
    // In any order.
    asked.sort_by_key(|(_, question)| *question != set);
    for (data, is_last) in [(&b"{"[..], false), (b"}", true)] {
        let part = ConfigurationPart { data: data.to_vec(), is_last };
        proxy.say(asked[1].0, Some(Message::Configuration(part))).await;
    }
    proxy.say(asked[0].0, Some(level("debug"))).await;
    assert_eq!(soon(second).await.unwrap(), Ok(Answer::Configuration(b"{}".to_vec())));
    assert_eq!(soon(first).await.unwrap(), Ok(Answer::LogLevel(LevelFilter::DEBUG)));

    let refused = bench.ask("default/orders-1", read_level());
    let (number, _) = proxy.question().await;
    proxy.say(number, Some(Message::Refusal("no log".to_owned()))).await;
    assert_eq!(soon(refused).await.unwrap(), Err(AskError::Refused("no log".to_owned())));
}

#[tokio::test]
async fn of_several_programs_the_newest_is_asked_and_the_oldest_goes() {
    let mut bench = Bench::start().await;
    let mut proxies = Vec::new();
    for version in ["1", "2", "3", "4"] {
        proxies.push(bench.proxy("orders-1", version).await);
    }
    let answer = bench.ask("default/orders-1", read_level());
    let (number, _) = proxies[3].question().await;
    proxies[3].say(number, Some(level("info"))).await;
    assert_eq!(soon(answer).await.unwrap(), Ok(Answer::LogLevel(LevelFilter::INFO)));

    let fifth = bench.proxy("orders-1", "5").await;
    assert_eq!(proxies[0].end().await.code(), Code::Aborted);
    drop(fifth);
    until("the one before is the newest", || bench.operations.proxies()[0].introduction.version == "4").await;
}

#[tokio::test]
async fn whoever_asks_is_told_why_there_is_no_answer() {
    let mut bench = Bench::start().await;
    let ask = |workload, limit| bench.operations.ask(workload, read_level(), limit);
    assert_eq!(ask("default/orders-1", PATIENCE).await, Err(AskError::NotConnected));
    let mut proxy = bench.proxy("orders-1", "1").await;
    let short = Duration::from_millis(20);
    assert_eq!(ask("default/orders-1", short).await, Err(AskError::Late(short)));
    assert_eq!(ask("default/orders-2", PATIENCE).await, Err(AskError::NotConnected));
    assert_eq!(ask("other/orders-1", PATIENCE).await, Err(AskError::NotConnected));

    // A late answer is no offence.
    let (number, _) = proxy.question().await;
    proxy.say(number, Some(level("info"))).await;
    let answer = bench.ask("default/orders-1", read_level());
    let (number, _) = proxy.question().await;
    proxy.say(number, Some(level("warn"))).await;
    assert_eq!(soon(answer).await.unwrap(), Ok(Answer::LogLevel(LevelFilter::WARN)));

    // One that answers nothing is asked only so much.
    let mut waiting = Vec::new();
    for _ in 0..MOST_UNANSWERED {
        waiting.push(bench.ask("default/orders-1", read_level()));
        proxy.question().await;
    }
    assert_eq!(bench.operations.ask("default/orders-1", read_level(), PATIENCE).await, Err(AskError::Busy));
    drop(proxy);
    assert_eq!(soon(waiting.remove(0)).await.unwrap(), Err(AskError::Gone));
}

#[tokio::test]
async fn a_proxy_that_says_what_nobody_asked_is_cut_off() {
    let mut bench = Bench::start().await;
    let endless = Message::Configuration(ConfigurationPart { data: vec![b' '; 64 << 10], is_last: false });
    for (message, expected) in [
        (Some(level("info")), "form of its question"),
        (Some(Message::Introduction(Introduction::default())), "form of its question"),
        (None, "form of its question"),
        (Some(endless), "longer than"),
    ] {
        // Unasked.
        let mut proxy = bench.proxy("orders-1", "1").await;
        proxy.say(1, message.clone()).await;
        let end = proxy.end().await;
        assert!(end.code() == Code::InvalidArgument && end.message().contains("was not asked"), "{message:?}: {end}");
        until("it is gone", || bench.operations.proxies().is_empty()).await;

        // Asked for something else, or for less.
        let mut proxy = bench.proxy("orders-1", "2").await;
        let answer = bench.ask("default/orders-1", Question::ReadConfiguration(ReadConfiguration {}));
        let (number, _) = proxy.question().await;
        let answers = proxy.answers.clone();
        let repeated = weft::Answer { number, answer: message.clone() };
        bench.tasks.spawn(async move { while answers.send(repeated.clone()).await.is_ok() {} });
        let end = proxy.end().await;
        assert!(end.code() == Code::InvalidArgument && end.message().contains(expected), "{message:?}: {end}");
        assert_eq!(soon(answer).await.unwrap(), Err(AskError::Gone));
        until("it is gone", || bench.operations.proxies().is_empty()).await;
    }
    let mut proxy = bench.proxy("orders-1", "3").await;
    proxy.say(1, Some(Message::Refusal("x".repeat(LARGEST_MESSAGE)))).await;
    assert_eq!(proxy.end().await.code(), Code::OutOfRange);
}

#[tokio::test]
async fn only_the_workloads_own_account_may_introduce_it() {
    let bench = Bench::start().await;
    let Err(status) = bench.open(None).await else { panic!("the stream is open") };
    assert_eq!(status.code(), Code::Unauthenticated);
    for (account, first, expected) in [
        ("frontend", "orders-1", Code::PermissionDenied),
        ("orders", "other/orders-1", Code::InvalidArgument),
        ("orders", "", Code::InvalidArgument),
    ] {
        let mut proxy = bench.open(Some(account)).await.unwrap();
        proxy.introduce(first, "1").await;
        assert_eq!(proxy.end().await.code(), expected, "{account} {first}");
    }
    let mut proxy = bench.open(Some("orders")).await.unwrap();
    proxy.say(0, Some(level("info"))).await;
    assert_eq!(proxy.end().await.code(), Code::InvalidArgument);
    assert_eq!(bench.operations.proxies(), []);
}

#[tokio::test]
async fn a_workload_that_turns_out_to_be_anothers_is_not_asked_of_who_came_first() {
    let bench = Bench::start().await;
    let _impostor = bench.proxy("payments-1", "1").await;
    let own = Own { account: "payments".into(), resources: Vec::new() };
    bench.world.put(2, Vec::new(), BTreeMap::from([(WorkloadKey::new("default", "payments-1"), own)]));
    let found = bench.operations.ask("default/payments-1", read_level(), PATIENCE).await;
    assert_eq!(found, Err(AskError::NotConnected));
}

#[tokio::test]
async fn a_thousand_streams_cost_the_others_nothing() {
    let mut bench = Bench::start().await;
    let mut good = bench.proxy("orders-2", "1").await;
    // As many as one connection may have are open, most of one workload and some silent.
    let mut crowd = Vec::new();
    for index in 0..1000 {
        let (answers, outgoing) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert("account", "orders".parse().unwrap());
        if index % 5 != 0 {
            let introduction = Introduction { workload: "orders-1".to_owned(), ..Introduction::default() };
            answers.try_send(weft::Answer { number: 0, answer: Some(Message::Introduction(introduction)) }).unwrap();
        }
        let mut client = bench.client.clone();
        crowd.push(answers);
        bench.tasks.spawn(async move {
            let Ok(questions) = client.serve(request).await else { return };
            let mut questions = questions.into_inner();
            while let Ok(Some(_)) = questions.message().await {}
        });
    }
    until("the crowd is there", || bench.operations.streams.count("default/orders-1") > 0).await;
    let answer = bench.ask("default/orders-2", read_level());
    let (number, _) = good.question().await;
    good.say(number, Some(level("info"))).await;
    assert_eq!(soon(answer).await.unwrap(), Ok(Answer::LogLevel(LevelFilter::INFO)));
    until("the surplus is gone", || bench.operations.streams.count("default/orders-1") <= 4).await;
}

#[tokio::test]
async fn a_stream_without_an_introduction_ends() {
    let bench = Bench::over(World::new(), Duration::from_millis(50)).await;
    let mut silent = bench.open(Some("orders")).await.unwrap();
    assert_eq!(silent.end().await.code(), Code::DeadlineExceeded);
    // Nobody knows yet whose a workload is.
    let mut early = bench.open(Some("orders")).await.unwrap();
    early.introduce("orders-1", "1").await;
    assert_eq!(early.end().await.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let bench = Bench::start().await;
    let mut proxy = bench.proxy("orders-1", "1").await;
    bench.stop.send_replace(true);
    assert_eq!(proxy.end().await.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_program_is_given_whole_and_to_those_with_a_certificate_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = crate::programs::tests::file(directory.path(), "program", 62, &vec![7; 100_000]);
    let programs = Programs::open(std::slice::from_ref(&path)).unwrap();
    let digest = programs.facts().next().unwrap().digest.clone();
    let world = World::new();
    let (_stop, stopped) = watch::channel(false);
    let service = OperationsService::new(Arc::clone(&world), Operations::new(world), identify, stopped)
        .offering(Downloads::new(programs));
    let ask = async |account: Option<&str>, digest: &str| {
        let mut request = Request::new(ProgramRequest { digest: digest.to_owned() });
        if let Some(account) = account {
            request.metadata_mut().insert("account", account.parse().unwrap());
        }
        service.program(request).await
    };
    let chunks: Vec<_> = ask(Some("orders"), &digest).await.unwrap().into_inner().collect().await;
    let whole: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap().data).collect();
    assert_eq!(whole, std::fs::read(path).unwrap());
    assert_eq!(ask(None, &digest).await.err().map(|status| status.code()), Some(Code::Unauthenticated));
    assert_eq!(ask(Some("orders"), "ab").await.err().map(|status| status.code()), Some(Code::NotFound));
}

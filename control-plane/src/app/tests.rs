//! A control plane in this process, asked over its socket.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use tokio::sync::oneshot;
use tonic::Code;
use tracing::level_filters::LevelFilter;
use weft_proto::weft::{
    ApplyRequest, ApplyResponse, CreateTokenRequest, DeleteRequest, DocumentName, GetRequest, LogLevelRequest,
    ProxyConfigurationRequest, ProxyStatus, Source, StatusRequest,
};

use super::*;
use crate::cli::{Client, connect};
use crate::manage::asking::Asking;
use crate::manage::{Token, notes};
use crate::serve::operations::{Answer, AskError, Question};

/// What was published: revision, shared resources that changed, workloads.
type Published = Arc<Mutex<Vec<(u64, usize, usize)>>>;

struct Running {
    directory: tempfile::TempDir,
    published: Published,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<Result<(), AppError>>,
}

struct FixedFacts;

impl Facts for FixedFacts {
    fn trust_domain(&self) -> String {
        "shop.local".into()
    }
    fn root_expires_at(&self) -> i64 {
        42
    }
    fn proxies(&self) -> Vec<ProxyStatus> {
        ["shop/b", "shop/a"].map(|workload| ProxyStatus { workload: workload.into(), ..ProxyStatus::default() }).into()
    }
    fn programs(&self) -> Vec<weft_proto::weft::ProxyProgram> {
        Vec::new()
    }
    fn detected(&self) -> Vec<(String, String)> {
        vec![("shop/mail:25".into(), "server_first".into())]
    }
    fn configuration(&self, _: &str) -> Option<crate::manage::view::Configuration> {
        None
    }
    fn ask<'a>(&'a self, workload: &'a str, question: Question) -> Asking<'a> {
        Box::pin(std::future::ready(match (workload, question) {
            ("shop/a", Question::ReadLogLevel(_)) => Ok(Answer::LogLevel(LevelFilter::WARN)),
            ("shop/a", Question::SetLogLevel(set)) => Ok(Answer::LogLevel(set.level.parse().unwrap())),
            ("shop/a", Question::ReadConfiguration(_)) => Ok(Answer::Configuration(b"{}".to_vec())),
            ("shop/b", _) => Err(AskError::Refused("no log was started".into())),
            _ => Err(AskError::NotConnected),
        }))
    }
    fn create_token(&self, namespace: &str, service_account: &str, life: Duration) -> Result<Token, String> {
        match service_account {
            "root" => Err("no token for root".into()),
            account => Ok(Token { text: format!("{namespace}/{account}/{}", life.as_secs()), expires_at: 7 }),
        }
    }
}

fn parts(published: Published) -> Parts {
    Parts {
        publish: Box::new(move |revision, change| {
            published.lock().unwrap().push((revision, change.shared.len(), change.own.len()));
        }),
        verdicts: Arc::default(),
        facts: Arc::new(FixedFacts),
        upgrade: Box::new(|_| Box::pin(std::future::pending())),
        serve: Box::new(|listener, mut stop| {
            Box::pin(async move {
                let _listener = listener;
                let _ = stop.wait_for(|stop| *stop).await;
                Ok(())
            })
        }),
    }
}

fn settings(data: &Path) -> Settings {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Settings { data: data.to_owned(), listen, config_dir: None, proxy_programs: Vec::new() }
}

impl Running {
    async fn start(directory: tempfile::TempDir, config_dir: Option<PathBuf>) -> Self {
        let published = Published::default();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let settings = Settings { config_dir, ..settings(directory.path()) };
        let assembled = parts(Arc::clone(&published));
        let task = tokio::spawn(run(
            settings,
            move |_| Ok(assembled),
            move |_| ready.send(()).unwrap_or_default(),
            async move { drop(stopped.await) },
        ));
        assert!(is_ready.await.is_ok(), "it did not start: {:?}", task.await);
        Self { directory, published, stop: Some(stop), task }
    }

    async fn client(&self) -> Client {
        connect(self.directory.path()).await.unwrap()
    }

    async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        self.task.await.unwrap().unwrap();
        self.directory
    }
}

async fn fresh() -> Running {
    Running::start(tempfile::tempdir().unwrap(), None).await
}

const ORDERS: &str = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: orders}\nspec: {ports: [{port: 80}], selector: {app: orders}}\n";
const ORDERS_1: &str = "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {name: orders-1, labels: {app: orders}}\nspec: {addresses: [10.97.0.5]}\n";

fn request(text: &str, dry_run: bool) -> ApplyRequest {
    ApplyRequest { sources: vec![Source { name: "a.yaml".into(), text: text.into() }], author: "test".into(), dry_run }
}

fn actions(response: &ApplyResponse) -> Vec<String> {
    response.changes.iter().map(|change| format!("{} {}", change.name, change.action)).collect()
}

/// Polls what another task brings about.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), met).await.is_ok(), "{what}: not within 20 s");
}

#[tokio::test]
async fn what_is_applied_is_stored_compiled_and_shown() {
    let running = fresh().await;
    let mut client = running.client().await;
    let response = client.apply(request(ORDERS, false)).await.unwrap();
    assert_eq!(notes(response.metadata()), ["Service default/orders: its selector app=orders selects no workload yet"]);
    assert_eq!(actions(response.get_ref()), ["orders created"]);
    assert_eq!(response.get_ref().revision, 1);
    let both = format!("{ORDERS}---\n{ORDERS_1}");
    let response = client.apply(request(&both, false)).await.unwrap();
    assert_eq!(notes(response.metadata()), [""; 0]);
    assert_eq!(actions(response.get_ref()), ["orders unchanged", "orders-1 created"]);
    until("publication", || running.published.lock().unwrap().last() == Some(&(2, 2, 1))).await;
    assert_eq!(running.published.lock().unwrap()[0], (0, 0, 0));

    let found = client.get(GetRequest::default()).await.unwrap().into_inner();
    assert_eq!(found.revision, 2);
    let names: Vec<(&str, u64)> = found.documents.iter().map(|d| (d.name.as_str(), d.revision)).collect();
    assert_eq!(names, [("orders", 1), ("orders-1", 2)]);
    let json: serde_json::Value = serde_json::from_str(&found.documents[0].json).unwrap();
    assert!(json["spec"]["addresses"][0].as_str().unwrap().starts_with("10.96."), "{json}");
    let one = GetRequest { kind: "workloads".into(), namespace: "default".into(), name: "orders-1".into() };
    assert_eq!(client.get(one).await.unwrap().into_inner().documents.len(), 1);
    let unknown = client.get(GetRequest { kind: "servce".into(), ..GetRequest::default() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    assert!(unknown.message().contains("did you mean `Service`?"), "{unknown}");
    running.stop().await;
}

#[tokio::test]
async fn a_batch_with_problems_is_refused_line_by_line_and_stores_nothing() {
    let running = fresh().await;
    let mut client = running.client().await;
    let text = format!("{ORDERS}---\n{}---\n{}", ORDERS_1.replace("10.97.0.5", "nonsense"), ORDERS.replace("80", "0"));
    let refusal = client.apply(request(&text, false)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    let lines: Vec<&str> = refusal.message().lines().collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].starts_with("a.yaml:9:20: Workload default/orders-1: spec.addresses[0]: "), "{lines:#?}");
    assert!(lines[1].starts_with("a.yaml:14:23: Service default/orders: spec.ports[0].port: "), "{lines:#?}");
    assert_eq!(client.get(GetRequest::default()).await.unwrap().into_inner().documents.len(), 0);
    running.stop().await;
}

#[tokio::test]
async fn thousands_of_problems_still_arrive_as_an_answer() {
    let running = fresh().await;
    let mut client = running.client().await;
    let bad = ORDERS.replace("port: 80", "\"`<{}>%`\": 1");
    let text = vec![bad.as_str(); 2_000].join("---\n");
    let refusal = client.apply(request(&text, false)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
    assert!(refusal.message().lines().last().unwrap().starts_with("... and "), "{refusal}");
    running.stop().await;
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let running = fresh().await;
    let mut client = running.client().await;
    let response = client.apply(request(ORDERS, true)).await.unwrap();
    assert_eq!(actions(response.get_ref()), ["orders created"]);
    assert_eq!(response.get_ref().revision, 0);
    assert_eq!(notes(response.metadata()).len(), 1);
    assert_eq!(client.get(GetRequest::default()).await.unwrap().into_inner().documents.len(), 0);
    running.stop().await;
}

#[tokio::test]
async fn deleting_names_what_is_missing_or_deletes_all() {
    let running = fresh().await;
    let mut client = running.client().await;
    client.apply(request(&format!("{ORDERS}---\n{ORDERS_1}"), false)).await.unwrap();
    let name = |kind: &str, name: &str| DocumentName { kind: kind.into(), namespace: String::new(), name: name.into() };
    let delete = |documents: Vec<DocumentName>| DeleteRequest { documents, author: "test".into() };
    let refusal = client.delete(delete(vec![name("Service", "orders"), name("Service", "x")])).await.unwrap_err();
    assert_eq!(refusal.code(), Code::NotFound);
    assert!(refusal.message().starts_with("Service default/x does not exist"), "{refusal}");
    let response =
        client.delete(delete(vec![name("svc", "orders"), name("Workload", "orders-1")])).await.unwrap().into_inner();
    assert_eq!((response.revision, response.changes.len()), (2, 2));
    assert_eq!(client.get(GetRequest::default()).await.unwrap().into_inner().documents.len(), 0);
    running.stop().await;
}

#[tokio::test]
async fn the_status_tells_facts_counts_and_problems_of_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config");
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("a.yaml"), ORDERS.replace("80", "0")).unwrap();
    let running = Running::start(directory, Some(config.clone())).await;
    let mut client = running.client().await;
    let response = client.status(StatusRequest {}).await.unwrap();
    let problems = notes(response.metadata());
    assert!(problems.len() == 1 && problems[0].contains("a.yaml:4:23: Service default/orders"), "{problems:?}");
    let status = response.into_inner();
    assert_eq!((status.trust_domain.as_str(), status.root_expires_at, status.revision), ("shop.local", 42, 0));
    let order: Vec<&str> = status.proxies.iter().map(|proxy| proxy.workload.as_str()).collect();
    assert_eq!(order, ["shop/a", "shop/b"]);
    std::fs::write(config.join("a.yaml"), ORDERS).unwrap();
    // Four resources of its port, and the destinations of its two addresses.
    until("the file's repair", || running.published.lock().unwrap().last() == Some(&(1, 6, 0))).await;
    let status = client.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.documents["Service"], 1);
    running.stop().await;
}

#[tokio::test]
async fn tokens_come_from_the_authority_with_defaults_filled_in() {
    let running = fresh().await;
    let mut client = running.client().await;
    let ask = |account: &str| CreateTokenRequest {
        namespace: String::new(),
        service_account: account.into(),
        ttl_seconds: 0,
    };
    let made = client.create_token(ask("orders")).await.unwrap().into_inner();
    assert_eq!((made.token.as_str(), made.expires_at), ("default/orders/3600", 7));
    let refusal = client.create_token(ask("root")).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (Code::InvalidArgument, "no token for root"));
    assert_eq!(client.create_token(ask("")).await.unwrap_err().code(), Code::InvalidArgument);
    running.stop().await;
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_and_goes_with_the_control_plane() {
    let running = fresh().await;
    let socket = running.directory.path().join("api.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let directory = running.stop().await;
    assert!(!socket.exists());
    let refusal = connect(directory.path()).await.unwrap_err().to_string();
    assert!(refusal.starts_with("no control plane is running at "), "{refusal}");
    // One that was killed leaves its socket behind; the next takes its place.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(connect(directory.path()).await.unwrap_err().to_string().starts_with("no control plane is running at "));
    let running = Running::start(directory, None).await;
    running.client().await.status(StatusRequest {}).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn what_keeps_it_from_running_is_told_in_one_line_with_a_remedy() {
    let running = fresh().await;
    let refused = async |settings: Settings| {
        let error = run(settings, |_| Ok(parts(Published::default())), |_| {}, async {}).await.unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    let second = refused(settings(running.directory.path())).await;
    assert!(second.contains(&format!("pid {}", std::process::id())) && second.contains("--data"), "{second}");

    let elsewhere = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let in_use = refused(Settings { listen, ..settings(elsewhere.path()) }).await;
    assert!(in_use.contains(&listen.to_string()) && in_use.contains("--listen"), "{in_use}");

    let config_dir = Some(elsewhere.path().join("missing"));
    let no_config = refused(Settings { config_dir, ..settings(elsewhere.path()) }).await;
    assert!(no_config.contains("missing") && no_config.contains("--config-dir"), "{no_config}");

    let deep = elsewhere.path().join("x".repeat(120));
    let too_long = refused(settings(&deep)).await;
    assert!(too_long.contains("shorter directory with --data"), "{too_long}");
    running.stop().await;
}

#[tokio::test]
async fn a_part_that_ends_takes_the_control_plane_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let assemble = |_: &Settings| {
        let serve: Box<dyn FnOnce(TcpListener, Stop) -> Serving + Send> =
            Box::new(|_, _| Box::pin(async { Err("no key".to_owned()) }));
        Ok(Parts { serve, ..parts(Published::default()) })
    };
    let never = std::future::pending();
    let error = run(settings(directory.path()), assemble, |_| {}, never).await.unwrap_err();
    assert_eq!(error.to_string(), "the server for proxies ended: no key");
}

#[tokio::test]
async fn a_proxy_is_asked_through_the_control_plane() {
    let running = fresh().await;
    let mut client = running.client().await;
    let request = |workload: &str, level: &str| LogLevelRequest {
        workload: workload.into(),
        level: level.into(),
        author: "test".into(),
    };
    for (workload, level, expected) in [
        ("shop/a", "", Ok("warn")),
        ("shop/a", "debug", Ok("debug")),
        ("shop/a", "5", Err(Code::InvalidArgument)),
        ("shop/b", "debug", Err(Code::FailedPrecondition)),
        ("shop/c", "", Err(Code::NotFound)),
    ] {
        let answer = client.log_level(request(workload, level)).await;
        let answer = answer.map(|answer| answer.into_inner().level).map_err(|status| status.code());
        assert_eq!(answer, expected.map(str::to_owned), "{workload} {level}");
    }
    let request = |workload: &str| ProxyConfigurationRequest { workload: workload.into() };
    assert_eq!(client.proxy_configuration(request("shop/a")).await.unwrap().into_inner().json, "{}");
    let refusal = client.proxy_configuration(request("shop/b")).await.unwrap_err();
    assert_eq!(refusal.message(), "shop/b: its proxy refused: no log was started");
    running.stop().await;
}

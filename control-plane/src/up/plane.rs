//! The control plane of this mesh: its process, and what is asked of it.

pub(super) mod process;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use weft_proto::weft::management_client::ManagementClient;
use weft_proto::weft::{
    ApplyRequest, CreateTokenRequest, DeleteRequest, DocumentName, GetRequest, Source, StatusRequest, StatusResponse,
};
use weft_proxy::clock;

use super::file::PortProtocol;

pub(super) const NAMESPACE: &str = "default";
const AUTHOR: &str = "weft up";
const API_VERSION: &str = "weft.dev/v1alpha1";
/// One answer of the control plane.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may be away (starting again, say) before a request fails.
const AWAY: Duration = Duration::from_secs(20);
/// The same for who has other things to do and asks again later.
const AWAY_BRIEFLY: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(100);

/// A request the control plane refused or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the control plane: {doing}: {}", .status.message())]
pub struct PlaneError {
    doing: String,
    status: Box<Status>,
}

/// A client of the control plane on this machine.
#[derive(Debug, Clone)]
pub(super) struct Plane {
    client: ManagementClient<Channel>,
    patience: Duration,
}

/// Whether a workload takes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkloadState {
    Ready,
    Draining,
    Unhealthy,
}

/// What a Workload document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WorkloadDocument {
    pub(super) name: String,
    pub(super) service: String,
    pub(super) addresses: Vec<IpAddr>,
    /// (target port, where it is really reached)
    pub(super) advertise: Option<(u16, String)>,
    /// The port its application listens on, where that is not the target port: (port, protocol).
    ///
    /// A proxy passes connections on to the port of a listener, and listeners come from services; so this port gets a
    /// service of its own, named like the workload and of no use to anybody else.
    pub(super) own_port: Option<(u16, PortProtocol)>,
}

impl WorkloadDocument {
    fn texts(&self, state: WorkloadState) -> Vec<String> {
        std::iter::once(self.workload(state)).chain(self.own_service()).collect()
    }

    fn own_service(&self) -> Option<String> {
        let (port, protocol) = self.own_port?;
        let spec = json!({
            "ports": [{"name": "main", "port": port, "targetPort": port, "protocol": protocol.name()}],
            "selector": {"workload": self.name},
        });
        Some(document("Service", &json!({"name": self.name, "namespace": NAMESPACE}), &spec))
    }

    fn workload(&self, state: WorkloadState) -> String {
        let state = match state {
            WorkloadState::Ready => "ready",
            WorkloadState::Draining => "draining",
            WorkloadState::Unhealthy => "unhealthy",
        };
        let mut spec = json!({"addresses": self.addresses, "serviceAccount": self.service, "state": state});
        if let Some((port, at)) = &self.advertise {
            spec["advertise"] = json!([{"port": port, "at": at}]);
        }
        let mut labels = json!({"app": self.service});
        if self.own_port.is_some() {
            labels["workload"] = json!(self.name);
        }
        document("Workload", &json!({"name": self.name, "namespace": NAMESPACE, "labels": labels}), &spec)
    }
}

/// A document of ours as text; JSON is YAML.
pub(super) fn document(kind: &str, metadata: &serde_json::Value, spec: &serde_json::Value) -> String {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}).to_string()
}

/// A service's names and virtual addresses, as the control plane has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownService {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) addresses: Vec<IpAddr>,
}

impl Plane {
    /// A client that connects when first used, and again whenever it must.
    pub(super) fn connect(socket: PathBuf) -> Self {
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let channel = Endpoint::from_static("http://control-plane.weft").connect_with_connector_lazy(connector);
        Self { client: ManagementClient::new(channel).max_decoding_message_size(64 << 20), patience: AWAY }
    }

    /// The same client for who must not be kept waiting while the control plane is away.
    pub(super) fn impatient(&self) -> Self {
        Self { patience: AWAY_BRIEFLY, ..self.clone() }
    }

    /// Asks, and asks again while the control plane is away.
    async fn ask<T, F: Future<Output = Result<tonic::Response<T>, Status>>>(
        &self,
        doing: impl FnOnce() -> String,
        mut request: impl FnMut(ManagementClient<Channel>) -> F,
    ) -> Result<T, PlaneError> {
        let deadline = clock::now() + self.patience;
        loop {
            let answer = timeout(ANSWER, request(self.client.clone())).await;
            let status = match answer {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::unavailable(format!("no answer within {ANSWER:?}")),
            };
            if status.code() != Code::Unavailable || clock::now() > deadline {
                return Err(PlaneError { doing: doing(), status: Box::new(status) });
            }
            sleep(RETRY).await;
        }
    }

    /// Stores documents and says which revision they are in.
    pub(super) async fn apply(&self, what: &str, documents: &[String]) -> Result<u64, PlaneError> {
        let request = ApplyRequest {
            sources: vec![Source { name: what.to_owned(), text: documents.join("\n---\n") }],
            author: AUTHOR.to_owned(),
            dry_run: false,
        };
        let ask = |mut client: ManagementClient<Channel>| {
            let request = request.clone();
            async move { client.apply(request).await }
        };
        Ok(self.ask(|| format!("storing {what}"), ask).await?.revision)
    }

    pub(super) async fn apply_workload(
        &self,
        workload: &WorkloadDocument,
        state: WorkloadState,
    ) -> Result<u64, PlaneError> {
        self.apply(&format!("workload {}", workload.name), &workload.texts(state)).await
    }

    pub(super) async fn delete_workload(&self, workload: &WorkloadDocument) -> Result<(), PlaneError> {
        let name = std::slice::from_ref(&workload.name);
        self.delete("Workload", name).await?;
        if workload.own_port.is_some() { self.delete("Service", name).await } else { Ok(()) }
    }

    /// Deletes documents; those that are gone already are no failure.
    pub(super) async fn delete(&self, kind: &str, names: &[String]) -> Result<(), PlaneError> {
        for name in names {
            let name = DocumentName { kind: kind.to_owned(), namespace: NAMESPACE.to_owned(), name: name.clone() };
            let request = DeleteRequest { documents: vec![name.clone()], author: AUTHOR.to_owned() };
            let ask = |mut client: ManagementClient<Channel>| {
                let request = request.clone();
                async move { client.delete(request).await }
            };
            match self.ask(|| format!("deleting {kind} {}", name.name), ask).await {
                Err(error) if error.status.code() != Code::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The names of all documents of a kind in our namespace.
    pub(super) async fn names(&self, kind: &str) -> Result<Vec<String>, PlaneError> {
        let documents = self.get(kind, NAMESPACE).await?;
        Ok(documents.into_iter().map(|document| document.name).collect())
    }

    pub(super) async fn services(&self) -> Result<Vec<KnownService>, PlaneError> {
        #[derive(Deserialize)]
        struct Service {
            spec: Spec,
        }
        #[derive(Deserialize)]
        struct Spec {
            #[serde(default)]
            addresses: Vec<IpAddr>,
        }
        let documents = self.get("Service", "").await?;
        let known = documents.into_iter().filter_map(|document| {
            // A newer control plane may say more than we know; a service we cannot read only lacks its name.
            let Service { spec } = serde_json::from_str(&document.json).ok()?;
            Some(KnownService { name: document.name, namespace: document.namespace, addresses: spec.addresses })
        });
        Ok(known.collect())
    }

    async fn get(&self, kind: &str, namespace: &str) -> Result<Vec<weft_proto::weft::Document>, PlaneError> {
        let request = GetRequest { kind: kind.to_owned(), namespace: namespace.to_owned(), name: String::new() };
        let ask = |mut client: ManagementClient<Channel>| {
            let request = request.clone();
            async move { client.get(request).await }
        };
        Ok(self.ask(|| format!("reading documents of kind {kind}"), ask).await?.documents)
    }

    pub(super) async fn token(&self, service_account: &str) -> Result<String, PlaneError> {
        let request = CreateTokenRequest {
            namespace: NAMESPACE.to_owned(),
            service_account: service_account.to_owned(),
            ttl_seconds: 0,
        };
        let ask = |mut client: ManagementClient<Channel>| {
            let request = request.clone();
            async move { client.create_token(request).await }
        };
        Ok(self.ask(|| format!("making a join token for {service_account}"), ask).await?.token)
    }

    /// One question without patience: for waiting until it is up, and for looking now and then.
    pub(super) async fn status(&self) -> Result<StatusResponse, PlaneError> {
        let mut client = self.client.clone();
        let answer = timeout(ANSWER, client.status(StatusRequest {})).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::unavailable(format!("no answer within {ANSWER:?}"))));
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| PlaneError { doing: "reading its status".to_owned(), status: Box::new(status) })
    }

    /// Waits until every proxy but `leaving` has applied `revision`, at most `patience`.
    pub(super) async fn wait_applied(&self, revision: u64, leaving: &str, patience: Duration) {
        let leaving = format!("{NAMESPACE}/{leaving}");
        let applied = async {
            loop {
                let status = self.status().await;
                let behind = |proxy: &weft_proto::weft::ProxyStatus| {
                    proxy.workload != leaving && proxy.applied_revision < revision
                };
                if status.is_ok_and(|status| !status.proxies.iter().any(behind)) {
                    return;
                }
                sleep(RETRY / 2).await;
            }
        };
        timeout(patience, applied).await.ok();
    }
}

/// `/etc/hosts` of a pod: itself, and every service under the names Kubernetes would give it.
pub(super) fn hosts_file(own: &str, own_addresses: &[IpAddr], services: &[KnownService]) -> String {
    use std::fmt::Write as _;
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    for address in own_addresses {
        writeln!(text, "{address} {own}").ok();
    }
    let sorted: BTreeMap<_, _> = services.iter().map(|known| ((&known.namespace, &known.name), known)).collect();
    for ((namespace, name), known) in sorted {
        let short = if namespace == NAMESPACE { format!("{name} ") } else { String::new() };
        for address in &known.addresses {
            writeln!(
                text,
                "{address} {short}{name}.{namespace} {name}.{namespace}.svc {name}.{namespace}.svc.cluster.local"
            )
            .ok();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_every_service_the_way_kubernetes_does() {
        let service = |namespace: &str, name: &str, address: &str| KnownService {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            addresses: vec![address.parse().unwrap()],
        };
        let services = [service("default", "orders", "fd57::2"), service("other", "db", "10.96.0.9")];
        let text = hosts_file("web-1", &["10.97.0.5".parse().unwrap()], &services);
        assert_eq!(
            text.lines().skip(2).collect::<Vec<_>>(),
            [
                "10.97.0.5 web-1",
                "fd57::2 orders orders.default orders.default.svc orders.default.svc.cluster.local",
                "10.96.0.9 db.other db.other.svc db.other.svc.cluster.local",
            ]
        );
    }

    #[test]
    fn a_workload_document_has_the_contracted_shape() {
        let workload = WorkloadDocument {
            name: "web-1".to_owned(),
            service: "web".to_owned(),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            advertise: Some((8080, "127.0.0.1:34567".to_owned())),
            own_port: None,
        };
        let [text] = &workload.texts(WorkloadState::Draining)[..] else { panic!("one document") };
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(
            value,
            json!({
                "apiVersion": "weft.dev/v1alpha1", "kind": "Workload",
                "metadata": {"name": "web-1", "namespace": "default", "labels": {"app": "web"}},
                "spec": {"addresses": ["127.0.0.1"], "serviceAccount": "web", "state": "draining",
                         "advertise": [{"port": 8080, "at": "127.0.0.1:34567"}]},
            })
        );
    }
}

//! Asks a control plane in a cluster: through the API server, with a token of the reader's account, as nothing else
//! of the cluster's network needs to be reachable from here.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_proto::weft::GetRequest;

use super::Failure;
use super::target::Remote;
use crate::kubernetes::install::cluster::{ClusterError, Kind, encoded};
use crate::kubernetes::install::manifests::{COMPONENT_LABEL, NAME_LABEL};
use crate::kubernetes::names;
use crate::manage::view;

/// The shortest life the API server gives a token.
const TOKEN_SECONDS: u32 = 600;

/// One replica's word.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Replica {
    pub pod: String,
    pub status: view::Status,
}

impl Remote {
    /// What each replica of the control plane says of itself: proxies are connected to one of them each.
    pub(super) async fn status(&self) -> Result<Vec<Replica>, Failure> {
        let labels = format!("{NAME_LABEL}={},{COMPONENT_LABEL}=control-plane", names::APP_NAME);
        let pods = self.cluster.list(&Kind::of("Pod"), Some(&self.system_namespace), &labels).await?;
        let pods: Vec<&str> =
            pods.iter().filter(|pod| is_ready(pod)).filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
        if pods.is_empty() {
            return Err(self.absent());
        }
        let token = self.token().await?;
        let mut replicas = Vec::new();
        for pod in pods {
            let path = self.path("pods", &format!("http:{pod}"), "status");
            let status = self.get(&path, &token, &format!("ask the control plane {pod}")).await?;
            replicas.push(Replica { pod: pod.to_owned(), status });
        }
        Ok(replicas)
    }

    /// Documents as the control plane has them: all replicas have the same.
    pub(super) async fn documents(&self, asked: &GetRequest) -> Result<view::Documents, Failure> {
        let token = self.token().await?;
        let GetRequest { kind, namespace, name } = asked;
        let (kind, namespace, name) = (encoded(kind), encoded(namespace), encoded(name));
        let query = format!("documents?kind={kind}&namespace={namespace}&name={name}");
        let path = self.path("services", &format!("http:{}", names::CONTROL_PLANE), &query);
        self.get(&path, &token, "ask the control plane").await
    }

    /// What a proxy is sent, by the replica it is connected to; by another where it is connected to none.
    pub(super) async fn configuration(&self, workload: &str) -> Result<(String, view::Configuration), Failure> {
        let replicas = self.status().await?;
        let has_it = |replica: &&Replica| replica.status.proxies.iter().any(|proxy| proxy.workload == workload);
        let Some(replica) = replicas.iter().find(has_it).or(replicas.first()) else { return Err(self.absent()) };
        let token = self.token().await?;
        let path = self.path("pods", &format!("http:{}", replica.pod), &format!("proxies/{workload}"));
        let header = format!("Bearer {token}");
        let doing = format!("ask the control plane {}", replica.pod);
        let found = self.cluster.read_with(&path, (names::CLI_TOKEN_HEADER, &header), &doing).await;
        match found {
            Ok(value) => Ok((replica.pod.clone(), understood(value)?)),
            // The replica is there, it answered a moment ago: what it does not know is the proxy, or how to tell.
            Err(error) if error.is_not_found() => {
                let mut known: Vec<&str> = replicas
                    .iter()
                    .flat_map(|replica| &replica.status.proxies)
                    .map(|proxy| proxy.workload.as_str())
                    .take(10)
                    .collect();
                known.sort_unstable();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(Failure::new(format!("{}; connected are: {known}", error.message())))
            }
            Err(error) => Err(self.explained(error)),
        }
    }

    fn path(&self, plural: &str, name: &str, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}/{name}:{}/proxy/api/{rest}", self.system_namespace, names::API_PORT)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, token: &str, doing: &str) -> Result<T, Failure> {
        let header = format!("Bearer {token}");
        let value = self.cluster.read_with(path, (names::CLI_TOKEN_HEADER, &header), doing).await;
        let value = value.map_err(|error| self.explained(error))?;
        understood(value)
    }

    /// A token that says to the control plane that we may read.
    async fn token(&self) -> Result<String, Failure> {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", self.system_namespace, names::READER);
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [names::CLI_AUDIENCE], "expirationSeconds": TOKEN_SECONDS},
        });
        let answer = self.cluster.create(&path, &request, "make a token to ask the control plane with").await;
        let answer = answer.map_err(|error| self.explained(error))?;
        let token = answer.pointer("/status/token").and_then(Value::as_str);
        token.map(str::to_owned).ok_or_else(|| Failure::new("the API server made a token without text; try again"))
    }

    /// What the server said, and what to do about it.
    fn explained(&self, error: ClusterError) -> Failure {
        match error.code() {
            Some(404) => self.absent(),
            Some(403) => Failure::new(format!(
                "{error}; have yourself bound to role {} in namespace {}",
                names::READER,
                self.system_namespace
            )),
            Some(503) => Failure::new(format!("{error}; see whether it runs with `weft check`")),
            _ => error.into(),
        }
    }

    fn absent(&self) -> Failure {
        Failure::new(format!(
            "no control plane is ready in namespace {} of {}; see why with `weft check`, or install one with `weft install`",
            self.system_namespace,
            self.cluster.place()
        ))
    }
}

fn understood<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| {
        Failure::new(format!("the control plane is of another version ({error}); update it, or this program"))
    })
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::install::testing::{FakeApi, refusal};

    const HOME: &str = "/api/v1/namespaces/weft-system";

    fn remote(api: &FakeApi) -> Remote {
        Remote { cluster: api.cluster(), system_namespace: "weft-system".into() }
    }

    fn replica(api: &FakeApi, name: &str, is_ready: bool) {
        let ready = if is_ready { "True" } else { "False" };
        let labels = json!({NAME_LABEL: "weft", COMPONENT_LABEL: "control-plane"});
        let pod = json!({
            "metadata": {"name": name, "labels": labels}, "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        api.put(&format!("{HOME}/pods/{name}"), pod);
        let status = json!({
            "version": name, "trustDomain": "d", "startedAt": 1, "revision": 2, "documents": {}, "proxies": [],
            "rootExpiresAt": 3, "detected": {},
        });
        api.put(&format!("{HOME}/pods/http:{name}:15014/proxy/api/status"), status);
    }

    /// Makes tokens that are called `t`.
    fn makes_tokens(api: &FakeApi) {
        api.rule(|asked| {
            (asked.path == format!("{HOME}/serviceaccounts/weft-reader/token"))
                .then(|| (201, json!({"status": {"token": "t"}})))
        });
    }

    #[tokio::test]
    async fn every_ready_replica_is_asked_with_the_readers_token() {
        let api = FakeApi::default();
        makes_tokens(&api);
        for (name, is_ready) in [("a", true), ("b", false), ("c", true)] {
            replica(&api, name, is_ready);
        }
        let replicas = remote(&api).status().await.unwrap();
        assert_eq!(replicas.iter().map(|replica| replica.pod.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(replicas[1].status.version, "c");
        let asked = api.asked();
        let request = asked.iter().find(|asked| asked.path.ends_with("/token")).unwrap();
        assert_eq!(request.body["spec"]["audiences"], json!(["cli.weft.dev"]));
        let proxied: Vec<_> = asked.iter().filter(|asked| asked.path.contains("/proxy/")).collect();
        assert!(!proxied.is_empty() && proxied.iter().all(|asked| asked.headers["weft-authorization"] == "Bearer t"));
    }

    #[tokio::test]
    async fn a_proxys_configuration_is_told_by_the_replica_it_is_connected_to() {
        let api = FakeApi::default();
        makes_tokens(&api);
        for name in ["a", "c"] {
            replica(&api, name, true);
        }
        let proxy = json!({
            "workload": "shop/web-1", "namespace": "shop", "spiffeId": "s", "address": "", "version": "1", "connectedSince": 1,
            "appliedRevision": 2, "pending": 0, "nack": "", "admin": "127.0.0.1:15000",
        });
        let mut status = api.object(&format!("{HOME}/pods/http:c:15014/proxy/api/status")).unwrap();
        status["proxies"] = json!([proxy]);
        api.put(&format!("{HOME}/pods/http:c:15014/proxy/api/status"), status);
        let path = format!("{HOME}/pods/http:c:15014/proxy/api/proxies/shop/web-1");
        let told = json!({
            "workload": "shop/web-1", "revision": 2, "proxy": proxy, "refused": [], "resources": {}, "unreadable": [],
            "config": {"listeners": [], "clusters": []},
        });
        api.put(&path, told);
        let (pod, found) = remote(&api).configuration("shop/web-1").await.unwrap();
        assert_eq!((pod.as_str(), found.revision), ("c", 2));
        api.rule(|asked| {
            asked
                .path
                .ends_with("/shop/nobody")
                .then(|| (404, json!({"message": "no proxy of shop/nobody is connected"})))
        });
        let failure = remote(&api).configuration("shop/nobody").await.unwrap_err().to_string();
        assert_eq!(failure, "no proxy of shop/nobody is connected; connected are: shop/web-1");
    }

    #[tokio::test]
    async fn documents_come_through_the_service() {
        let api = FakeApi::default();
        makes_tokens(&api);
        let path = format!("{HOME}/services/http:weft-control-plane:15014/proxy/api/documents");
        api.put(&path, json!({"revision": 4, "documents": []}));
        let request = GetRequest { kind: "Service".into(), namespace: "shop".into(), name: "a/b".into() };
        let found = remote(&api).documents(&request).await.unwrap();
        assert_eq!(found.revision, 4);
        assert_eq!(api.asked().last().unwrap().query, "kind=Service&namespace=shop&name=a%2Fb");
    }

    #[tokio::test]
    async fn what_keeps_one_from_asking_is_told_with_its_remedy() {
        let api = FakeApi::default();
        let failure = remote(&api).status().await.unwrap_err().to_string();
        assert!(failure.contains("no control plane is ready in namespace weft-system of a test"), "{failure}");
        replica(&api, "a", true);
        api.rule(|asked| asked.path.ends_with("/token").then(|| refusal(403, "cannot create token")));
        let failure = remote(&api).status().await.unwrap_err().to_string();
        assert!(failure.contains("cannot create token; have yourself bound to role weft-reader"), "{failure}");
    }
}

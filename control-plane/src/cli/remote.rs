//! Asks a control plane in a cluster: through the API server, with a token of the reader's account, as nothing else
//! of the cluster's network needs to be reachable from here.

mod proxy;

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_proto::weft::GetRequest;

use super::Failure;
use super::target::Remote;
use crate::kubernetes::install::cluster::{ClusterError, Kind, encoded};
use crate::kubernetes::install::manifests::{COMPONENT_LABEL, NAME_LABEL};
use crate::kubernetes::names;
use crate::manage::view;

pub(super) use proxy::Told;

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

    fn path(&self, plural: &str, name: &str, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}/{name}:{}/proxy/api/{rest}", self.system_namespace, names::API_PORT)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, token: &str, doing: &str) -> Result<T, Failure> {
        let header = format!("Bearer {token}");
        let value = self.cluster.send_with(Method::GET, path, (names::CLI_TOKEN_HEADER, &header), doing).await;
        let value = value.map_err(|error| self.explained(error, names::READER))?;
        understood(value)
    }

    /// A token that says to the control plane that we may read.
    async fn token(&self) -> Result<String, Failure> {
        let answer = self.token_of(names::READER).await;
        made(&answer.map_err(|error| self.explained(error, names::READER))?)
    }

    /// A token that says to the control plane that we may change what proxies do.
    async fn operators_token(&self) -> Result<String, Failure> {
        match self.token_of(names::OPERATOR).await {
            Err(error) if error.is_not_found() => Err(Failure::new(format!(
                "{error}; the installation is of a version without it: update it with `weft upgrade`"
            ))),
            Err(error) => Err(self.explained(error, names::OPERATOR)),
            Ok(answer) => made(&answer),
        }
    }

    async fn token_of(&self, account: &str) -> Result<Value, ClusterError> {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", self.system_namespace);
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [names::CLI_AUDIENCE], "expirationSeconds": TOKEN_SECONDS},
        });
        self.cluster.create(&path, &request, "make a token to ask the control plane with").await
    }

    /// What the server said, and what to do about it; `role` is what one needs for it.
    fn explained(&self, error: ClusterError, role: &str) -> Failure {
        match error.code() {
            Some(404) => self.absent(),
            Some(403) => Failure::new(format!(
                "{error}; have yourself bound to role {role} in namespace {}",
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

fn made(answer: &Value) -> Result<String, Failure> {
    let token = answer.pointer("/status/token").and_then(Value::as_str);
    token.map(str::to_owned).ok_or_else(|| Failure::new("the API server made a token without text; try again"))
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

    pub(super) const HOME: &str = "/api/v1/namespaces/weft-system";

    pub(super) fn remote(api: &FakeApi) -> Remote {
        Remote { cluster: api.cluster(), system_namespace: "weft-system".into() }
    }

    pub(super) fn replica(api: &FakeApi, name: &str, is_ready: bool) {
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

    /// Makes tokens that are called `t`, and `o` for operators.
    pub(super) fn makes_tokens(api: &FakeApi) {
        for (account, token) in [("weft-reader", "t"), ("weft-operator", "o")] {
            api.rule(move |asked| {
                (asked.path == format!("{HOME}/serviceaccounts/{account}/token"))
                    .then(|| (201, json!({"status": {"token": token}})))
            });
        }
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

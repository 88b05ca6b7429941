//! One proxy, by the replica of the control plane that it is connected to.

use http::Method;
use serde_json::Value;

use super::{Remote, Replica, understood};
use crate::cli::Failure;
use crate::kubernetes::install::cluster::{ClusterError, encoded};
use crate::kubernetes::names;
use crate::manage::view;

/// Proxies that are named where one is not there.
const NAMED: usize = 10;

/// What is known of a proxy's configuration.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Told {
    /// The replica that says what the proxy is sent.
    pub replica: String,
    pub sent: view::Configuration,
    /// What the proxy says it runs with, or why it was not asked.
    pub own: Result<Value, String>,
}

impl Remote {
    /// What a proxy is sent, by the replica it is connected to, or another where it is connected to none; and what it runs
    /// with, in its own words.
    pub(in crate::cli) async fn configuration(&self, workload: &str) -> Result<Told, Failure> {
        let replicas = self.replicas_of(workload).await?;
        let Some(replica) = replicas.first() else { return Err(self.absent()) };
        let token = self.token().await?;
        let sent = match self.ask_replica(replica, Method::GET, workload, &token).await {
            Ok(value) => understood(value)?,
            // The replica is there, it answered a moment ago: what it does not know is the proxy, or how to tell.
            Err(error) if error.is_not_found() => {
                return Err(Failure::new(format!("{}; {}", error.message(), connected(&replicas))));
            }
            Err(error) => return Err(self.explained(error, names::READER)),
        };
        let own = self.ask_proxy(&replicas, Method::GET, workload, "configuration", &token, names::READER).await;
        Ok(Told { replica: replica.pod.clone(), sent, own: own.map_err(|failure| failure.to_string()) })
    }

    /// The level of a proxy's log; with a level from now on that one, which needs another role.
    pub(in crate::cli) async fn log_level(
        &self,
        workload: &str,
        level: Option<&str>,
        author: &str,
    ) -> Result<String, Failure> {
        let replicas = self.replicas_of(workload).await?;
        let (method, token, rest, role) = match level {
            None => (Method::GET, self.token().await?, "log-level".to_owned(), names::READER),
            Some(level) => {
                let rest = format!("log-level?level={}&author={}", encoded(level), encoded(author));
                (Method::PUT, self.operators_token().await?, rest, names::OPERATOR)
            }
        };
        let answer = self.ask_proxy(&replicas, method, workload, &rest, &token, role).await?;
        let level = answer["level"].as_str().map(str::to_owned);
        level.ok_or_else(|| Failure::new("the control plane answered without a level; update it, or this program"))
    }

    /// The replicas, the one first that says a proxy is connected to it.
    async fn replicas_of(&self, workload: &str) -> Result<Vec<Replica>, Failure> {
        let mut replicas = self.status().await?;
        replicas.sort_by_key(|replica| !has(replica, workload));
        Ok(replicas)
    }

    /// Asks a proxy by the first replica that can: it may have gone to another meanwhile.
    async fn ask_proxy(
        &self,
        replicas: &[Replica],
        method: Method,
        workload: &str,
        rest: &str,
        token: &str,
        role: &str,
    ) -> Result<Value, Failure> {
        let mut is_old = false;
        for replica in replicas {
            match self.ask_replica(replica, method.clone(), &format!("{workload}/{rest}"), token).await {
                Ok(answer) => return Ok(answer),
                // One that does not know the path has no words either.
                Err(error) if error.is_not_found() => is_old |= error.message().starts_with("404"),
                Err(error) if matches!(error.code(), Some(403 | 503)) => return Err(self.explained(error, role)),
                Err(error) if error.code().is_some() => return Err(Failure::new(error.message())),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Failure::new(if is_old {
            "the control plane is of a version that cannot ask proxies; update it with `weft upgrade`".to_owned()
        } else if replicas.iter().any(|replica| has(replica, workload)) {
            format!(
                "the proxy of {workload} is connected, but cannot be asked: it is of an earlier version (restart its pod), or \
                 has just connected (try again)"
            )
        } else {
            format!("no proxy of {workload} is connected; {}", connected(replicas))
        }))
    }

    async fn ask_replica(
        &self,
        replica: &Replica,
        method: Method,
        rest: &str,
        token: &str,
    ) -> Result<Value, ClusterError> {
        let path = self.path("pods", &format!("http:{}", replica.pod), &format!("proxies/{rest}"));
        let header = format!("Bearer {token}");
        let doing = format!("ask the control plane {}", replica.pod);
        self.cluster.send_with(method, &path, (names::CLI_TOKEN_HEADER, &header), &doing).await
    }
}

fn has(replica: &Replica, workload: &str) -> bool {
    replica.status.proxies.iter().any(|proxy| proxy.workload == workload)
}

fn connected(replicas: &[Replica]) -> String {
    let proxies = replicas.iter().flat_map(|replica| &replica.status.proxies);
    let mut known: Vec<&str> = proxies.map(|proxy| proxy.workload.as_str()).take(NAMED).collect();
    known.sort_unstable();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("connected are: {known}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{HOME, makes_tokens, remote, replica};
    use super::*;
    use crate::kubernetes::install::testing::{FakeApi, refusal};

    const WEB: &str = "shop/web-1";

    /// Replicas `a` and `c`, of which `c` has a proxy of `shop/web-1`.
    fn cluster() -> FakeApi {
        let api = FakeApi::default();
        makes_tokens(&api);
        for name in ["a", "c"] {
            replica(&api, name, true);
        }
        let proxy = json!({
            "workload": WEB, "namespace": "shop", "spiffeId": "s", "address": "", "version": "1", "connectedSince": 1,
            "appliedRevision": 2, "pending": 0, "nack": "", "admin": "127.0.0.1:15000",
        });
        let mut status = api.object(&format!("{HOME}/pods/http:c:15014/proxy/api/status")).unwrap();
        status["proxies"] = json!([proxy]);
        api.put(&format!("{HOME}/pods/http:c:15014/proxy/api/status"), status);
        let sent = json!({
            "workload": WEB, "revision": 2, "proxy": proxy, "refused": [], "resources": {}, "unreadable": [],
            "config": {"listeners": [], "clusters": []},
        });
        api.put(&of("c", WEB), sent);
        api.rule(|asked| {
            let is_known = !asked.path.contains("/shop/") || asked.path.contains("http:c:") && asked.path.contains(WEB);
            (!is_known).then(|| (404, json!({"message": "shop/x: its proxy is not connected here to be asked"})))
        });
        api
    }

    fn of(pod: &str, rest: &str) -> String {
        format!("{HOME}/pods/http:{pod}:15014/proxy/api/proxies/{rest}")
    }

    #[tokio::test]
    async fn a_proxys_configuration_is_told_by_the_replica_it_is_connected_to_and_by_itself() {
        let api = cluster();
        api.put(&of("c", "shop/web-1/configuration"), json!({"version": "1"}));
        let told = remote(&api).configuration(WEB).await.unwrap();
        assert_eq!((told.replica.as_str(), told.sent.revision, told.own), ("c", 2, Ok(json!({"version": "1"}))));
        let failure = remote(&api).configuration("shop/nobody").await.unwrap_err().to_string();
        assert_eq!(failure, "shop/x: its proxy is not connected here to be asked; connected are: shop/web-1");
    }

    #[tokio::test]
    async fn why_a_proxy_was_not_asked_is_told_beside_what_it_is_sent() {
        for (code, body, expected) in [
            (
                404,
                json!({"message": "shop/web-1: its proxy is not connected here"}),
                "is connected, but cannot be asked",
            ),
            (404, json!(""), "the control plane is of a version that cannot ask proxies"),
            (504, json!({"message": "shop/web-1: its proxy did not answer"}), "its proxy did not answer"),
            (409, json!({"message": "shop/web-1: its proxy refused: no"}), "its proxy refused: no"),
        ] {
            let api = cluster();
            api.rule(move |asked| asked.path.ends_with("/configuration").then(|| (code, body.clone())));
            let told = remote(&api).configuration(WEB).await.unwrap();
            let reason = told.own.unwrap_err();
            assert!(reason.contains(expected) && told.sent.revision == 2, "{code}: {reason}");
        }
    }

    #[tokio::test]
    async fn a_proxy_is_found_at_another_replica_than_the_one_it_was_at() {
        let api = cluster();
        api.rule(|asked| {
            let is_there = asked.path.contains("http:a:");
            let found = (200, json!({"workload": WEB, "level": "warn"}));
            let away = (404, json!({"message": "shop/web-1: its proxy is not connected here"}));
            asked.path.ends_with("/log-level").then_some(if is_there { found } else { away })
        });
        assert_eq!(remote(&api).log_level(WEB, None, "cli:me").await, Ok("warn".to_owned()));
    }

    #[tokio::test]
    async fn a_level_is_read_with_the_readers_token_and_changed_with_the_operators() {
        let api = cluster();
        api.put(&of("c", "shop/web-1/log-level"), json!({"workload": WEB, "level": "info"}));
        api.rule(|asked| (asked.method == Method::PUT).then(|| (200, json!({"workload": WEB, "level": "debug"}))));
        let remote = remote(&api);
        assert_eq!(remote.log_level(WEB, None, "cli:me").await, Ok("info".to_owned()));
        assert_eq!(remote.log_level(WEB, Some("debug"), "cli:me").await, Ok("debug".to_owned()));
        let asked = api.asked();
        let asked: Vec<_> = asked.iter().filter(|asked| asked.path.ends_with("/log-level")).collect();
        assert_eq!(asked[0].headers["weft-authorization"], "Bearer t");
        assert_eq!(asked[1].headers["weft-authorization"], "Bearer o");
        assert_eq!(asked[1].query, "level=debug&author=cli%3Ame");

        let failure = remote.log_level("shop/nobody", None, "cli:me").await.unwrap_err().to_string();
        assert_eq!(failure, "no proxy of shop/nobody is connected; connected are: shop/web-1");
        api.rule(|asked| asked.path.ends_with("weft-operator/token").then(|| refusal(403, "cannot create token")));
        let failure = remote.log_level(WEB, Some("debug"), "cli:me").await.unwrap_err().to_string();
        assert!(failure.contains("have yourself bound to role weft-operator in namespace weft-system"), "{failure}");
        api.rule(|asked| asked.path.ends_with("weft-operator/token").then(|| refusal(404, "not found")));
        let failure = remote.log_level(WEB, Some("debug"), "cli:me").await.unwrap_err().to_string();
        assert!(failure.contains("weft upgrade"), "{failure}");
    }
}

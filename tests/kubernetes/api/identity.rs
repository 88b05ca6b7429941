//! Whose tokens are good for a certificate: the API server says it, and the control plane asks.

use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::ResourceExt;
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};
use weft_tests::kubernetes::Cluster;
use weft_tests::kubernetes::servers::ISSUER;
use weft_tests::process::{Process, command, program, wall};

use super::{SYSTEM, apply, idle, is_ready, log_of, mesh, nothing_was_forbidden, replicas};

/// A proxy beside the pods, which shows a token as one in a pod does.
struct ByHand(Process);

impl ByHand {
    fn start(cluster: &Cluster, name: &str, token: &str) -> Self {
        let place = cluster.place().join("by-hand").join(name);
        std::fs::create_dir_all(&place).unwrap();
        let write = |file: &str, text: &str| -> PathBuf {
            let path = place.join(file);
            std::fs::write(&path, text).unwrap();
            path
        };
        let bundle = cluster.until_object::<ConfigMap>(SYSTEM, "weft-bundle", "is there", |_| true);
        let mut proxy = command(program("weft-proxy"));
        proxy
            .env("WEFT_NAMESPACE", "tokens")
            .env("WEFT_WORKLOAD", name)
            .env("WEFT_SERVICE_ACCOUNT", "default")
            .env("WEFT_CONTROL_PLANE", format!("{}:15010", cluster.nodes().address(SYSTEM, &replicas(cluster)[0])))
            .env("WEFT_BUNDLE", write("bundle.pem", &bundle.data.unwrap()["bundle.pem"]))
            .env("WEFT_JOIN_TOKEN_FILE", write("token", token))
            .env("WEFT_ADMIN", format!("unix:{}", place.join("admin").display()))
            .env("WEFT_OUTBOUND", "127.0.0.1:0")
            .env("WEFT_INBOUND", "127.0.0.1:0");
        Self(Process::start(name, &mut proxy, &place.join("log")))
    }

    #[track_caller]
    fn says(&self, cluster: &Cluster, words: &str) {
        cluster.until(&format!("the proxy says `{words}`"), async || {
            let log = self.0.log();
            if log.contains(words) { Ok(()) } else { Err(log) }
        });
    }
}

/// A token such as `kubectl create token` gives, of the cluster's own key, that ended an hour ago.
fn expired(cluster: &Cluster, account: &ServiceAccount, pod: &Pod) -> String {
    let key = std::fs::read_to_string(Path::new(cluster.place()).join("keys/accounts.key")).unwrap();
    let key = KeyPair::from_pem(&key).unwrap();
    let now = wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": ISSUER, "aud": ["weft.dev"], "sub": "system:serviceaccount:tokens:default",
        "iat": now - 7200, "nbf": now - 7200, "exp": now - 3600,
        "kubernetes.io": {
            "namespace": "tokens",
            "serviceaccount": {"name": "default", "uid": account.uid()},
            "pod": {"name": pod.name_any(), "uid": pod.uid()},
        },
    });
    let part = |value: &Value| web_base64(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT"})), part(&claims));
    let signature = key.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", web_base64(&fixed(&signature)))
}

fn web_base64(bytes: &[u8]) -> String {
    let text: String = serde_json::from_value(json!(ByteString(bytes.to_vec()))).unwrap();
    text.trim_end_matches('=').replace('+', "-").replace('/', "_")
}

/// The two numbers of a signature, 32 bytes each, of its DER form.
fn fixed(der: &[u8]) -> Vec<u8> {
    let number = |at: usize| {
        let length = usize::from(der[at + 1]);
        let digits = &der[at + 2..at + 2 + length];
        let digits = &digits[digits.len().saturating_sub(32)..];
        let padded: Vec<u8> = std::iter::repeat_n(0, 32 - digits.len()).chain(digits.iter().copied()).collect();
        (padded, at + 2 + length)
    };
    let (first, next) = number(2);
    let (second, _) = number(next);
    [first, second].concat()
}

#[test]
fn a_token_of_a_living_pod_for_our_audience_is_good_for_a_certificate_and_no_other_is() {
    let Some(cluster) = mesh() else { return };
    cluster.namespace("tokens", &[]);
    for name in ["it", "gone"] {
        apply(cluster, &idle("tokens", name).to_string()).succeeded();
    }
    let pod = cluster.until_object::<Pod>("tokens", "it", "is ready", is_ready);
    let gone = cluster.until_object::<Pod>("tokens", "gone", "is ready", is_ready);
    let account = cluster.until_object::<ServiceAccount>("tokens", "default", "is there", |_| true);
    let token = |pod: &Pod, audience: &str| {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap());
        let bound = ["--bound-object-kind", "Pod", "--bound-object-name", &name, "--bound-object-uid", &uid];
        let words = [&["create", "token", "default", "-n", "tokens", "--audience", audience][..], &bound].concat();
        cluster.kubectl(&words).succeeded().trim().to_owned()
    };
    let of_gone = token(&gone, "weft.dev");
    cluster.kubectl(&["delete", "pod", "gone", "-n", "tokens", "--now"]).succeeded();

    // An expired token of our own making is refused for its time alone: the same one, in time, would be good.
    for (name, token, words) in [
        ("wrong-audience", token(&pod, ISSUER), "the API server does not accept the service-account token"),
        ("expired", expired(cluster, &account, &pod), "token has expired"),
        ("deleted", of_gone, "the API server does not accept the service-account token"),
        ("forged", "a.b.c".to_owned(), "the API server does not accept the service-account token"),
    ] {
        let by_hand = ByHand::start(cluster, name, &token);
        by_hand.says(cluster, words);
        assert!(!by_hand.0.log().contains("certificate in force"), "{name}");
    }
    let by_hand = ByHand::start(cluster, "it", &token(&pod, "weft.dev"));
    by_hand.says(cluster, "connected to the control plane");
    let log = log_of(cluster, &replicas(cluster)[0]);
    let uid = pod.uid().unwrap();
    let signed = log.lines().find(|line| line.contains("certificate signed") && line.contains(&uid));
    let signed = signed.unwrap_or_else(|| panic!("{log}"));
    assert!(
        signed.contains("spiffe://cluster.local/ns/tokens/sa/default") && signed.contains("workload=\"it\""),
        "{signed}"
    );
    nothing_was_forbidden(cluster, &replicas(cluster));
}

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use weft_proxy::clock;

use super::*;
use crate::kubernetes::fake_api::{FakeApi, Fault, refusal};
use crate::kubernetes::time::simulated::settle;

const PATH: &str = "/api/v1/namespaces/weft-system/secrets/weft-root";

fn options(trust_domain: Option<&str>) -> AuthorityOptions {
    AuthorityOptions { trust_domain: trust_domain.map(str::to_owned), ..AuthorityOptions::default() }
}

async fn open_as(api: &FakeApi, trust_domain: Option<&str>) -> Result<Authority, OpenError> {
    open(&api.client(), "weft-system", &options(trust_domain), clock::wall()).await
}

fn bytes(text: &str) -> Value {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap()
}

#[tokio::test]
async fn the_first_replica_makes_the_root_and_later_ones_find_it() {
    let api = FakeApi::new();
    let first = open_as(&api, None).await.unwrap();
    assert_eq!(first.trust_domain(), DEFAULT_TRUST_DOMAIN);
    let secret = api.get(PATH).unwrap();
    assert_eq!(secret["type"], "kubernetes.io/tls");
    assert_eq!(secret["metadata"]["annotations"][names::TRUST_DOMAIN_ANNOTATION], "cluster.local");
    let later = open_as(&api, None).await.unwrap();
    assert_eq!(later.bundle(), first.bundle());
    assert_eq!(api.get(PATH).unwrap(), secret, "a later replica wrote the Secret");
}

#[tokio::test]
async fn replicas_that_start_together_end_with_the_same_root() {
    for replicas in 2..5 {
        let api = FakeApi::new();
        // Nobody writes before all have seen that there is none.
        let all = Arc::new(tokio::sync::Barrier::new(replicas));
        let opening = (0..replicas).map(|_| {
            let (api, all) = (api.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                let client = api.client();
                assert!(read(&client, "weft-system").await.unwrap().is_none());
                all.wait().await;
                // The answer about each request comes when the others have sent theirs.
                let slow = api.client_with(|_| Fault::Slow(Box::pin(settle()), Box::pin(settle())));
                open(&slow, "weft-system", &options(None), clock::wall()).await.unwrap().bundle()
            })
        });
        let mut roots = Vec::new();
        for opening in opening.collect::<Vec<_>>() {
            roots.push(opening.await.unwrap());
        }
        assert!(roots.windows(2).all(|pair| pair[0] == pair[1]), "{replicas} replicas");
        let tries = api.asked().iter().filter(|asked| asked.method == Method::POST).count();
        assert_eq!(tries, replicas, "they did not race, so this tells nothing");
    }
}

#[tokio::test]
async fn another_trust_domain_than_the_roots_is_refused_with_the_remedy() {
    let api = FakeApi::new();
    open_as(&api, Some("shop.example")).await.unwrap();
    assert_eq!(open_as(&api, None).await.unwrap().trust_domain(), "shop.example");
    let error = open_as(&api, Some("cluster.local")).await.unwrap_err().to_string();
    assert!(error.contains("--trust-domain shop.example") && error.contains("weft-system/weft-root"), "{error}");
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_named_and_left_alone() {
    let api = FakeApi::new();
    open_as(&api, None).await.unwrap();
    let good = api.get(PATH).unwrap();
    let other = ca::create_root("cluster.local", clock::wall()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
    let annotation = format!("/metadata/annotations/{}", names::TRUST_DOMAIN_ANNOTATION.replace('/', "~1"));
    let cases = [
        ("no key", vec![("/data/tls.key", Value::Null)], "`tls.key`"),
        ("an empty certificate", vec![("/data/tls.crt", bytes(" \n"))], "`tls.crt`"),
        ("no data", vec![("/data", Value::Null)], "has no text under"),
        ("no PEM", vec![("/data/tls.key", bytes("key"))], "no private key in PEM form"),
        ("a key of another root", vec![("/data/tls.key", bytes(&other.key))], "its key is not the one in"),
        (
            "no authority",
            vec![("/data/tls.key", bytes(&key.serialize_pem())), ("/data/tls.crt", bytes(&leaf.pem()))],
            "certificate of an authority",
        ),
        ("an annotation that lies", vec![(annotation.as_str(), json!("shop.example"))], "correct the annotation"),
    ];
    for (what, changes, expected) in cases {
        let mut secret = good.clone();
        for (pointer, value) in changes {
            *secret.pointer_mut(pointer).unwrap() = value;
        }
        api.put(PATH, secret);
        let before = api.get(PATH);
        let error = open_as(&api, None).await.expect_err(what).to_string();
        assert!(error.contains(expected) && error.contains("weft-system/weft-root"), "{what}: {error}");
        assert!(error.contains("backup") || error.contains("correct"), "{what}: no remedy in: {error}");
        assert_eq!(api.get(PATH), before, "{what}");
    }
}

#[tokio::test]
async fn a_root_its_owner_brought_needs_no_annotation() {
    let api = FakeApi::new();
    let root = ca::create_root("shop.example", clock::wall()).unwrap();
    let mut secret = secret_of("weft-system", "shop.example", &root);
    secret["metadata"].as_object_mut().unwrap().remove("annotations");
    api.put(PATH, secret);
    assert_eq!(open_as(&api, None).await.unwrap().trust_domain(), "shop.example");
}

#[tokio::test]
async fn an_expired_root_is_refused() {
    let api = FakeApi::new();
    let end = open_as(&api, None).await.unwrap().root_expires_at();
    let error = open(&api.client(), "weft-system", &options(None), end).await.unwrap_err().to_string();
    assert!(error.contains("has expired") && error.contains("delete Secret weft-root"), "{error}");
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_and_its_silence_ends() {
    let api = FakeApi::new();
    api.on(|_| Fault::Answer(StatusCode::FORBIDDEN, refusal(StatusCode::FORBIDDEN, "Forbidden")));
    let error = open_as(&api, None).await.unwrap_err().to_string();
    assert!(error.contains("cannot read Secret weft-system/weft-root") && error.contains("weft install"), "{error}");
    api.on(|_| Fault::Silence { done: false });
    let limit = Duration::from_millis(50);
    let error = open_within(limit, &api.client(), "weft-system", &options(None), clock::wall()).await.unwrap_err();
    assert!(matches!(error, OpenError::TimedOut { .. }), "{error}");
    // Made by somebody and gone again, for ever.
    api.on(|asked| match asked.method {
        Method::POST => Fault::Answer(StatusCode::CONFLICT, refusal(StatusCode::CONFLICT, "AlreadyExists")),
        _ => Fault::None,
    });
    let error = open_as(&api, None).await.unwrap_err();
    assert!(matches!(error, OpenError::Unsteady(_)), "{error}");
}

#[tokio::test]
async fn a_replaced_root_ends_the_wait_for_it_and_an_edit_does_not() {
    let limit = Duration::from_secs(20);
    let other = ca::create_root("cluster.local", clock::wall()).unwrap();
    for gone in [false, true] {
        let api = FakeApi::new();
        let authority = open_as(&api, None).await.unwrap();
        let client = api.client();
        let mut waiting = std::pin::pin!(until_replaced(&client, "weft-system", &authority));
        let mut edited = api.get(PATH).unwrap();
        edited["metadata"]["annotations"]["note"] = json!("hands off");
        api.put(PATH, edited);
        tokio::select! {
            replaced = &mut waiting => panic!("an edit was taken for {replaced:?}"),
            // It has looked at the edited one.
            () = async { while api.asked().len() < 3 { tokio::task::yield_now().await } } => {}
        }
        let expected = if gone {
            api.delete(PATH);
            Replaced::Gone
        } else {
            api.put(PATH, secret_of("weft-system", "cluster.local", &other));
            Replaced::Other
        };
        assert_eq!(tokio::time::timeout(limit, waiting).await.expect("it was not noticed"), expected);
    }
}

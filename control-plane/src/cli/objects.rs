//! Documents as objects of a cluster, for `weft apply` and `weft delete` there.
//!
//! The API server changes one object at a time, so that a batch cannot be all or nothing as in a store of our own. The
//! next best: all of it is read and checked here first, then rehearsed by the server, and only then done.

use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use super::target::Remote;
use crate::document::{API_VERSION, DEFAULT_NAMESPACE, Document, GATEWAY_API_VERSIONS, Key, Source, read};
use crate::kubernetes::install::cluster::{Cluster, Kind, Mode, Reference};
use crate::kubernetes::install::plan::{Action, compared};

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub key: Key,
    pub action: &'static str,
}

/// Applies all documents of the sources.
pub(super) async fn apply(remote: &Remote, sources: &[Source], mode: Mode) -> Result<Vec<Outcome>, Failure> {
    let cluster = &remote.cluster;
    let mut objects = Vec::new();
    for (key, body) in documents(sources)? {
        let api_version = body["apiVersion"].as_str().unwrap_or(API_VERSION);
        let kind = kind(cluster, api_version, &key).await?.ok_or_else(|| unknown(cluster, api_version, &key))?;
        objects.push((Reference::new(kind, &key.namespace, &key.name), key, body));
    }
    let mut outcomes = Vec::with_capacity(objects.len());
    for (object, key, body) in &objects {
        let before = cluster.get(object).await?;
        let after = cluster.apply(object, body, Mode::DryRun).await?;
        let action = before.as_ref().map_or(Action::Created, |before| compared(before, &after));
        outcomes.push(Outcome { key: key.clone(), action: action.as_str() });
    }
    if mode == Mode::Real {
        for ((object, _, body), outcome) in objects.iter().zip(&outcomes) {
            // What is the same already keeps whoever wrote it.
            if outcome.action != Action::Unchanged.as_str() {
                cluster.apply(object, body, Mode::Real).await?;
            }
        }
    }
    Ok(outcomes)
}

/// Deletes documents: none of them when one does not exist.
pub(super) async fn delete(remote: &Remote, keys: &[Key]) -> Result<Vec<Outcome>, Failure> {
    let cluster = &remote.cluster;
    let mut objects = Vec::new();
    let mut missing = Vec::new();
    for key in keys {
        match find(cluster, key).await? {
            Some(object) => objects.push((object, key)),
            None => missing.push(key.to_string()),
        }
    }
    if !missing.is_empty() {
        return Err(Failure::new(format!("{} does not exist; list what does with: weft get -A", missing.join(", "))));
    }
    let mut outcomes = Vec::with_capacity(objects.len());
    for (object, key) in objects {
        cluster.delete(&object).await?;
        outcomes.push(Outcome { key: key.clone(), action: "deleted" });
    }
    Ok(outcomes)
}

/// Every document of the sources as it was written, after all of them were found to be right.
fn documents(sources: &[Source]) -> Result<Vec<(Key, Value)>, Failure> {
    let checked = read(sources).map_err(|problems| Failure::new(problems.to_string()))?;
    let mut bodies = Vec::with_capacity(checked.len());
    for source in sources {
        for document in serde_yaml_ng::Deserializer::from_str(&source.text) {
            let body =
                Value::deserialize(document).map_err(|error| Failure::new(format!("{}: {error}", source.name)))?;
            if !body.is_null() {
                bodies.push(body);
            }
        }
    }
    let keys = checked.iter().map(|located| located.document.key());
    let mut pairs: Vec<(Key, Value)> = keys.zip(bodies).collect();
    for ((key, body), located) in pairs.iter_mut().zip(&checked) {
        place(key, body, &located.document);
    }
    Ok(pairs)
}

/// An apply names the object twice, in its path and in its body: both say the same.
fn place(key: &Key, body: &mut Value, document: &Document) {
    if document.kind().is_namespaced() {
        let namespace = if key.namespace.is_empty() { DEFAULT_NAMESPACE } else { &key.namespace };
        body["metadata"]["namespace"] = namespace.into();
    }
}

/// What the server calls a kind; nothing where it does not know it.
async fn kind(cluster: &Cluster, api_version: &str, key: &Key) -> Result<Option<Kind>, Failure> {
    let answer = match cluster.read(&format!("/apis/{api_version}"), "ask for the kinds of documents").await {
        Ok(answer) => answer.body,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let resources = answer["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_key = |resource: &&Value| {
        resource["kind"] == key.kind.as_str() && resource["name"].as_str().is_some_and(|name| !name.contains('/'))
    };
    Ok(resources.iter().find(of_key).and_then(|resource| {
        let is_namespaced = resource["namespaced"].as_bool().unwrap_or(true);
        Some(Kind::new(api_version, key.kind.as_str(), resource["name"].as_str()?, is_namespaced))
    }))
}

/// The object a key names, in whichever group it is.
async fn find(cluster: &Cluster, key: &Key) -> Result<Option<Reference>, Failure> {
    for api_version in [API_VERSION].into_iter().chain(GATEWAY_API_VERSIONS) {
        if let Some(kind) = kind(cluster, api_version, key).await? {
            let object = Reference::new(kind, &key.namespace, &key.name);
            if cluster.get(&object).await?.is_some() {
                return Ok(Some(object));
            }
        }
    }
    Ok(None)
}

fn unknown(cluster: &Cluster, api_version: &str, key: &Key) -> Failure {
    let remedy = if api_version == API_VERSION {
        "put its definition there with `weft install`"
    } else {
        "install the Gateway API's definitions, or write it as `apiVersion: weft.dev/v1alpha1`"
    };
    Failure::new(format!("{key}: {} does not know {} of {api_version}; {remedy}", cluster.place(), key.kind))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::install::testing::{FakeApi, refusal};

    const TEXT: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: a, namespace: shop}
spec: {addresses: [10.0.0.1]}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: b}
spec: {addresses: [10.0.0.2]}
";
    const A: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/workloads/a";
    const B: &str = "/apis/weft.dev/v1alpha1/namespaces/default/workloads/b";

    fn remote() -> (FakeApi, Remote) {
        let api = FakeApi::default();
        let kinds = json!([
            {"name": "workloads", "kind": "Workload", "namespaced": true},
            {"name": "workloads/status", "kind": "Workload", "namespaced": true},
        ]);
        api.put("/apis/weft.dev/v1alpha1", json!({"resources": kinds}));
        for namespace in ["shop", "default"] {
            api.put(&format!("/api/v1/namespaces/{namespace}"), json!({"metadata": {"name": namespace}}));
        }
        let remote = Remote { cluster: api.cluster(), system_namespace: "weft-system".into() };
        (api, remote)
    }

    fn sources(text: &str) -> Vec<Source> {
        vec![Source { name: "file".into(), text: text.into() }]
    }

    fn actions(outcomes: &[Outcome]) -> Vec<(String, &str)> {
        outcomes.iter().map(|outcome| (outcome.key.to_string(), outcome.action)).collect()
    }

    #[tokio::test]
    async fn documents_become_objects_and_applying_them_again_changes_nothing() {
        let (api, remote) = remote();
        let both = |action| vec![("Workload shop/a".to_owned(), action), ("Workload default/b".to_owned(), action)];
        let dry = apply(&remote, &sources(TEXT), Mode::DryRun).await.unwrap();
        assert_eq!((actions(&dry), api.object(A)), (both("created"), None));
        assert_eq!(actions(&apply(&remote, &sources(TEXT), Mode::Real).await.unwrap()), both("created"));
        assert_eq!(api.object(B).unwrap()["spec"]["addresses"], json!(["10.0.0.2"]));
        let writes = api.writes().len();
        assert_eq!(actions(&apply(&remote, &sources(TEXT), Mode::Real).await.unwrap()), both("unchanged"));
        assert_eq!(api.writes().len(), writes);
    }

    #[tokio::test]
    async fn nothing_is_written_when_one_document_is_refused() {
        let (api, remote) = remote();
        api.rule(|asked| (asked.path == B).then(|| refusal(422, "spec.addresses: not so")));
        let failure = apply(&remote, &sources(TEXT), Mode::Real).await.unwrap_err().to_string();
        assert!(
            failure.contains("apply Workload default/b") || failure.contains("read Workload default/b"),
            "{failure}"
        );
        assert_eq!(api.writes(), Vec::<String>::new());
        let failure = apply(&remote, &sources("kind: Workload"), Mode::Real).await.unwrap_err().to_string();
        assert!(failure.contains("file:1"), "{failure}");
    }

    #[tokio::test]
    async fn a_kind_the_server_does_not_know_is_told_with_its_remedy() {
        let (_, remote) = remote();
        let mesh = "apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\n";
        let failure = apply(&remote, &sources(mesh), Mode::Real).await.unwrap_err().to_string();
        assert!(failure.contains("does not know Mesh") && failure.contains("weft install"), "{failure}");
    }

    #[tokio::test]
    async fn documents_are_deleted_together_or_not_at_all() {
        let (api, remote) = remote();
        apply(&remote, &sources(TEXT), Mode::Real).await.unwrap();
        let key = |namespace: &str, name: &str| Key::new(crate::document::Kind::Workload, namespace, name);
        let failure = delete(&remote, &[key("shop", "a"), key("shop", "x")]).await.unwrap_err().to_string();
        assert!(failure.starts_with("Workload shop/x does not exist"), "{failure}");
        assert!(api.object(A).is_some());
        let gone = delete(&remote, &[key("shop", "a"), key("default", "b")]).await.unwrap();
        assert_eq!(gone.iter().map(|outcome| outcome.action).collect::<Vec<_>>(), ["deleted", "deleted"]);
        assert_eq!((api.object(A), api.object(B)), (None, None));
    }
}

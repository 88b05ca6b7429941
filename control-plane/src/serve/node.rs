//! What a proxy says about itself, checked against its certificate.

use tonic::Status;
use weft_core::names::SpiffeId;
use weft_proto::discovery::Node;
use weft_proto::envoy::google::protobuf::{Struct, Value, value};
use weft_proto::names::{ASKS_FOR_DESTINATIONS, METADATA};

use super::session::Star;
use crate::world::WorkloadKey;

/// The facts in a node's metadata that we use. The rest of a node, 61 KB of it from Envoy, is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    pub namespace: String,
    /// Name of the workload in the namespace.
    pub workload: String,
    /// Where the proxy's admin endpoint answers, as it says.
    pub admin: String,
    pub version: String,
    /// The proxy is ours, and `version` one of Weft's.
    pub is_ours: bool,
    /// What it means by `*`.
    pub star: Star,
}

/// What our proxies call themselves.
const OURS: &str = "weft";

impl NodeFacts {
    /// Reads the node of a stream's first request. The namespace must be the certificate's: a proxy is told what is meant for
    /// its own namespace, and nobody's word but the certificate's counts for which that is.
    pub fn read(node: Option<&Node>, identity: &SpiffeId) -> Result<Self, Status> {
        let node = node.ok_or_else(|| denied("the first request of the stream has no node"))?;
        let facts = node
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.fields.get(METADATA))
            .and_then(as_struct)
            .ok_or_else(|| denied(format_args!("node `{}` has no metadata `{METADATA}`", node.id)))?;
        let text = |key: &str| facts.fields.get(key).and_then(as_text).unwrap_or_default().to_owned();
        let [namespace, workload, version] = ["namespace", "workload", "version"].map(text);
        for (key, value) in [("namespace", &namespace), ("workload", &workload)] {
            if value.is_empty() || value.contains('/') {
                let problem = format_args!("`{key}` in the metadata of node `{}` is `{value}`, not a name", node.id);
                return Err(denied(problem));
            }
        }
        if namespace != identity.namespace() {
            return Err(denied(format_args!(
                "node `{}` says namespace `{namespace}`, its certificate says `{}` ({identity})",
                node.id,
                identity.namespace()
            )));
        }
        let version = if version.is_empty() { node.user_agent_version.clone() } else { version };
        let is_ours = node.user_agent_name == OURS;
        let asks = node.client_features.iter().any(|feature| feature == ASKS_FOR_DESTINATIONS);
        let star = if asks { Star::Own } else { Star::Everything };
        Ok(Self { namespace, workload, admin: text("admin"), version, is_ours, star })
    }

    pub fn key(&self) -> WorkloadKey {
        WorkloadKey::new(&self.namespace, &self.workload)
    }
}

fn denied(problem: impl std::fmt::Display) -> Status {
    Status::permission_denied(format!(
        "{problem}; send node.metadata {{\"{METADATA}\": {{\"namespace\": ..., \"workload\": ...}}}} \
         with the namespace of the client certificate"
    ))
}

fn as_struct(value: &Value) -> Option<&Struct> {
    match value.kind.as_ref()? {
        value::Kind::StructValue(fields) => Some(fields),
        _ => None,
    }
}

fn as_text(value: &Value) -> Option<&str> {
    match value.kind.as_ref()? {
        value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::session::tests::node;

    fn identity() -> SpiffeId {
        SpiffeId::workload("shop.local", "default", "orders")
    }

    #[test]
    fn a_node_of_the_certificates_namespace_gives_its_facts() {
        let facts = NodeFacts::read(Some(&node("default", "orders-1")), &identity()).unwrap();
        assert_eq!(facts.key(), WorkloadKey::from("default/orders-1"));
        assert_eq!((facts.admin.as_str(), facts.version.as_str()), ("127.0.0.1:15000", "0.2.0"));
        assert!(facts.is_ours);
    }

    #[test]
    fn a_node_that_does_not_belong_to_the_certificate_is_denied_with_the_reason() {
        let bare = Node { id: "default/orders-1".to_owned(), ..Node::default() };
        for (node, reason) in [
            (None, "no node"),
            (Some(bare), "no metadata `weft.dev`"),
            (Some(node("default", "")), "`workload`"),
            (Some(node("default", "a/b")), "`a/b`"),
            (Some(node("", "orders-1")), "`namespace`"),
            (Some(node("other", "orders-1")), "its certificate says `default`"),
        ] {
            let status = NodeFacts::read(node.as_ref(), &identity()).unwrap_err();
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
            assert!(status.message().contains(reason), "{} lacks {reason}", status.message());
        }
    }
}

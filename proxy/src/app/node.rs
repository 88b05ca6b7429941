//! How the proxy introduces itself to the control plane.

use weft_proto::discovery::Node;
use weft_proto::envoy::google::protobuf::{Struct, Value, value::Kind};
use weft_proto::names::{ASKS_FOR_DESTINATIONS, METADATA};

use crate::config::{Destinations, Settings};

/// Our facts, in the place of the Node message where every xDS server lets clients put their own.
pub(super) fn node(settings: &Settings) -> Node {
    // A socket file can be asked from every network namespace of this machine.
    let admin = settings.admin.iter().map(ToString::to_string).max_by_key(|text| text.starts_with("unix:"));
    let facts = [
        ("namespace", settings.namespace.clone()),
        ("workload", settings.workload.clone()),
        ("admin", admin.unwrap_or_default()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let fields = facts.map(|(key, text)| (key.to_owned(), Value { kind: Some(Kind::StringValue(text)) }));
    let ours = Value { kind: Some(Kind::StructValue(Struct { fields: fields.into_iter().collect() })) };
    Node {
        id: format!("{}/{}", settings.namespace, settings.workload),
        cluster: settings.service_account.clone(),
        metadata: Some(Struct { fields: [(METADATA.to_owned(), ours)].into_iter().collect() }),
        user_agent_name: "weft".to_owned(),
        user_agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        client_features: match settings.destinations {
            Destinations::Used => vec![ASKS_FOR_DESTINATIONS.to_owned()],
            Destinations::All => Vec::new(),
        },
    }
}

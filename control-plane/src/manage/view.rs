//! What a control plane tells of itself, the same over its socket (protobuf) and in a cluster (JSON over HTTP).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft_proto::weft::{
    Document as DocumentMessage, GetRequest, GetResponse, ProxyProgram, ProxyStatus, StatusResponse,
};

use super::Facts;
use crate::document::{Key, Kind};
use crate::programs;
use crate::store::Snapshot;

/// How a control plane and its proxies are. `started_at` in seconds since the Unix epoch.
pub fn status(snapshot: &Snapshot, facts: &dyn Facts, started_at: i64) -> StatusResponse {
    let mut documents = Kind::ALL.iter().map(|kind| (kind.to_string(), 0)).collect::<std::collections::HashMap<_, _>>();
    for key in snapshot.documents.keys() {
        *documents.entry(key.kind.to_string()).or_default() += 1;
    }
    let mut proxies = facts.proxies();
    proxies.sort_by(|a, b| a.workload.cmp(&b.workload));
    StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        trust_domain: facts.trust_domain(),
        started_at,
        revision: snapshot.revision,
        documents,
        proxies,
        root_expires_at: facts.root_expires_at(),
        detected: facts.detected().into_iter().collect(),
        programs: facts.programs(),
        proxy_upgrade: programs::keeper::policy(snapshot).as_str().to_owned(),
    }
}

/// The documents a request asks for; all that its empty fields leave open.
///
/// # Errors
/// A sentence with the kinds there are.
pub fn documents(snapshot: &Snapshot, request: &GetRequest) -> Result<GetResponse, String> {
    let GetRequest { kind, namespace, name } = request;
    let kind = if kind.is_empty() { None } else { Some(Kind::parse(kind)?) };
    // What lives in no namespace is in all of them.
    let wanted = |key: &Key| {
        kind.is_none_or(|kind| kind == key.kind)
            && (namespace.is_empty() || key.namespace.is_empty() || *key.namespace == **namespace)
            && (name.is_empty() || *key.name == **name)
    };
    let found = snapshot.documents.iter().filter(|(key, _)| wanted(key));
    let documents = found.map(|(key, stored)| DocumentMessage {
        kind: key.kind.to_string(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        json: stored.document.to_json().to_string(),
        revision: stored.revision,
        changed_at: stored.changed_at,
    });
    Ok(GetResponse { documents: documents.collect(), revision: snapshot.revision })
}

/// [`StatusResponse`] as JSON; points in time in seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub version: String,
    pub trust_domain: String,
    pub started_at: i64,
    pub revision: u64,
    pub documents: BTreeMap<String, u64>,
    pub proxies: Vec<Proxy>,
    pub root_expires_at: i64,
    pub detected: BTreeMap<String, String>,
    /// What is not as it should be, one sentence each. One that is older says nothing of it.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Programs that running proxies can be given; one that is older has none.
    #[serde(default)]
    pub programs: Vec<Program>,
    #[serde(default)]
    pub proxy_upgrade: String,
}

/// [`ProxyProgram`] as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    pub architecture: String,
    pub version: String,
    pub digest: String,
    pub connected: u64,
    pub outdated: u64,
    pub replaceable: u64,
    pub under_way: u64,
    pub replaced: u64,
    pub stopped: String,
}

/// [`ProxyStatus`] as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    pub workload: String,
    pub namespace: String,
    pub spiffe_id: String,
    pub address: String,
    pub version: String,
    pub connected_since: i64,
    pub applied_revision: u64,
    pub pending: u64,
    pub nack: String,
    pub admin: String,
    /// Control planes before this one say neither.
    #[serde(default)]
    pub digest: String,
    #[serde(default)]
    pub program: String,
}

/// [`GetResponse`] as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Documents {
    pub revision: u64,
    pub documents: Vec<Entry>,
}

/// One document and what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub revision: u64,
    pub changed_at: i64,
    pub document: Value,
}

/// What one proxy is sent, and what it made of it. Never a key: there is none in resources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    pub workload: String,
    /// The newest revision, which the resources are of.
    pub revision: u64,
    /// `None` while the proxy is not connected to this replica.
    pub proxy: Option<Proxy>,
    /// What the proxy did not take.
    pub refused: Vec<Refusal>,
    /// Resources, by type.
    pub resources: BTreeMap<String, u64>,
    /// Names the proxy asks for, by type; `None` of one that is told everything.
    #[serde(default)]
    pub asked: Option<BTreeMap<String, u64>>,
    /// Resources that no proxy of this version understands, in words.
    pub unreadable: Vec<String>,
    /// Listeners and clusters in the form of a proxy's `/config_dump`, without what only the proxy knows.
    pub config: Value,
}

/// Resources of one type that a proxy refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    #[serde(rename = "type")]
    pub kind: String,
    /// In the proxy's words.
    pub message: String,
    /// Seconds since the Unix epoch.
    pub at: i64,
    pub names: Vec<String>,
    /// There are more than are named.
    pub more: bool,
}

impl From<StatusResponse> for Status {
    fn from(status: StatusResponse) -> Self {
        Self {
            version: status.version,
            trust_domain: status.trust_domain,
            started_at: status.started_at,
            revision: status.revision,
            documents: status.documents.into_iter().collect(),
            proxies: status.proxies.into_iter().map(Proxy::from).collect(),
            root_expires_at: status.root_expires_at,
            detected: status.detected.into_iter().collect(),
            problems: Vec::new(),
            programs: status.programs.into_iter().map(Program::from).collect(),
            proxy_upgrade: status.proxy_upgrade,
        }
    }
}

impl From<Status> for StatusResponse {
    fn from(status: Status) -> Self {
        Self {
            version: status.version,
            trust_domain: status.trust_domain,
            started_at: status.started_at,
            revision: status.revision,
            documents: status.documents.into_iter().collect(),
            proxies: status.proxies.into_iter().map(ProxyStatus::from).collect(),
            root_expires_at: status.root_expires_at,
            detected: status.detected.into_iter().collect(),
            programs: status.programs.into_iter().map(ProxyProgram::from).collect(),
            proxy_upgrade: status.proxy_upgrade,
        }
    }
}

/// Both have the same fields.
macro_rules! both_ways {
    ($one:ident, $other:ident, $($field:ident),+) => {
        impl From<$one> for $other {
            fn from(from: $one) -> Self {
                Self { $($field: from.$field),+ }
            }
        }
        impl From<$other> for $one {
            fn from(from: $other) -> Self {
                Self { $($field: from.$field),+ }
            }
        }
    };
}

both_ways!(
    Proxy,
    ProxyStatus,
    workload,
    namespace,
    spiffe_id,
    address,
    version,
    connected_since,
    applied_revision,
    pending,
    nack,
    admin,
    digest,
    program
);

both_ways!(
    Program,
    ProxyProgram,
    architecture,
    version,
    digest,
    connected,
    outdated,
    replaceable,
    under_way,
    replaced,
    stopped
);

impl From<GetResponse> for Documents {
    fn from(response: GetResponse) -> Self {
        let entry = |document: DocumentMessage| Entry {
            kind: document.kind,
            namespace: document.namespace,
            name: document.name,
            revision: document.revision,
            changed_at: document.changed_at,
            // It was made from JSON a moment ago.
            document: serde_json::from_str(&document.json).unwrap_or_default(),
        };
        Self { revision: response.revision, documents: response.documents.into_iter().map(entry).collect() }
    }
}

impl From<Documents> for GetResponse {
    fn from(documents: Documents) -> Self {
        let message = |entry: Entry| DocumentMessage {
            kind: entry.kind,
            namespace: entry.namespace,
            name: entry.name,
            json: entry.document.to_string(),
            revision: entry.revision,
            changed_at: entry.changed_at,
        };
        Self { revision: documents.revision, documents: documents.documents.into_iter().map(message).collect() }
    }
}

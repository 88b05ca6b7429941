//! Custom objects: our own kinds, and routes of the Gateway API, as documents.
//!
//! An object that cannot be read leaves its last good version in force, for as long as this control plane lives, and what
//! is wrong with it is told by its name.

use std::fmt;

use kube::api::{ApiResource, DynamicObject, TypeMeta};

use super::object::ObjectName;
use crate::document::{
    API_VERSION, Document, GATEWAY_API_VERSIONS, Key, Kind, Located, Problems, from_object, is_ours,
};

/// What messages call the place custom objects come from.
const SOURCE: &str = "cluster";

/// A kind of custom object under one API group and version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomResource {
    /// The Gateway API's before ours.
    is_own: bool,
    pub kind: Kind,
    /// `GROUP/VERSION`
    pub api_version: &'static str,
}

/// A custom object and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Custom {
    /// `metadata.generation` of the object that was last read, well or not.
    pub generation: i64,
    /// Its last good version; `None` where there was none, or it is not for us.
    pub document: Option<Document>,
    /// What is wrong with it as it is now.
    pub problems: Option<Problems>,
}

impl CustomResource {
    /// The kinds there may be, each under the API versions we know, the preferred one first.
    pub fn candidates() -> impl Iterator<Item = Vec<Self>> {
        let own = Kind::ALL.into_iter().map(|kind| vec![Self { is_own: true, kind, api_version: API_VERSION }]);
        let gateway = Kind::ALL.into_iter().filter(|kind| is_gateway_api(*kind));
        let gateway = gateway
            .map(|kind| GATEWAY_API_VERSIONS.map(|api_version| Self { is_own: false, kind, api_version }).into());
        gateway.chain(own)
    }

    pub fn group(&self) -> &'static str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    pub fn api_resource(&self) -> ApiResource {
        let version = self.api_version.split_once('/').map_or(self.api_version, |(_, version)| version);
        ApiResource {
            group: self.group().to_owned(),
            version: version.to_owned(),
            api_version: self.api_version.to_owned(),
            kind: self.kind.as_str().to_owned(),
            plural: self.plural(),
        }
    }

    /// What an object is called as a document.
    pub fn key(&self, name: &ObjectName) -> Key {
        Key::new(self.kind, &name.namespace, &name.name)
    }

    fn plural(&self) -> String {
        let singular = self.kind.as_str().to_ascii_lowercase();
        let ending = if singular.ends_with("sh") || singular.ends_with('s') { "es" } else { "s" };
        format!("{singular}{ending}")
    }
}

/// `PLURAL.GROUP`, as its definition is called.
impl fmt::Display for CustomResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.plural(), self.group())
    }
}

/// The kinds that the Gateway API has.
fn is_gateway_api(kind: Kind) -> bool {
    !matches!(kind, Kind::Mesh | Kind::Service | Kind::Workload)
}

impl Custom {
    /// Reads an object of a kind; `before` is what was made of it the last time.
    pub fn read(resource: &CustomResource, mut object: DynamicObject, before: Option<&Self>) -> Self {
        let generation = object.metadata.generation.unwrap_or_default();
        // Items of a list need not say what they are.
        let api = resource.api_resource();
        object.types = Some(TypeMeta { api_version: api.api_version, kind: api.kind });
        // Nobody reads them, and there are many.
        object.metadata.managed_fields = None;
        // What was JSON is JSON again.
        let object = serde_json::to_value(object).unwrap_or_default();
        if !is_ours(&object) {
            return Self { generation, document: None, problems: None };
        }
        match from_object(&object, SOURCE) {
            Ok(Located { document, .. }) => Self { generation, document: Some(document), problems: None },
            Err(problems) => {
                let document = before.and_then(|before| before.document.clone());
                Self { generation, document, problems: Some(problems) }
            }
        }
    }

    /// Whether it is for us: a route to a gateway is somebody else's.
    pub fn is_ours(&self) -> bool {
        self.document.is_some() || self.problems.is_some()
    }
}

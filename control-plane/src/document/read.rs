//! YAML sources to documents, kind by kind.

mod http_route;
mod service;
mod tls_route;
mod workload;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::field::{Field, Fields, Origin, Reader, is_subdomain};
use super::problem::{Place, Problem, Problems, shortened};
use super::yaml::{self, Node};
use super::{
    API_VERSION, CREATED, DEFAULT_NAMESPACE, Document, GATEWAY_API_GROUP, GATEWAY_API_VERSIONS, Key, Kind, Located,
    MESH_NAME, Manifest, MeshSpec, Metadata, Mtls, ProxyUpgrade, limits,
};

/// Text and what messages call it: a file's path, or `<stdin>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// Reads all documents of all sources.
///
/// # Errors
/// Every problem found, when there is one: a batch is right as a whole or not at all.
pub fn read(sources: &[Source]) -> Result<Vec<Located>, Problems> {
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    for source in sources {
        read_source(source, &mut documents, &mut problems);
    }
    problems.extend(duplicates(&documents));
    if problems.is_empty() { Ok(documents) } else { Err(Problems(problems)) }
}

/// Reads one source; what it finds is added to both lists.
fn read_source(source: &Source, documents: &mut Vec<Located>, problems: &mut Vec<Problem>) {
    let name: Arc<str> = source.name.as_str().into();
    let place = |position| Place { source: Arc::clone(&name), position };
    let (nodes, syntax) = yaml::parse(&source.text);
    let bare = |position, what: String| Problem {
        place: place(position),
        document: String::new(),
        field: String::new(),
        what,
    };
    if nodes.is_empty() && syntax.is_none() {
        let what = format!("holds no document; begin one with `apiVersion: {API_VERSION}`");
        problems.push(bare(None, what));
    }
    for node in &nodes {
        match document(node, &name, Origin::Text) {
            Ok(document) => documents.push(Located { document, place: place(Some(node.at)) }),
            Err(Problems(mut found)) => problems.append(&mut found),
        }
    }
    if let Some(syntax) = syntax {
        problems.push(bare(Some(syntax.at), syntax.what));
    }
}

/// Reads one document of a tree.
pub(super) fn document(node: &Node, source: &Arc<str>, origin: Origin) -> Result<Document, Problems> {
    let mut reader = Reader::new(source, origin);
    let document = reader.document(node);
    // A part can be wrong while all that is needed for a value is there.
    match document.filter(|_| reader.problems.is_empty()) {
        Some(document) => Ok(document),
        None => Err(Problems(reader.problems)),
    }
}

/// Whether this is a version of the Gateway API.
pub(super) fn is_gateway_api(api_version: &str) -> bool {
    api_version.starts_with(GATEWAY_API_GROUP) && api_version[GATEWAY_API_GROUP.len()..].starts_with('/')
}

/// One problem for each document whose name an earlier one of the batch has.
pub fn duplicates(documents: &[Located]) -> Vec<Problem> {
    let mut first: HashMap<Key, &Place> = HashMap::new();
    let mut problems = Vec::new();
    for Located { document, place } in documents {
        let key = document.key();
        match first.get(&key) {
            Some(earlier) => {
                let what = format!("given twice; it already stands at {earlier}: remove or rename one");
                problems.push(Problem::of(&key, place.clone(), "metadata.name", what));
            }
            None => {
                first.insert(key, place);
            }
        }
    }
    problems
}

const MTLS: [(&str, Mtls); 2] = [("strict", Mtls::Strict), ("permissive", Mtls::Permissive)];
const PROXY_UPGRADES: [(&str, ProxyUpgrade); 2] =
    [(ProxyUpgrade::OnRestart.as_str(), ProxyUpgrade::OnRestart), (ProxyUpgrade::Live.as_str(), ProxyUpgrade::Live)];

impl Reader {
    fn document(&mut self, node: &Node) -> Option<Document> {
        let root = Field { node, path: String::new() };
        let fields = self.fields(&root, &["apiVersion", "kind", "metadata", "spec"])?;
        let kind = self.kind(&fields);
        self.document = title(kind, &fields);
        // What was found before the name was known belongs to it as well.
        self.problems.iter_mut().for_each(|problem| problem.document.clone_from(&self.document));
        self.api_version(&fields, kind);
        let kind = kind?;
        let metadata = self.metadata(&fields, kind);
        let spec = if kind == Kind::Mesh { fields.get("spec") } else { fields.required(self, "spec", "spec: ...") };
        match kind {
            Kind::Mesh => {
                let spec = spec.map_or(Some(MeshSpec::default()), |spec| self.mesh(&spec));
                Some(Document::Mesh(Manifest { metadata: metadata?, spec: spec? }))
            }
            Kind::Service => {
                let spec = spec.and_then(|spec| self.service(&spec));
                Some(Document::Service(Manifest { metadata: metadata?, spec: spec? }))
            }
            Kind::Workload => {
                let spec = spec.and_then(|spec| self.workload(&spec));
                Some(Document::Workload(Manifest { metadata: metadata?, spec: spec? }))
            }
            Kind::TlsRoute => {
                let namespace = metadata.as_ref().map_or(DEFAULT_NAMESPACE, |metadata| &metadata.namespace);
                let spec = spec.and_then(|spec| self.tls_route(&spec, namespace));
                Some(Document::TlsRoute(Manifest { metadata: metadata?, spec: spec? }))
            }
            Kind::HttpRoute => {
                let namespace = metadata.as_ref().map_or(DEFAULT_NAMESPACE, |metadata| &metadata.namespace);
                let created = self.created(&fields);
                let spec = spec.and_then(|spec| self.http_route(&spec, namespace, created));
                Some(Document::HttpRoute(Manifest { metadata: metadata?, spec: spec? }))
            }
        }
    }

    fn kind(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let field = fields.required(self, "kind", "kind: Service")?;
        self.choice(&field, "kind", &Kind::ALL.map(|kind| (kind.as_str(), kind)))
    }

    fn api_version(&mut self, fields: &Fields<'_>, kind: Option<Kind>) {
        let example = format!("apiVersion: {API_VERSION}");
        let Some(field) = fields.required(self, "apiVersion", &example) else { return };
        let is_route = matches!(kind, Some(Kind::TlsRoute | Kind::HttpRoute));
        let of_gateway = |found: &str| is_route && GATEWAY_API_VERSIONS.contains(&found);
        self.is_gateway_api = matches!(&field.node.value, yaml::Value::Text(found) if is_gateway_api(found));
        if let Some(found) = self.text(&field).filter(|found| *found != API_VERSION && !of_gateway(found)) {
            let what =
                format!("`{}` is not an API version this control plane knows; use {API_VERSION}", shortened(found));
            self.problem(field.at(), &field.path, what);
        }
    }

    fn metadata(&mut self, fields: &Fields<'_>, kind: Kind) -> Option<Metadata> {
        let field = fields.required(self, "metadata", "metadata: {name: orders}")?;
        let allowed: &[&str] = match kind {
            Kind::HttpRoute => &["name", "namespace", "labels", CREATED],
            kind if kind.is_namespaced() => &["name", "namespace", "labels"],
            _ => &["name", "labels"],
        };
        let fields = self.fields(&field, allowed)?;
        let name = fields.required(self, "name", "name: orders").and_then(|field| match kind {
            Kind::Mesh => self.choice(&field, "name of a Mesh", &[(MESH_NAME, MESH_NAME)]).map(str::to_owned),
            Kind::Service => self.label(&field),
            Kind::Workload | Kind::TlsRoute | Kind::HttpRoute => self.subdomain(&field),
        });
        let namespace = match fields.get("namespace").filter(|_| kind.is_namespaced()) {
            Some(field) => self.label(&field),
            None if kind.is_namespaced() => Some(DEFAULT_NAMESPACE.to_owned()),
            None => Some(String::new()),
        };
        let labels = fields.get("labels").map_or(Some(BTreeMap::new()), |field| self.labels(&field));
        Some(Metadata { name: name?, namespace: namespace?, labels: labels? })
    }

    /// When Kubernetes says that it was made.
    fn created(&mut self, fields: &Fields<'_>) -> Option<String> {
        let metadata = fields.get("metadata")?;
        let yaml::Value::Mapping(entries) = &metadata.node.value else { return None };
        let (_, node) = entries.iter().find(|(key, _)| key.text == CREATED)?;
        if node.value == yaml::Value::Null {
            return None;
        }
        let field = Field { node, path: format!("metadata.{CREATED}") };
        let text = self.text(&field)?;
        if !http_route::is_timestamp(text) {
            let what = format!("`{}` is not a time such as 2026-01-31T08:00:00Z; leave it out", shortened(text));
            self.problem(field.at(), &field.path, what);
        }
        Some(text.to_owned())
    }

    /// Labels as Kubernetes has them: a name of at most 63 characters, with an optional DNS prefix.
    fn labels(&mut self, field: &Field<'_>) -> Option<BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        for (key, value) in self.mapping(field)?.all() {
            let (prefix, name) = key.text.split_once('/').unwrap_or(("a", &key.text));
            if !is_subdomain(prefix) || name.is_empty() || !is_label_text(name) {
                let what = format!(
                    "`{}` is not a label's name; use at most 63 of A-Z, a-z, 0-9, `-`, `_` and `.`, with an optional `DOMAIN/` before",
                    shortened(&key.text)
                );
                self.problem(key.at, &value.path, what);
            }
            let Some(text) = self.text(&value) else { continue };
            if !is_label_text(text) {
                let what = format!(
                    "`{}` is not a label's value; use at most 63 of A-Z, a-z, 0-9, `-`, `_` and `.`, beginning and ending with a letter or digit",
                    shortened(text)
                );
                self.problem(value.at(), &value.path, what);
            }
            labels.insert(key.text.clone(), text.to_owned());
        }
        Some(labels)
    }

    fn mesh(&mut self, spec: &Field<'_>) -> Option<MeshSpec> {
        let fields = self.fields(spec, &["mtls", "proxyUpgrade"])?;
        let mtls = fields.get("mtls").map_or(Some(Mtls::default()), |field| self.choice(&field, "mode", &MTLS));
        let proxy_upgrade = fields
            .get("proxyUpgrade")
            .map_or(Some(ProxyUpgrade::default()), |field| self.choice(&field, "time of upgrade", &PROXY_UPGRADES));
        Some(MeshSpec { mtls: mtls?, proxy_upgrade: proxy_upgrade? })
    }

    /// `seen` leads from what must occur once to where it did.
    fn unique<K: std::hash::Hash + Eq>(
        &mut self,
        seen: &mut HashMap<K, String>,
        key: K,
        field: &Field<'_>,
        what: &str,
    ) {
        match seen.get(&key) {
            Some(earlier) => {
                let what = format!("{what} is given twice; it already stands {earlier}: remove one");
                self.problem(field.at(), &field.path, what);
            }
            None => {
                seen.insert(key, self.whereabouts(field));
            }
        }
    }

    fn addresses(&mut self, field: &Field<'_>, required: bool) -> Option<Vec<IpAddr>> {
        const ITEM: &str = "IP addresses";
        let items = if required { self.some_items(field, ITEM)? } else { self.items(field, ITEM)? };
        let items = self.bounded(field, items, limits::ADDRESSES)?;
        let mut seen = HashSet::new();
        let mut addresses = Vec::new();
        for item in &items {
            let Some(address) = self.address(item) else { continue };
            if seen.insert(address) {
                addresses.push(address);
            } else {
                self.problem(item.at(), &item.path, format!("{address} is given twice; remove one"));
            }
        }
        Some(addresses)
    }
}

/// What a message calls a document, as far as it can be read without complaint.
fn title(kind: Option<Kind>, fields: &Fields<'_>) -> String {
    let text_of = |fields: &[(yaml::FieldName, Node)], name: &str| {
        fields.iter().find(|(key, _)| key.text == name).and_then(|(_, node)| match &node.value {
            yaml::Value::Text(text) => Some(shortened(text)),
            _ => None,
        })
    };
    let kind_text = || {
        fields.get("kind").and_then(|field| match &field.node.value {
            yaml::Value::Text(text) => Some(shortened(text)),
            _ => None,
        })
    };
    let mut title = kind.map(|kind| kind.to_string()).or_else(kind_text).unwrap_or_else(|| "document".into());
    let metadata = fields.get("metadata");
    let Some(yaml::Value::Mapping(metadata)) = metadata.map(|field| &field.node.value) else { return title };
    if let Some(name) = text_of(metadata, "name") {
        title.push(' ');
        if kind.is_none_or(Kind::is_namespaced) {
            title.push_str(&text_of(metadata, "namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.into()));
            title.push('/');
        }
        title.push_str(&name);
    }
    title
}

/// A label's value, or its name without prefix; empty is a value.
fn is_label_text(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    text.len() <= 63
        && edge(text.as_bytes().first())
        && edge(text.as_bytes().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

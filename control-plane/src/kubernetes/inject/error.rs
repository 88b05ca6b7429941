//! Why a pod can have no proxy: each names what stands where, and what may stand there.

use weft_proxy::capture::AnnotationError;

use super::quantity::Quantity;
use crate::kubernetes::names;

/// Longest piece of a pod that a message repeats.
const SHOWN: usize = 120;

/// A pod that cannot be injected as it is. The text is what its author reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    #[error("`{path}` is not what Kubernetes takes there: {what}")]
    Malformed { path: String, what: String },
    #[error("annotation {name} is `{value}`; allowed: {allowed}")]
    Annotation { name: &'static str, value: String, allowed: String },
    #[error("annotation {} cannot be used{field}: {what}", names::PROXY_PATCH)]
    ProxyPatch { field: String, what: String },
    #[error("label {name} is `{value}`; allowed: {allowed}")]
    Label { name: &'static str, value: String, allowed: String },
    #[error("the proxy's {resource} request {request} is above its limit {limit}; change annotation {annotation}")]
    RequestAboveLimit { resource: &'static str, request: String, limit: String, annotation: &'static str },
    #[error("{place} uses port {port}, which is the proxy's {purpose}; give it another port")]
    PortTaken { place: String, port: u16, purpose: &'static str },
    #[error(
        "{place} runs as user {uid}, which is the proxy's: its connections would bypass the mesh; give it another user"
    )]
    UserTaken { place: String, uid: i64 },
    #[error("{place} is called `{name}`, which is the name of a part of the proxy; rename it, or, if it comes from an \
             earlier injection, keep that one's annotation {annotation}", annotation = names::INJECTED_ANNOTATION)]
    NameTaken { place: &'static str, name: &'static str },
    #[error(
        "{place} has port `{port}`; expected a number from 1 to 65535 or a name among the container's ports ({known})"
    )]
    ProbePort { place: String, port: String, known: String },
    #[error("{place} cannot be made by the proxy: {what}")]
    Probe { place: String, what: String },
    #[error("{place} asks the proxy, but what it asked before is not known; write the application's own probe again")]
    ProbeLost { place: String },
    #[error(
        "the container {container} of an earlier injection has an unreadable {variable}: {what}; inject the original pod"
    )]
    StoredProbes { container: &'static str, variable: &'static str, what: String },
    #[error("namespace {namespace} has Pod Security level `{level}`, which forbids the init container that captures; \
             install the CNI plugin (capture `cni`), or say so on this pod by annotation {annotation}", annotation = names::CAPTURE)]
    PodSecurity { namespace: String, level: String },
}

impl InjectError {
    pub(super) fn annotation(name: &'static str, value: &str, allowed: impl Into<String>) -> Self {
        Self::Annotation { name, value: shortened(value), allowed: allowed.into() }
    }

    pub(super) fn request_above_limit(
        resource: &'static str,
        request: &Quantity,
        limit: &Quantity,
        annotation: &'static str,
    ) -> Self {
        Self::RequestAboveLimit {
            resource,
            request: shortened(&request.to_string()),
            limit: shortened(&limit.to_string()),
            annotation,
        }
    }
}

impl From<AnnotationError> for InjectError {
    fn from(error: AnnotationError) -> Self {
        Self::annotation(error.name, &error.value, error.allowed)
    }
}

/// The start of a text: pods come from anybody, and messages end in logs and terminals.
pub(super) fn shortened(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(SHOWN).map(printable).collect();
    if text.chars().nth(SHOWN).is_some() {
        short.push('…');
    }
    short
}

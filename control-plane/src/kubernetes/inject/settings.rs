//! What the mesh says about its proxies: the same for the webhook and for `weft inject`.

use std::str::FromStr;

use tracing::level_filters::LevelFilter;

use weft_proxy::config::Destinations;

use super::quantity::Quantity;
use crate::kubernetes::names;

/// Who makes the kernel hand a pod's connections to its proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Capture {
    /// An init container of the pod, with the capability to administer its network.
    Init,
    /// The node's CNI plugin: the pod needs no privilege.
    Cni,
}

/// When nodes ask the registry for the proxy's image, as Kubernetes writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PullPolicy {
    #[value(name = "Always")]
    Always,
    #[value(name = "IfNotPresent")]
    IfNotPresent,
    #[value(name = "Never")]
    Never,
}

impl PullPolicy {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The proxies of the mesh, as far as no pod says otherwise by annotation.
#[derive(Debug, Clone, clap::Args)]
pub struct InjectOptions {
    /// Image of the proxy beside each pod
    #[arg(long, env = "WEFT_PROXY_IMAGE", default_value = names::DEFAULT_PROXY_IMAGE, value_name = "IMAGE", value_parser = image)]
    pub proxy_image: String,
    /// When nodes ask the registry for the proxy's image [default: Kubernetes' own rule]
    #[arg(long, env = "WEFT_PROXY_PULL_POLICY", value_enum, value_name = "POLICY")]
    pub proxy_pull_policy: Option<PullPolicy>,
    /// Who captures a pod's traffic
    #[arg(long, env = "WEFT_CAPTURE", value_enum, default_value_t = Capture::Init, value_name = "WHO")]
    pub capture: Capture,
    /// Processor time a proxy requests
    #[arg(long, env = "WEFT_PROXY_CPU_REQUEST", default_value = "10m", value_name = "AMOUNT")]
    pub proxy_cpu_request: Quantity,
    /// Memory a proxy requests
    #[arg(long, env = "WEFT_PROXY_MEMORY_REQUEST", default_value = "16Mi", value_name = "AMOUNT")]
    pub proxy_memory_request: Quantity,
    /// Most processor time of a proxy
    #[arg(long, env = "WEFT_PROXY_CPU_LIMIT", value_name = "AMOUNT")]
    pub proxy_cpu_limit: Option<Quantity>,
    /// Most memory of a proxy
    #[arg(long, env = "WEFT_PROXY_MEMORY_LIMIT", value_name = "AMOUNT")]
    pub proxy_memory_limit: Option<Quantity>,
    /// Log level of the proxies: off, error, warn, info, debug, trace
    #[arg(long, env = "WEFT_PROXY_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub proxy_log_level: LevelFilter,
    /// Which destinations a proxy knows: those its pod used lately, or all of the mesh
    #[arg(long, env = "WEFT_PROXY_DESTINATIONS", value_enum, default_value_t = Destinations::Used, value_name = "WHICH")]
    pub proxy_destinations: Destinations,
    /// Further settings of the proxies: NAME=VALUE, with spaces between
    #[arg(long, env = "WEFT_PROXY_ENV", default_value = "", value_name = "VARIABLES")]
    pub proxy_env: Variables,
}

/// Everything injection depends on but the pod and its namespace.
#[derive(Debug, Clone)]
pub struct InjectSettings {
    pub options: InjectOptions,
    /// Where the control plane is.
    pub system_namespace: String,
    /// The roots to trust, as PEM.
    pub bundle: String,
}

/// Names no variable of a user may have: injection sets them, or capture depends on them.
pub(super) const RESERVED: [&str; 19] = [
    "WEFT_NAMESPACE",
    "WEFT_WORKLOAD",
    "WEFT_SERVICE_ACCOUNT",
    "WEFT_CONTROL_PLANE",
    "WEFT_BUNDLE",
    "WEFT_BUNDLE_PEM",
    "WEFT_JOIN_TOKEN_FILE",
    "WEFT_STATE_DIR",
    "WEFT_ADMIN",
    "WEFT_OUTBOUND",
    "WEFT_INBOUND",
    "WEFT_SOCKET_MARK",
    "WEFT_VIRTUAL_NETWORKS",
    "WEFT_DESTINATIONS",
    "WEFT_HEALTH",
    "WEFT_APP_PROBES",
    "WEFT_LOG",
    "WEFT_DRAIN_SECONDS",
    "WEFT_UPGRADE",
];

/// Environment variables, `NAME=VALUE` with white space between; the last of a name counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(Vec<(String, String)>);

/// Why a text is no list of variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariablesError {
    #[error("`{0}` is no variable; write NAME=VALUE, with spaces between several and none inside")]
    Form(String),
    #[error(
        "{0} is set by injection itself; the log level and the destinations have annotations of their own, the others \
         follow from the pod"
    )]
    Reserved(String),
}

impl Variables {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromStr for Variables {
    type Err = VariablesError;

    fn from_str(text: &str) -> Result<Self, VariablesError> {
        let mut variables: Vec<(String, String)> = Vec::new();
        for entry in text.split_whitespace() {
            let (name, value) = entry
                .split_once('=')
                .filter(|(name, _)| is_variable(name))
                .ok_or_else(|| VariablesError::Form(entry.chars().take(64).collect()))?;
            if RESERVED.contains(&name) {
                return Err(VariablesError::Reserved(name.to_owned()));
            }
            variables.retain(|(earlier, _)| earlier != name);
            variables.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self(variables))
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The shape of an image's name, so that a slip is told here and not by a node that cannot pull it.
pub(super) fn image(text: &str) -> Result<String, String> {
    let fits = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= 512
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._/:@-".contains(&byte));
    if fits { Ok(text.to_owned()) } else { Err("expected an image such as registry.example/weft-proxy:1.2".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_a_shell_writes_them() {
        let variables: Variables =
            " WEFT_IDLE_TIMEOUT=10m\nRUST_BACKTRACE=1 EMPTY= A=b=c  RUST_BACKTRACE=0".parse().unwrap();
        let expected = [("WEFT_IDLE_TIMEOUT", "10m"), ("EMPTY", ""), ("A", "b=c"), ("RUST_BACKTRACE", "0")];
        assert_eq!(variables.iter().collect::<Vec<_>>(), expected);
        assert_eq!("".parse(), Ok(Variables::default()));
    }

    #[test]
    fn variables_that_cannot_be_are_refused() {
        for text in ["A", "=b", "1A=b", "A-B=c", "A=b c"] {
            assert!(matches!(text.parse::<Variables>(), Err(VariablesError::Form(_))), "{text}");
        }
        for name in RESERVED {
            let refusal = format!("{name}=x").parse::<Variables>().unwrap_err();
            assert_eq!(refusal, VariablesError::Reserved(name.to_owned()));
        }
    }

    #[test]
    fn images_have_the_shape_of_images() {
        for (text, fits) in [
            (names::DEFAULT_PROXY_IMAGE, true),
            ("localhost:5000/weft@sha256:ab", true),
            ("", false),
            ("a b", false),
            ("/weft", false),
            ("a$(B)", false),
        ] {
            assert_eq!(image(text).is_ok(), fits, "{text}");
        }
    }
}

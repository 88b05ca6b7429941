//! Settings: environment and flags to checked values; every default has its reason.

mod tuning;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use tracing::level_filters::LevelFilter;

use weft_proto::names;

use crate::accept::Listen;
use crate::capture::Networks;
use crate::health::AppProbes;
use crate::identity::{Bundle, Roots};

pub use tuning::Tuning;

/// What `weft proxy` and `weft-proxy` can be told, by flag or environment.
// clap puts nothing into the group of a struct that flattens another, and finds an `Option` of it absent for ever: both
// programs said that they had no settings. Its required ones are named here.
#[derive(Debug, Clone, Args)]
#[group(args = ["workload", "control_plane", "bundle", "bundle_pem"])]
pub struct Settings {
    /// Namespace of the workload
    #[arg(long, env = "WEFT_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Name of the workload, unique in its namespace
    #[arg(long, env = "WEFT_WORKLOAD", value_name = "NAME")]
    pub workload: String,
    /// Service account whose identity the workload has
    #[arg(long, env = "WEFT_SERVICE_ACCOUNT", default_value = "default", value_name = "NAME")]
    pub service_account: String,
    /// Address of the control plane
    #[arg(long, env = "WEFT_CONTROL_PLANE", value_name = "HOST:PORT")]
    pub control_plane: String,
    /// File with the roots to trust (bundle.pem of the control plane)
    #[arg(long, env = "WEFT_BUNDLE", value_name = "FILE", required_unless_present = "bundle_pem")]
    pub bundle: Option<PathBuf>,
    /// The roots to trust themselves, in PEM form, instead of a file with them
    // It begins with hyphens.
    #[arg(
        long,
        env = "WEFT_BUNDLE_PEM",
        value_name = "PEM",
        conflicts_with = "bundle",
        allow_hyphen_values = true,
        hide_env_values = true
    )]
    pub bundle_pem: Option<Roots>,
    /// File with the join token, or with a pod's service-account token; read again whenever it is used
    #[arg(long, env = "WEFT_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
    /// Directory for the last good configuration, used while the control plane is away
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the admin endpoint listens: IP:PORT or unix:PATH
    // Loopback only: it shows the whole configuration.
    #[arg(long, env = "WEFT_ADMIN", value_delimiter = ',', default_value = "127.0.0.1:15000", value_name = "ADDRESS")]
    pub admin: Vec<AdminAddress>,
    /// Where the pod's health is asked for from outside: IP:PORT. Answers /ready, /live, /metrics and the application's
    /// probes; shows no configuration. Its port must be left alone by capture
    // Set in pods alone: a proxy that has it waits for the application when it is told to end.
    #[arg(long, env = "WEFT_HEALTH", value_delimiter = ',', value_name = "ADDRESS")]
    pub health: Vec<SocketAddr>,
    /// Probes of the application that the health endpoint makes, by CONTAINER/PROBE, in JSON, as a pod has them
    #[arg(long, env = "WEFT_APP_PROBES", value_name = "JSON")]
    pub app_probes: Option<AppProbes>,
    /// Whether the proxy is ready only when it has seen that its pod's traffic is captured: on or off
    // Off: outside of pods somebody else sees to it.
    #[arg(
        long,
        env = "WEFT_REQUIRE_CAPTURE",
        default_value = "off",
        action = clap::ArgAction::Set,
        value_parser = clap::builder::BoolishValueParser::new(),
        value_name = "on|off"
    )]
    pub require_capture: bool,
    /// Where redirected outbound connections arrive; IP:PORT=IP:PORT fixes the original destination
    // The kernel redirects local connections to loopback.
    #[arg(
        long,
        env = "WEFT_OUTBOUND",
        value_delimiter = ',',
        default_value = "127.0.0.1:15001,[::1]:15001",
        value_name = "ADDRESS"
    )]
    pub outbound: Vec<Listen>,
    /// Where redirected inbound connections arrive; IP:PORT=IP:PORT fixes the original destination
    // The kernel redirects to the address of the interface a connection came by: any.
    #[arg(
        long,
        env = "WEFT_INBOUND",
        value_delimiter = ',',
        default_value = "0.0.0.0:15006,[::]:15006",
        value_name = "ADDRESS"
    )]
    pub inbound: Vec<Listen>,
    /// Worker threads [default: the processors this process may use]
    #[arg(long, env = "WEFT_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// Mark of our own connections, where capture exempts by mark (needs `CAP_NET_ADMIN`)
    #[arg(long, env = "WEFT_SOCKET_MARK", value_name = "NUMBER")]
    pub socket_mark: Option<u32>,
    /// Networks of services and nothing else: connections to an address there that no service has are refused, not passed on
    /// in plaintext; `none` where something outside the mesh uses them too
    // One value, split by its own type: an empty list could not be said by a variable.
    #[arg(long, env = "WEFT_VIRTUAL_NETWORKS", default_value_t = virtual_networks(), value_name = "NETWORKS")]
    pub virtual_networks: Networks,
    /// Which destinations the proxy knows: all of the mesh, or those that its workload used lately. It asks for one when the first
    /// connection to it comes
    // All: what is known beforehand needs no control plane when it is called first.
    #[arg(long, env = "WEFT_DESTINATIONS", value_enum, default_value_t, value_name = "used|all")]
    pub destinations: Destinations,
    /// Log level: off, error, warn, info, debug, trace
    #[arg(long, env = "WEFT_LOG", default_value = "info", value_name = "LEVEL")]
    pub log: LevelFilter,
    /// Longest wait for connections to end after SIGTERM, in seconds
    // 25 s: inside the 30 s Kubernetes gives a pod.
    #[arg(long, env = "WEFT_DRAIN_SECONDS", default_value_t = 25, value_name = "SECONDS")]
    pub drain_seconds: u64,
    /// Longest wait for connections to end after this proxy was replaced by a new program, in seconds
    // 10 minutes: another process stands beside the new one for so long, and nobody waits for it. Long transfers and tunnels
    // end by themselves in that time more often than not.
    #[arg(long, env = "WEFT_HANDOVER_DRAIN_SECONDS", default_value_t = 600, value_name = "SECONDS")]
    pub handover_drain_seconds: u64,
    /// Whether the control plane may give this proxy another program while it runs under a supervisor: live or on-restart
    // The mesh must want it too, and by default does not.
    #[arg(long, env = "WEFT_UPGRADE", value_enum, default_value_t = Upgrade::Live, value_name = "WHEN")]
    pub upgrade: Upgrade,
    /// The protocol of the supervisor at standard input; `weft-proxy supervise` alone sets it
    #[arg(long, hide = true, value_name = "PROTOCOL")]
    pub supervised: Option<u16>,
    #[command(flatten)]
    pub tuning: Tuning,
}

/// Those the control plane gives addresses of.
fn virtual_networks() -> Networks {
    names::VIRTUAL_NETWORKS.join(",").parse().expect("a test reads them")
}

/// When a proxy gets another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Upgrade {
    /// Also while it runs, if the mesh wants that.
    Live,
    /// When it restarts, whatever the mesh wants.
    OnRestart,
}

/// Which destinations a proxy knows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Destinations {
    /// Those its workload uses.
    Used,
    /// Every one of the mesh.
    #[default]
    All,
}

impl std::fmt::Display for Destinations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Used => "used",
            Self::All => "all",
        })
    }
}

/// Where an admin listener stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Why a text is not an admin address.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an admin address; expected IP:PORT or unix:PATH")]
pub struct ParseAdminAddressError(String);

impl FromStr for AdminAddress {
    type Err = ParseAdminAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ParseAdminAddressError(text.to_owned())),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| ParseAdminAddressError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Settings {
    /// Worker threads: as many as processors, which follows affinity and cgroup quotas.
    pub fn worker_count(&self) -> usize {
        self.workers.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
    }

    /// The roots to trust.
    pub fn bundle(&self) -> Bundle {
        match (&self.bundle_pem, &self.bundle) {
            (Some(roots), _) => Bundle::Literal(roots.clone()),
            (None, file) => Bundle::File(file.clone().expect("one of the two is required")),
        }
    }

    /// Whether other containers share our network namespace and are told to end before us: where the pod's health is asked
    /// for, Kubernetes does that.
    pub fn is_in_pod(&self) -> bool {
        !self.health.is_empty()
    }

    /// `NAMESPACE/SERVICE-ACCOUNT`, as signals call the source.
    pub fn source(&self) -> String {
        format!("{}/{}", self.namespace, self.service_account)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// As both programs hold them: beside subcommands that need none.
    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        settings: Option<Settings>,
    }

    #[test]
    fn settings_are_found_where_they_are_optional() {
        let arguments = ["weft-proxy", "--workload", "orders-1", "--control-plane", "127.0.0.1:1", "--bundle", "b.pem"];
        let settings = Program::parse_from(arguments).settings.expect("they are there");
        assert_eq!((settings.workload.as_str(), settings.namespace.as_str()), ("orders-1", "default"));
        assert_eq!(settings.virtual_networks.to_string(), "10.96.0.0/16,fd57:0:0:1::/64");
    }

    #[test]
    fn the_roots_are_a_file_or_literal_and_never_both_or_none() {
        let root = crate::tls::testing::TestRoot::new();
        let pem = root.pem();
        let with = |more: &[&str]| {
            let arguments = ["weft-proxy", "--workload", "w", "--control-plane", "c:1"];
            Program::try_parse_from(arguments.iter().chain(more))
                .map(|program| program.settings.expect("they are there").bundle())
                .map_err(|error| error.to_string())
        };
        assert!(matches!(with(&["--bundle", "b.pem"]).expect("valid"), Bundle::File(_)));
        assert!(matches!(with(&["--bundle-pem", pem]).expect("valid"), Bundle::Literal(_)));
        let cases: [(&[&str], &str); 3] = [
            (&[], "required"),
            (&["--bundle", "b.pem", "--bundle-pem", pem], "cannot be used with"),
            (&["--bundle-pem", "b.pem"], "no certificate in PEM form"),
        ];
        for (more, expected) in cases {
            let error = with(more).expect_err("refused");
            assert!(error.contains(expected), "{more:?}: {error}");
        }
    }

    #[test]
    fn networks_are_one_value_and_may_be_none() {
        let with = |networks| {
            let arguments = [
                "weft-proxy",
                "--workload",
                "w",
                "--control-plane",
                "c:1",
                "--bundle",
                "b",
                "--virtual-networks",
                networks,
            ];
            Program::try_parse_from(arguments).map(|program| program.settings.expect("they are there").virtual_networks)
        };
        assert_eq!(with("none").expect("valid"), Networks::default());
        assert_eq!(with("10.0.0.0/8,fd00::/8").expect("valid").to_string(), "10.0.0.0/8,fd00::/8");
        assert!(with("10.0.0.0/33").is_err());
    }
}

//! Labels, annotations, ports and names of our objects in a cluster. Spelled here and nowhere else, but for those that the
//! proxy and the node's plugin know too.

use weft_proto::names as shared;
use weft_proto::names::annotation;

/// On a Namespace or a Pod: `enabled` or `disabled`; a Pod's own counts before its namespace's.
pub const INJECT_LABEL: &str = "weft.dev/inject";
pub const ENABLED: &str = "enabled";
pub const DISABLED: &str = "disabled";

/// Set on an injected pod: hash of what it was injected with. A pod that has it is not injected again with the same.
pub const INJECTED_ANNOTATION: &str = annotation::INJECTED;
/// On a Pod: local TCP ports, separated by commas, whose incoming connections go past the proxy.
pub const EXCLUDE_INBOUND_PORTS: &str = annotation::EXCLUDE_INBOUND_PORTS;
/// On a Pod: destination ports whose connections go past the proxy.
pub const EXCLUDE_OUTBOUND_PORTS: &str = annotation::EXCLUDE_OUTBOUND_PORTS;
/// On a Pod: destination networks whose connections go past the proxy.
pub const EXCLUDE_OUTBOUND_CIDRS: &str = annotation::EXCLUDE_OUTBOUND_CIDRS;
/// On a Pod: the only destination networks whose connections go through the proxy.
pub const INCLUDE_OUTBOUND_CIDRS: &str = annotation::INCLUDE_OUTBOUND_CIDRS;
/// On a Pod: user ids whose connections go past the proxy.
pub const EXCLUDE_UIDS: &str = annotation::EXCLUDE_UIDS;
/// On a Pod: resources of the proxy's container, as Kubernetes writes quantities.
pub const PROXY_CPU_REQUEST: &str = "weft.dev/proxy-cpu-request";
pub const PROXY_CPU_LIMIT: &str = "weft.dev/proxy-cpu-limit";
pub const PROXY_MEMORY_REQUEST: &str = "weft.dev/proxy-memory-request";
pub const PROXY_MEMORY_LIMIT: &str = "weft.dev/proxy-memory-limit";
/// On a Pod: log level of the proxy.
pub const PROXY_LOG_LEVEL: &str = "weft.dev/proxy-log-level";
/// On a Pod: image of the proxy, instead of the mesh's.
pub const PROXY_IMAGE: &str = "weft.dev/proxy-image";
/// On a Pod: who captures, `init` (an init container) or `cni` (the node's plugin), instead of the mesh's choice.
pub const CAPTURE: &str = annotation::CAPTURE;
/// On a Pod: which destinations its proxy knows, `used` (those it called lately) or `all`, instead of the mesh's choice.
pub const DESTINATIONS: &str = annotation::DESTINATIONS;
/// On a Pod: further settings of the proxy as variables, `NAME=VALUE` with spaces between.
pub const PROXY_ENV: &str = "weft.dev/proxy-env";
/// On a Pod: a strategic merge patch of the proxy's container, as JSON.
pub const PROXY_PATCH: &str = "weft.dev/proxy-patch";
/// On a Pod: how long its applications go on after it was deleted, before they are told, in whole seconds.
pub const DEPARTURE_SECONDS: &str = "weft.dev/departure-seconds";
/// On a Pod: whether its running proxy may be given another program, `live` (as the mesh says) or `on-restart` (never).
pub const PROXY_UPGRADE: &str = "weft.dev/proxy-upgrade";
/// Everything a Pod's author may say by annotation.
pub const POD_ANNOTATIONS: [&str; 17] = [
    EXCLUDE_INBOUND_PORTS,
    EXCLUDE_OUTBOUND_PORTS,
    EXCLUDE_OUTBOUND_CIDRS,
    INCLUDE_OUTBOUND_CIDRS,
    EXCLUDE_UIDS,
    PROXY_CPU_REQUEST,
    PROXY_CPU_LIMIT,
    PROXY_MEMORY_REQUEST,
    PROXY_MEMORY_LIMIT,
    PROXY_LOG_LEVEL,
    PROXY_IMAGE,
    CAPTURE,
    DESTINATIONS,
    PROXY_ENV,
    PROXY_PATCH,
    DEPARTURE_SECONDS,
    PROXY_UPGRADE,
];
/// On a Service: protocols of ports that say none themselves, `8080=grpc,9000=tcp`.
pub const PROTOCOLS: &str = "weft.dev/protocols";

/// Where everything of ours is, unless it is installed elsewhere.
pub const SYSTEM_NAMESPACE: &str = shared::SYSTEM_NAMESPACE;
/// Namespaces of the cluster itself: never injected.
pub const EXEMPT_NAMESPACES: [&str; 3] = shared::EXEMPT_NAMESPACES;
/// Deployment, Service, ServiceAccount, roles of the control plane.
pub const CONTROL_PLANE: &str = "weft-control-plane";
/// `app.kubernetes.io/name` and `app.kubernetes.io/managed-by` of all our objects.
pub const APP_NAME: &str = "weft";
/// DaemonSet, ServiceAccount and roles of the CNI plugin's installer.
pub const CNI: &str = shared::CNI;
/// Taint of nodes whose CNI plugin is not there yet.
pub const CNI_TAINT: &str = shared::CNI_TAINT;
/// Mutating and validating webhook configurations.
pub const INJECTOR: &str = "weft-injector";
pub const VALIDATOR: &str = "weft-validator";
/// Secret with the root's certificate and key (`tls.crt`, `tls.key`).
pub const ROOT_SECRET: &str = "weft-root";
/// On the Secret: the trust domain of its root.
pub const TRUST_DOMAIN_ANNOTATION: &str = "weft.dev/trust-domain";
/// ConfigMap with the roots to trust, under [`BUNDLE_KEY`].
pub const BUNDLE_CONFIG_MAP: &str = "weft-bundle";
pub const BUNDLE_KEY: &str = "bundle.pem";
/// ConfigMap with the settings `weft install` was given, under [`VALUES_KEY`]: an upgrade starts from them.
pub const VALUES_CONFIG_MAP: &str = "weft-values";
pub const VALUES_KEY: &str = "values.yaml";
/// Lease of the one replica that writes.
pub const LEADER_LEASE: &str = "weft-leader";
/// ServiceAccount whose short-lived tokens the command line shows to the control plane; audience [`CLI_AUDIENCE`].
pub const READER: &str = "weft-reader";
/// The same of those who may change what running proxies do.
pub const OPERATOR: &str = "weft-operator";
/// Field manager of our server-side apply.
pub const FIELD_MANAGER: &str = "weft";
/// Field manager of the roots in webhook configurations and the bundle: another than that of the rest, which would lose
/// what this one does not name.
pub const BUNDLE_FIELD_MANAGER: &str = "weft-bundle";

/// Audience of the tokens by which proxies prove who they are.
pub const PROXY_AUDIENCE: &str = "weft.dev";
pub const CLI_AUDIENCE: &str = "cli.weft.dev";
/// Audience of the tokens that replicas of the control plane show to each other.
pub const REPLICA_AUDIENCE: &str = "replica.weft.dev";
/// Where a replica's own is mounted.
pub const REPLICA_TOKEN_DIRECTORY: &str = "/var/run/secrets/weft.dev";
pub const REPLICA_TOKEN_FILE: &str = "/var/run/secrets/weft.dev/replica-token";
/// What a replica knows of its proxies, on [`API_PORT`].
pub const REPORT_PATH: &str = "/api/report";
/// The header in which the command line sends its token: `Authorization` does not pass the API server's proxy.
pub const CLI_TOKEN_HEADER: &str = "weft-authorization";

/// Control plane: identities and ADS.
pub const XDS_PORT: u16 = weft_proto::names::CONTROL_PLANE_PORT;
/// Control plane: HTTPS of the webhooks (`/inject`, `/validate`). The Service has it as 443.
pub const WEBHOOK_PORT: u16 = 15017;
/// Control plane: HTTP of probes, metrics and the command line (`/ready`, `/live`, `/metrics`, `/api/...`).
pub const API_PORT: u16 = 15014;
/// Proxy: probes and metrics (`/ready`, `/live`, `/metrics`, `/app-probe/...`), reachable from outside the pod.
pub const HEALTH_PORT: u16 = shared::HEALTH_PORT;
/// Proxy: its admin endpoint, on loopback.
pub const ADMIN_PORT: u16 = 15000;
/// Below it, on [`HEALTH_PORT`], are the application's probes: `CONTAINER/readiness` and the like.
pub const APP_PROBE_PATH: &str = "/app-probe/";
/// User and group id of the proxy in a pod.
pub const PROXY_UID: i64 = 14001;

/// The proxy's image of this version.
pub const DEFAULT_PROXY_IMAGE: &str = concat!("ghcr.io/weft-mesh/weft-proxy:", env!("CARGO_PKG_VERSION"));
/// Its entry point.
pub const PROXY_PROGRAM: &str = "/weft-proxy";
/// Its verb that runs the proxy as a child, whose program can be replaced.
pub const SUPERVISE: &str = "supervise";

/// Name of the sidecar's container, of the capturing init container and of our volume in a pod.
pub const PROXY_CONTAINER: &str = "weft-proxy";
pub const INIT_CONTAINER: &str = shared::INIT_CONTAINER;
pub const TOKEN_VOLUME: &str = "weft-token";
/// Where the token is mounted.
pub const TOKEN_DIRECTORY: &str = "/var/run/secrets/weft.dev";
pub const TOKEN_FILE: &str = "/var/run/secrets/weft.dev/token";

//! Names both ends must agree on: type URLs, metadata keys, ALPN protocols, token metadata.

/// `envoy.config.listener.v3.Listener`
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// `envoy.config.route.v3.RouteConfiguration`
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// `envoy.config.cluster.v3.Cluster`
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// `envoy.config.endpoint.v3.ClusterLoadAssignment`
pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// Our own `weft.v1.Destination`: who is behind an address.
pub const DESTINATION: &str = "type.googleapis.com/weft.v1.Destination";
/// A node with this client feature asks for the destinations it uses, by address: its wildcard subscriptions mean what is for
/// its own workload alone. Of everything else it asks for the listeners and clusters it needs, by name.
pub const ASKS_FOR_DESTINATIONS: &str = "weft.dev/asks-for-destinations";

/// Network filter: `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`
pub const HTTP_CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
/// HTTP filter: `envoy.extensions.filters.http.router.v3.Router`
pub const HTTP_PROTOCOL_OPTIONS: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
pub const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
/// Listener filter: `envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector`
pub const TLS_INSPECTOR: &str = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
/// Retry predicate: `envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate`
pub const PREVIOUS_HOSTS: &str =
    "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
/// Network filter: `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`
pub const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// Transport socket: `envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext`
pub const UPSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
/// Transport socket: `envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer`
pub const RAW_BUFFER: &str = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
/// Transport socket: `envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`
pub const DOWNSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

/// Key of our facts in `filter_metadata` of resources and in the metadata of a node.
///
/// On a Cluster: `namespace`, `service` (text), `port` (number). On an endpoint: `workload` (text).
/// On a Listener of undeclared protocol: [`DETECTED`] (text), once somebody saw what its port speaks.
/// On a Node: `namespace`, `workload`, `admin` (text), `version` (text).
pub const METADATA: &str = "weft.dev";

/// Key of an endpoint's metadata that a cluster's `transport_socket_matches` look at.
pub const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";
/// There, on an endpoint without a proxy: reached in plaintext. Every other endpoint of the cluster is reached by mutual TLS.
pub const PLAINTEXT: &str = "weft.dev/plaintext";

/// Networks whose addresses the control plane gives to services that name none.
pub const VIRTUAL_NETWORKS: [&str; 2] = ["10.96.0.0/16", "fd57:0:0:1::/64"];

/// In a Listener's metadata: what its port was seen to speak, as reports name it.
pub const DETECTED: &str = "detected";
/// Fact about a cluster that connections to any port of its endpoints' addresses are for it. The port its endpoints have,
/// [`INBOUND_PORT`], stands for all.
pub const ANY_PORT: &str = "any_port";
/// Fact about such a cluster: ports that are not meant.
pub const EXCEPT_PORTS: &str = "except_ports";

/// Name of the SDS secret that stands for the workload's own certificate.
pub const IDENTITY_SECRET: &str = "weft/identity";
/// Name of the SDS secret that stands for the mesh's trust bundle.
pub const BUNDLE_SECRET: &str = "weft/bundle";

/// ALPN of mesh connections that carry HTTP/1.1.
pub const ALPN_HTTP1: &[u8] = b"weft/http1";
/// ALPN of mesh connections that carry HTTP/2.
pub const ALPN_HTTP2: &[u8] = b"weft/h2";
/// ALPN of mesh connections that carry many HTTP/1.1 connections, each as a stream of HTTP/2 frames.
pub const ALPN_MUX: &[u8] = b"weft/mux";
/// ALPN of mesh connections that carry opaque bytes.
pub const ALPN_TCP: &[u8] = b"weft/tcp";
/// ALPN of mesh connections whose protocol nobody declared: the far side watches too.
pub const ALPN_DETECT: &[u8] = b"weft/detect";

/// The name in the control plane's serving certificate.
pub const CONTROL_PLANE_DNS: &str = "control-plane.weft";

/// Port the proxy takes outbound connections on.
pub const OUTBOUND_PORT: u16 = 15001;
/// Port the proxy takes inbound connections on.
pub const INBOUND_PORT: u16 = 15006;
/// Port of the proxy's admin endpoint.
pub const ADMIN_PORT: u16 = 15000;
/// Port of the control plane.
pub const CONTROL_PLANE_PORT: u16 = 15010;

/// Annotations of Pods that injection and the node's plugin both read.
pub mod annotation {
    /// Hash of what the pod was injected with.
    pub const INJECTED: &str = "weft.dev/injected";
    /// Who captures: `init` or `cni`.
    pub const CAPTURE: &str = "weft.dev/capture";
    pub const EXCLUDE_INBOUND_PORTS: &str = "weft.dev/exclude-inbound-ports";
    pub const EXCLUDE_OUTBOUND_PORTS: &str = "weft.dev/exclude-outbound-ports";
    pub const EXCLUDE_OUTBOUND_CIDRS: &str = "weft.dev/exclude-outbound-cidrs";
    pub const INCLUDE_OUTBOUND_CIDRS: &str = "weft.dev/include-outbound-cidrs";
    pub const EXCLUDE_UIDS: &str = "weft.dev/exclude-uids";
    /// Which destinations the pod's proxy knows: `used` or `all`.
    pub const DESTINATIONS: &str = "weft.dev/destinations";
}

/// Port of a proxy in a pod where probes and metrics are asked for from outside.
pub const HEALTH_PORT: u16 = 15020;
/// Name of the container that captures, where the node's plugin does not.
pub const INIT_CONTAINER: &str = "weft-init";
/// Where everything of ours is in a cluster, unless it is installed elsewhere.
pub const SYSTEM_NAMESPACE: &str = "weft-system";
/// Namespaces of the cluster itself.
pub const EXEMPT_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
/// The node's plugin: its program, its type in a network configuration, its `DaemonSet`.
pub const CNI: &str = "weft-cni";
/// Taint of nodes whose plugin is not there yet.
pub const CNI_TAINT: &str = "weft.dev/cni-not-ready";
/// Most bytes of a proxy program that a running proxy takes: it holds them in its memory. 64 MiB: several times what one has.
pub const LARGEST_PROGRAM_BYTES: u64 = 64 << 20;

/// A digest as messages have it: lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

//! Envoy as a workload's proxy: a certificate of the mesh, a bootstrap, and its admin endpoint.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use weft_proto::weft::SignRequest;
use weft_proto::weft::identity_client::IdentityClient;
use weft_tests::process::plane::Plane;
use weft_tests::process::python::{self, ENVOY};
use weft_tests::process::{Port, Process, command, holds, http, run, until};

/// A key and its certificates in PEM.
pub(crate) struct Signed {
    pub(crate) key: String,
    pub(crate) chain: String,
}

/// Runs a future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be had").block_on(future)
}

/// A channel to the control plane, with this certificate or none.
pub(crate) async fn channel(plane: &Plane, signed: Option<&Signed>) -> Channel {
    let bundle = std::fs::read_to_string(plane.bundle()).expect("the bundle is there");
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(bundle)).domain_name("control-plane.weft");
    let tls = match signed {
        Some(signed) => tls.identity(Identity::from_pem(&signed.chain, &signed.key)),
        None => tls,
    };
    let endpoint = Endpoint::from_shared(format!("https://{}", plane.address())).expect("an address makes a URL");
    endpoint.tls_config(tls).expect("the settings are sound").connect().await.expect("the control plane answers")
}

/// Gets a certificate as any client can: a P-256 key, a signing request, a join token.
pub(crate) fn sign(plane: &Plane, account: &str) -> Signed {
    let token = std::fs::read_to_string(plane.token(account)).expect("the token was just written");
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request can be made");
    let request = SignRequest {
        token: token.trim().to_owned(),
        csr: request.der().to_vec(),
        namespace: "default".to_owned(),
        service_account: account.to_owned(),
    };
    let answer = block_on(async { IdentityClient::new(channel(plane, None).await).sign(request).await });
    let chain = answer.expect("the token is good").into_inner().chain;
    Signed { key: key.serialize_pem(), chain: chain.iter().map(|der| pem(der)).collect() }
}

/// A certificate in PEM (RFC 7468).
fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let bits =
                three.iter().chain([0; 3].iter()).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
            for digit in 0..4 {
                let found = char::from(DIGITS[bits >> (18 - 6 * digit) & 63]);
                text.push(if digit <= three.len() { found } else { '=' });
            }
        }
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// Which variant of the protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Variant {
    Delta,
    StateOfTheWorld,
}

/// A running Envoy.
pub(crate) struct Envoy {
    admin: Port,
    process: Process,
}

impl Envoy {
    /// Starts Envoy beside the workload `envoy-1` of the account `client`. What it takes at `outbound` goes to the cluster `to`.
    pub(crate) fn start(plane: &Plane, variant: Variant, outbound: &Port, to: &str) -> Self {
        let hosts = json!([{
            "name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": to}}],
        }]);
        let routes = json!({"name": "test", "validate_clusters": false, "virtual_hosts": hosts});
        Self::routed(plane, variant, outbound, ("route_config", routes))
    }

    /// The same, by the routes of this name.
    pub(crate) fn start_with_routes(plane: &Plane, variant: Variant, outbound: &Port, name: &str) -> Self {
        let over_ads = json!({"resource_api_version": "V3", "ads": {}});
        let routes = json!({"route_config_name": name, "config_source": over_ads});
        Self::routed(plane, variant, outbound, ("rds", routes))
    }

    fn routed(plane: &Plane, variant: Variant, outbound: &Port, routes: (&str, Value)) -> Self {
        let place = plane.place().join("envoy");
        std::fs::create_dir(&place).expect("the place can be written to");
        let signed = sign(plane, "client");
        let (key, chain) = (place.join("key.pem"), place.join("chain.pem"));
        std::fs::write(&key, &signed.key).expect("the place can be written to");
        std::fs::write(&chain, &signed.chain).expect("the place can be written to");
        let admin = Port::reserve();
        let bootstrap = bootstrap(plane, variant, (&key, &chain), &admin, (outbound, routes));
        let path = place.join("bootstrap.json");
        std::fs::write(&path, bootstrap.to_string()).expect("the place can be written to");
        let mut envoy = command(program());
        envoy.arg("--config-path").arg(path).args([
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "info",
        ]);
        let process = Process::start("Envoy", &mut envoy, &plane.place().join("envoy.log"));
        let mut envoy = Self { admin, process };
        until("Envoy answers", || {
            if let Some(status) = envoy.process.has_ended() {
                panic!("Envoy has ended with {status}");
            }
            http::get(envoy.admin.address(), "/ready").map_err(|error| error.to_string())
        });
        envoy
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    pub(crate) fn ask(&self, path: &str) -> String {
        http::get(self.admin.address(), path).expect("Envoy's admin endpoint answers").body
    }

    /// Statistics whose names match.
    pub(crate) fn statistics(&self, filter: &str) -> BTreeMap<String, u64> {
        let text = self.ask(&format!("/stats?filter={filter}"));
        text.lines()
            .filter_map(|line| line.rsplit_once(": "))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// Names of the resources of a kind that are in force (`dynamic_active_clusters`), and how many are not yet.
    pub(crate) fn clusters(&self) -> (Vec<String>, usize) {
        let dump = self.dump("resource=dynamic_active_clusters");
        let name = |cluster: &Value| cluster["cluster"]["name"].as_str().unwrap_or_default().to_owned();
        let mut active: Vec<String> = dump.iter().map(name).collect();
        active.sort();
        (active, self.dump("resource=dynamic_warming_clusters").len())
    }

    /// Names of active listeners, and of those refused or not complete, with the reason. One that drains is neither.
    pub(crate) fn listeners(&self) -> (Vec<String>, Vec<String>) {
        let mut active = Vec::new();
        let mut other = Vec::new();
        for listener in self.dump("resource=dynamic_listeners") {
            let name = listener["name"].as_str().unwrap_or_default().to_owned();
            if !listener["error_state"].is_null() || !listener["warming_state"].is_null() {
                other.push(format!("{name}: {}", listener["error_state"]["details"]));
            } else if !listener["active_state"].is_null() {
                active.push(name);
            }
        }
        active.sort();
        (active, other)
    }

    fn dump(&self, query: &str) -> Vec<Value> {
        let text = self.ask(&format!("/config_dump?{query}"));
        // Without any such resource Envoy answers with a sentence.
        let dump: Value = serde_json::from_str(&text).unwrap_or_default();
        dump["configs"].as_array().cloned().unwrap_or_default()
    }

    /// Addresses of a cluster's hosts.
    pub(crate) fn hosts(&self, cluster: &str) -> Vec<SocketAddr> {
        let text = self.ask("/clusters?format=json");
        let all: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let statuses = all["cluster_statuses"].as_array().cloned().unwrap_or_default();
        let found = statuses.iter().find(|status| status["name"] == cluster);
        let hosts = found.and_then(|status| status["host_statuses"].as_array()).cloned().unwrap_or_default();
        let address = |host: &Value| {
            let socket = &host["address"]["socket_address"];
            let ip = socket["address"].as_str().and_then(|ip| ip.parse().ok())?;
            Some(SocketAddr::new(ip, u16::try_from(socket["port_value"].as_u64()?).ok()?))
        };
        hosts.iter().filter_map(address).collect()
    }

    /// Waits until Envoy has exactly these hosts.
    pub(crate) fn has_hosts(&self, cluster: &str, mut expected: Vec<SocketAddr>) {
        expected.sort();
        until("Envoy follows the endpoints", || {
            let mut found = self.hosts(cluster);
            found.sort();
            holds(found == expected, || format!("{found:?}, not {expected:?}"))
        });
    }
}

/// The program in the wheel.
fn program() -> PathBuf {
    let python = python::interpreter(ENVOY);
    let where_it_is = "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))";
    PathBuf::from(run(command(python).args(["-c", where_it_is])).succeeded().trim())
}

fn bootstrap(plane: &Plane, variant: Variant, own: (&Path, &Path), admin: &Port, to: (&Port, (&str, Value))) -> Value {
    let (outbound, (specifier, routes)) = to;
    let address = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let api_type = match variant {
        Variant::Delta => "DELTA_GRPC",
        Variant::StateOfTheWorld => "GRPC",
    };
    let certificate = json!({"private_key": {"filename": own.0}, "certificate_chain": {"filename": own.1}});
    let over_ads = json!({"resource_api_version": "V3", "ads": {}});
    json!({
        "node": {
            "id": "default/envoy-1", "cluster": "client",
            "metadata": {"weft.dev": {"namespace": "default", "workload": "envoy-1"}},
        },
        "admin": {"address": address(admin.address())},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type, "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "control-plane"}}],
            },
            "cds_config": over_ads, "lds_config": over_ads,
        },
        "static_resources": {
            // What the resources call by name without a source, the client has itself.
            "secrets": [
                {"name": "weft/identity", "tls_certificate": certificate},
                {"name": "weft/bundle", "validation_context": {"trusted_ca": {"filename": plane.bundle()}}},
            ],
            "clusters": [{
                "name": "control-plane", "type": "STATIC", "connect_timeout": "5s",
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }},
                "load_assignment": {
                    "cluster_name": "control-plane",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(plane.address())}}]}],
                },
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": "control-plane.weft",
                    "common_tls_context": {
                        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                        "tls_certificates": [certificate],
                        "validation_context": {
                            "trusted_ca": {"filename": plane.bundle()},
                            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "control-plane.weft"}}],
                        },
                    },
                }},
            }],
            // The listeners of the mesh do not bind: this one stands in for the kernel's redirection.
            "listeners": [{
                "name": "test", "address": address(outbound.address()),
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "test",
                        specifier: routes,
                        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                        }}],
                    },
                }]}],
            }],
        },
    })
}

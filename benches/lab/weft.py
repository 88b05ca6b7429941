"""The shipped programs as subjects, in the product's configuration: a control plane, proxies that it feeds and signs
for, routes, balancing, metrics, and identities verified on both sides."""

import re
import subprocess
import urllib.request

import certificates
import processes
from processes import Plan, Program, Skip

# Virtual addresses; nothing redirects here, so the proxies are told where each of their ports was going.
SERVICE, WORKLOAD = "10.96.0.1", "10.97.0.5"

OUTSIDE = """
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: orders}
spec:
  addresses: [{service}]
  ports: [{name: port, port: 80, targetPort: {upstream}, protocol: {protocol}}]
  endpoints: [{address: 127.0.0.1, port: {upstream}}]
"""
MESHED = """
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: orders}
spec:
  addresses: [{service}]
  ports: [{name: port, port: 80, targetPort: {upstream}, protocol: {protocol}}]
  selector: {app: orders}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: orders-1, labels: {app: orders}}
spec:
  addresses: [{workload}]
  serviceAccount: orders
  advertise: [{port: {upstream}, at: "127.0.0.1:{inbound}"}]
"""
CALLER = """
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: caller}
spec: {addresses: [10.97.0.7], serviceAccount: caller}
"""
UNUSED = """
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: service-{number}}
spec: {ports: [{name: http, port: 80, protocol: http}], endpoints: [{address: 127.0.0.1, port: {upstream}}]}
"""

# What a port may be declared as; the first that the control plane knows and that works is measured.
DECLARED = {"http1": ["http"], "http2": ["http2", "http", "tcp"], "grpc": ["grpc", "http2", "http", "tcp"], "tcp": ["tcp"]}
# What a mesh connection says it carries.
ALPN = {"http1": "weft/http1", "tcp": "weft/tcp"}


def plan(place, setting, name):
    for program in ("weft", "weft-proxy"):
        if not (place.programs / program).exists():
            raise Skip(f"{place.programs / program} is not built")
    inbound, outbound = processes.free_port(), processes.free_port()
    document = (OUTSIDE if setting.chain == "plain" else MESHED) + CALLER
    document += "".join(UNUSED.replace("{number}", str(number)) for number in range(setting.services))
    values = {"service": SERVICE, "workload": WORKLOAD, "upstream": setting.upstream, "inbound": inbound}
    declared = setting.declared or DECLARED[setting.protocol][0]
    mesh = Mesh(place, setting.resume)
    mesh.apply(fill(document, values | {"protocol": declared}))
    second = lambda: mesh.proxy(name, "orders-1", "orders", inbound=f"127.0.0.1:{inbound}={WORKLOAD}:{setting.upstream}")
    first = lambda: mesh.proxy(name, "caller", "caller", outbound=f"127.0.0.1:{outbound}={SERVICE}:80")
    note = f"declared as {declared}" if declared != DECLARED[setting.protocol][0] else ""
    if setting.chain == "side":
        client = mesh.client("caller") | {"alpn": ALPN[setting.protocol]}
        return Plan(name, [second()], inbound, client, note, mesh.metrics)
    programs = [first()] if setting.chain == "plain" else [second(), first()]
    return Plan(name, programs, outbound, note=note, metrics=mesh.metrics)


def fill(document, values):
    return re.sub(r"\{(%s)\}" % "|".join(values), lambda found: str(values[found[1]]), document)


def resumed(subject):
    """The share of handshakes that resumed a session, as the proxies count; 0 where they count none."""
    found = {"full": 0.0, "resumed": 0.0}
    for url in subject.metrics:
        with urllib.request.urlopen(url, timeout=5) as answer:
            for kind, count in re.findall(r'weft_tls_handshakes_total\{.*kind="(\w+)".*\} (\S+)', answer.read().decode()):
                found[kind] = found.get(kind, 0.0) + float(count)
    return found["resumed"] / sum(found.values()) if any(found.values()) else 0.0


class Mesh:
    """A control plane, and proxies that use it."""

    def __init__(self, place, resume):
        self.place = place
        self.resume = resume
        self.metrics = []
        self.directory = place.directory("weft")
        self.data = self.directory / "data"
        self.address = f"127.0.0.1:{processes.free_port()}"
        command = [place.programs / "weft", "control-plane", "--data", self.data, "--listen", self.address]
        program = Program("control-plane", command, (self.data / "api.sock").exists)
        processes.wait_until(program.is_ready, "the control plane", place.start(program, place.load_cpu))

    def apply(self, documents):
        path = self.directory / "lab.yaml"
        path.write_text(documents)
        done = self.weft("apply", "-f", path)
        if done.returncode != 0:
            raise Skip(f"weft apply: {done.stderr.strip()[:300]}")

    def weft(self, *arguments):
        command = [self.place.programs / "weft", *arguments, "--data", self.data]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True)

    def proxy(self, name, workload, account, outbound=None, inbound=None):
        made = self.weft("token", "create", "--service-account", account)
        if made.returncode != 0:
            raise Skip(f"weft token create: {made.stderr}")
        token = self.directory / f"{workload}.token"
        token.write_text(made.stdout)
        state = self.directory / f"{workload}.state"
        state.mkdir(exist_ok=True)
        admin = f"127.0.0.1:{processes.free_port()}"
        self.metrics.append(f"http://{admin}/metrics")
        environment = {
            # As in pods: told of what it calls, not of the whole mesh.
            "WEFT_DESTINATIONS": "used",
            "WEFT_TLS_RESUMPTION": "on" if self.resume else "off",
            "WEFT_WORKLOAD": workload, "WEFT_SERVICE_ACCOUNT": account, "WEFT_CONTROL_PLANE": self.address,
            "WEFT_BUNDLE": str(self.data / "bundle.pem"), "WEFT_JOIN_TOKEN_FILE": str(token), "WEFT_ADMIN": admin,
            "WEFT_STATE_DIR": str(state), "WEFT_OUTBOUND": outbound or "127.0.0.1:0",
            "WEFT_INBOUND": inbound or "127.0.0.1:0", "WEFT_WORKERS": "1", "WEFT_LOG": "warn",
        }
        return Program(f"{name}-{workload}", [self.place.programs / "weft-proxy"],
                       processes.answers(f"http://{admin}/ready"), environment)

    def client(self, account):
        """A certificate of the mesh for a load that calls a proxy's TLS side itself."""
        root = self.data / "ca/root.pem"
        text = subprocess.run(["openssl", "x509", "-in", root, "-noout", "-text"], capture_output=True, text=True).stdout
        domain = re.search(r"URI:spiffe://([^\s,]+)", text)[1]
        uri = f"URI:spiffe://{domain}/ns/default/sa/{account}"
        certificates.signed(self.directory, "client", uri, root, self.data / "ca/root.key")
        return {"certificate": self.directory / "client.pem", "key": self.directory / "client.key"}

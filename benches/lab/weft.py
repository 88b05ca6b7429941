"""The shipped programs as subjects: one control plane, a proxy that calls in plaintext, and a meshed pair."""

import subprocess

import processes
from processes import Subject

# Virtual addresses; nothing redirects here, so the proxies are told where each of their ports was going.
OUTSIDE, ORDERS, WORKLOAD = "10.96.0.1", "10.96.0.2", "10.97.0.5"

DOCUMENTS = """
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {{name: outside}}
spec:
  addresses: [{outside}]
  ports: [{{name: http, port: 80, targetPort: {application}, protocol: http}}]
  endpoints: [{{address: 127.0.0.1, port: {application}}}]
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {{name: orders}}
spec:
  addresses: [{orders}]
  ports: [{{name: http, port: 80, targetPort: {application}, protocol: http}}]
  selector: {{app: orders}}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: orders-1, labels: {{app: orders}}}}
spec:
  addresses: [{workload}]
  serviceAccount: orders
  advertise: [{{port: {application}, at: "127.0.0.1:{inbound}"}}]
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: plain}}
spec: {{addresses: [10.97.0.6], serviceAccount: caller}}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {{name: caller}}
spec: {{addresses: [10.97.0.7], serviceAccount: caller}}
"""


def subjects(place, application, programs, wanted):
    if not (wanted("weft") or wanted("weft-pair")):
        return []
    inbound = processes.free_port()
    mesh = Mesh(place, application, inbound, programs)
    found = []
    if wanted("weft"):
        port = processes.free_port()
        proxy = mesh.proxy("plain", "caller", outbound=f"127.0.0.1:{port}={OUTSIDE}:80")
        found.append(Subject("weft", [proxy], port, 1))
    if wanted("weft-pair"):
        port = processes.free_port()
        second = mesh.proxy("orders-1", "orders", inbound=f"127.0.0.1:{inbound}={WORKLOAD}:{application}")
        first = mesh.proxy("caller", "caller", outbound=f"127.0.0.1:{port}={ORDERS}:80")
        found.append(Subject("weft-pair", [first, second], port, 2))
    for subject in found:
        url = f"http://127.0.0.1:{subject.port}/"
        processes.wait_until(lambda: processes.answers(url), subject.name, subject.processes[0])
    return found


class Mesh:
    def __init__(self, place, application, inbound, programs):
        self.place = place
        self.programs = programs
        self.data = place.scratch / "data"
        self.address = f"127.0.0.1:{processes.free_port()}"
        command = [programs / "weft", "control-plane", "--data", self.data, "--listen", self.address]
        plane = place.start("control-plane", command, place.load_cpu)
        processes.wait_until(lambda: (self.data / "api.sock").exists(), "the control plane", plane)
        documents = place.scratch / "lab.yaml"
        documents.write_text(DOCUMENTS.format(
            outside=OUTSIDE, orders=ORDERS, workload=WORKLOAD, application=application, inbound=inbound))
        self.weft("apply", "-f", documents)

    def weft(self, *arguments):
        command = [str(self.programs / "weft"), *map(str, arguments), "--data", str(self.data)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"benches/lab: {' '.join(command)}: {done.stderr}")
        return done.stdout

    def proxy(self, workload, account, outbound=None, inbound=None):
        token = self.place.scratch / f"{workload}.token"
        token.write_text(self.weft("token", "create", "--service-account", account))
        admin = f"127.0.0.1:{processes.free_port()}"
        process = self.place.start(workload, [self.programs / "weft-proxy"], self.place.subject_cpu, {
            "WEFT_WORKLOAD": workload, "WEFT_SERVICE_ACCOUNT": account, "WEFT_CONTROL_PLANE": self.address,
            "WEFT_BUNDLE": str(self.data / "bundle.pem"), "WEFT_JOIN_TOKEN_FILE": str(token), "WEFT_ADMIN": admin,
            "WEFT_OUTBOUND": outbound or "127.0.0.1:0", "WEFT_INBOUND": inbound or "127.0.0.1:0",
            "WEFT_WORKERS": "1", "WEFT_LOG": "warn",
        })
        processes.wait_until(lambda: processes.answers(f"http://{admin}/ready"), f"proxy {workload}", process)
        return process

"""nginx and HAProxy as subjects, and the application behind all of them.

Each peer does what Weft's proxies do on every request: connections kept on both sides, no access log, a request id
where there is none. The pairs are two programs in a chain, TLS 1.3 with P-256 certificates verified on both sides.
"""

import shutil
import subprocess

import processes
from processes import Subject

NGINX = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  {http}
}}
"""

NGINX_PROXY = """
  upstream next {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  map $http_x_request_id $id {{ "" $request_id; default $http_x_request_id; }}
  server {{
    listen 127.0.0.1:{port} {tls}; {server}
    location / {{
      proxy_pass {scheme}://next; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Request-Id $id; {location}
    }}
  }}
"""

HAPROXY = """
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 1s
  timeout client 1h
  timeout server 1h
frontend in
  bind 127.0.0.1:{port} {bind}
  http-request set-header x-request-id %[uuid()] unless {{ req.hdr(x-request-id) -m found }}
  default_backend out
backend out
  server next 127.0.0.1:{upstream} {server}
"""


def application(place):
    """One nginx worker that answers 1 KiB; its port."""
    port = processes.free_port()
    answer = f'server {{ listen 127.0.0.1:{port}; location / {{ default_type text/plain; return 200 "{"a" * 1024}"; }} }}'
    nginx(place, "application", port, answer, place.load_cpu)
    return port


def subjects(place, application_port, wanted):
    found = []
    if wanted("nginx"):
        port = processes.free_port()
        found.append(Subject("nginx", [nginx_proxy(place, "nginx", port, application_port)], port, 1, is_baseline=True))
    haproxy = shutil.which("haproxy")
    if haproxy and wanted("haproxy"):
        port = processes.free_port()
        found.append(Subject("haproxy", [haproxy_proxy(place, "haproxy", port, application_port)], port, 1))
    if not shutil.which("openssl"):
        return found
    tls = certificates(place)
    if wanted("nginx-pair"):
        found.append(nginx_pair(place, application_port, tls))
    if haproxy and wanted("haproxy-pair"):
        found.append(haproxy_pair(place, "haproxy-pair", application_port, tls, "http/1.1"))
    # HTTP/2 between the two packs the answers of several requests into one record: HAProxy's best.
    if haproxy and wanted("haproxy-pair-h2"):
        found.append(haproxy_pair(place, "haproxy-pair-h2", application_port, tls, "h2"))
    return found


def nginx(place, name, port, http, cpu):
    directory = place.scratch / name
    directory.mkdir()
    configuration = directory / "nginx.conf"
    configuration.write_text(NGINX.format(directory=directory, http=http))
    process = place.start(name, ["nginx", "-p", directory, "-e", "stderr", "-c", configuration], cpu)
    processes.wait_until(lambda: processes.listens(port), name, process)
    return process


def nginx_proxy(place, name, port, upstream, tls="", server="", scheme="http", location=""):
    http = NGINX_PROXY.format(port=port, upstream=upstream, tls=tls, server=server, scheme=scheme, location=location)
    return nginx(place, name, port, http, place.subject_cpu)


def nginx_pair(place, application_port, tls):
    outer, inner = processes.free_port(), processes.free_port()
    server = (f"ssl_protocols TLSv1.3; ssl_certificate {tls}/leaf.pem; ssl_certificate_key {tls}/leaf.key; "
              f"ssl_verify_client on; ssl_client_certificate {tls}/root.pem;")
    location = (f"proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate {tls}/leaf.pem; "
                f"proxy_ssl_certificate_key {tls}/leaf.key; proxy_ssl_verify on; proxy_ssl_name mesh.lab; "
                f"proxy_ssl_trusted_certificate {tls}/root.pem;")
    second = nginx_proxy(place, "nginx-inner", inner, application_port, tls="ssl", server=server)
    first = nginx_proxy(place, "nginx-outer", outer, inner, scheme="https", location=location)
    return Subject("nginx-pair", [first, second], outer, 2, is_baseline=True)


def haproxy_proxy(place, name, port, upstream, bind="", server=""):
    configuration = place.scratch / f"{name}.cfg"
    configuration.write_text(HAPROXY.format(port=port, upstream=upstream, bind=bind, server=server))
    process = place.start(name, ["haproxy", "-db", "-f", configuration], place.subject_cpu)
    processes.wait_until(lambda: processes.listens(port), name, process)
    return process


def haproxy_pair(place, name, application_port, tls, inside):
    outer, inner = processes.free_port(), processes.free_port()
    common = f"crt {tls}/both.pem ca-file {tls}/root.pem verify required ssl-min-ver TLSv1.3 alpn {inside}"
    second = haproxy_proxy(place, f"{name}-inner", inner, application_port, bind=f"ssl {common}")
    first = haproxy_proxy(place, f"{name}-outer", outer, inner, server=f"ssl {common} verifyhost mesh.lab")
    return Subject(name, [first, second], outer, 2)


def certificates(place):
    """A root and one P-256 leaf for both ends; their directory."""
    directory = place.scratch / "tls"
    directory.mkdir()
    extensions = directory / "leaf.ext"
    extensions.write_text("subjectAltName=DNS:mesh.lab\nextendedKeyUsage=serverAuth,clientAuth\n")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "root.key", "-out", "root.pem", "-days", "2", "-subj", "/CN=lab root")
    openssl("req", *key, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=mesh.lab")
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "2",
            "-extfile", "leaf.ext", "-out", "leaf.pem")
    both = (directory / "leaf.pem").read_text() + (directory / "leaf.key").read_text()
    (directory / "both.pem").write_text(both)
    return directory

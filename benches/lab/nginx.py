"""nginx as a subject: one worker, connections kept on both sides, no access log, a request id where there is none."""

import pathlib
import shutil

import certificates
import processes
from processes import Plan, Program, Skip

STREAM_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")

MAIN = """
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {directory}/nginx.pid; error_log stderr error;
{modules}
events {{ worker_connections {connections}; }}
"""

HTTP = """
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  {names}
  upstream next {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  map $http_x_request_id $id {{ "" $request_id; default $http_x_request_id; }}
  server {{
    listen 127.0.0.1:{port} {listen}; {server}
    location / {{ {location} }}
  }}
  {services}
}}
"""

HTTP1 = """
proxy_pass {scheme}://next; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
proxy_set_header X-Request-Id $id; proxy_buffers 16 16k;
"""
HTTP2 = "grpc_pass {scheme}://next; grpc_set_header X-Request-Id $id;"

STREAM = """
stream {{
  upstream next {{ server 127.0.0.1:{upstream}; }}
  server {{ listen 127.0.0.1:{port} {listen}; proxy_pass next; proxy_buffer_size 64k; tcp_nodelay on; {server} {location} }}
}}
"""

SERVICE = """
upstream service-{number} {{ server 127.0.0.1:{upstream}; keepalive 8; }}
server {{
  listen 127.0.0.1:{port}; server_name service-{number}.lab;
  location / {{ proxy_pass http://service-{number}; proxy_http_version 1.1; proxy_set_header Connection ""; }}
}}
"""


def plan(place, setting, name):
    if not shutil.which("nginx"):
        raise Skip("needs nginx (Debian package nginx-light)")
    if setting.protocol == "tcp" and not STREAM_MODULE.exists():
        raise Skip("needs nginx's stream module (Debian package libnginx-mod-stream)")
    programs, upstream = [], setting.upstream
    for takes_tls, calls_tls in setting.hops():
        port = processes.free_port()
        directory = place.directory("nginx")
        configuration = directory / "nginx.conf"
        configuration.write_text(text(place, setting, directory, port, upstream, takes_tls, calls_tls))
        command = ["nginx", "-p", directory, "-e", "stderr", "-c", configuration]
        programs.append(Program(f"{name}-{len(programs)}", command, processes.listens(port)))
        upstream = port
    tls = certificates.made(place.scratch) if setting.chain == "side" else None
    client = {"certificate": tls / "leaf.pem", "key": tls / "leaf.key"} if tls else {}
    return Plan(name, programs, upstream, client)


def text(place, setting, directory, port, upstream, takes_tls, calls_tls):
    is_tcp, is_http2 = setting.protocol == "tcp", setting.protocol in ("http2", "grpc")
    listen = "ssl" * takes_tls + " http2" * is_http2
    kind = "grpc" if is_http2 else "proxy"
    server, location = "", ""
    if takes_tls or calls_tls:
        tls = certificates.made(place.scratch)
    if takes_tls:
        server = (f"ssl_protocols TLSv1.3; ssl_certificate {tls}/leaf.pem; ssl_certificate_key {tls}/leaf.key; "
                  f"ssl_verify_client on; ssl_client_certificate {tls}/root.pem; "
                  f"ssl_session_tickets {switch(setting.resume)}; "
                  f"ssl_session_cache {'shared:lab:10m' if setting.resume else 'off'};")
    if calls_tls:
        location = (f"{kind}_ssl_protocols TLSv1.3; {kind}_ssl_certificate {tls}/leaf.pem; "
                    f"{kind}_ssl_certificate_key {tls}/leaf.key; {kind}_ssl_verify on; {kind}_ssl_name mesh.lab; "
                    f"{kind}_ssl_trusted_certificate {tls}/root.pem; {kind}_ssl_session_reuse {switch(setting.resume)};")
    main = MAIN.format(directory=directory, connections=2 * setting.connections + 1000,
                       modules=f"load_module {STREAM_MODULE};" if is_tcp else "")
    if is_tcp:
        if calls_tls:
            location += "proxy_ssl on;"
        return main + STREAM.format(port=port, upstream=upstream, listen=listen, server=server, location=location)
    scheme = ("grpc" if is_http2 else "http") + "s" * calls_tls
    location = (HTTP2 if is_http2 else HTTP1).format(scheme=scheme) + location
    services = "".join(SERVICE.format(number=number, upstream=upstream, port=port) for number in range(setting.services))
    names = "server_names_hash_max_size 65536; server_names_hash_bucket_size 128;" if services else ""
    return main + HTTP.format(directory=directory, port=port, upstream=upstream, listen=listen, server=server,
                              location=location, services=services, names=names)


def switch(on):
    return "on" if on else "off"

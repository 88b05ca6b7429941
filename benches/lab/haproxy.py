"""HAProxy as a subject: one thread, connections kept on both sides and shared, no log, a request id where there is none."""

import shutil

import certificates
import processes
from processes import Plan, Program, Skip

MAIN = """
global
  nbthread 1
  maxconn {connections}
  {cache}
defaults
  mode {mode}
  {options}
  timeout connect 1s
  timeout client 1h
  timeout server 1h
frontend in
  bind 127.0.0.1:{port} {bind}
  {request}
  default_backend out
backend out
  server next 127.0.0.1:{upstream} {server}
"""

HTTP = """option http-keep-alive
  http-reuse always"""
# Bytes need not come into the process where both sides are in plaintext.
TCP = "option splice-auto"
REQUEST = "http-request set-header x-request-id %[uuid()] unless { req.hdr(x-request-id) -m found }"
SERVICE = """backend service-{number}
  server next 127.0.0.1:{upstream}
"""


def plan(place, setting, name):
    if not shutil.which("haproxy"):
        raise Skip("needs haproxy (Debian package haproxy)")
    programs, upstream = [], setting.upstream
    for takes_tls, calls_tls in setting.hops():
        port = processes.free_port()
        directory = place.directory("haproxy")
        configuration = directory / "haproxy.cfg"
        configuration.write_text(text(place, setting, directory, port, upstream, takes_tls, calls_tls))
        command = ["haproxy", "-db", "-f", configuration]
        programs.append(Program(f"{name}-{len(programs)}", command, processes.listens(port)))
        upstream = port
    tls = certificates.made(place.scratch) if setting.chain == "side" else None
    client = {"certificate": tls / "leaf.pem", "key": tls / "leaf.key"} if tls else {}
    return Plan(name, programs, upstream, client)


def text(place, setting, directory, port, upstream, takes_tls, calls_tls):
    is_tcp = setting.protocol == "tcp"
    downstream, next_protocol = setting.protocol_of(takes_tls, calls_tls)
    bind, server = speaks(downstream, takes_tls), speaks(next_protocol, calls_tls)
    if takes_tls:
        tls = certificates.made(place.scratch)
        bind = f"ssl crt {tls}/both.pem ca-file {tls}/root.pem verify required ssl-min-ver TLSv1.3 {bind}"
        bind += "" if setting.resume else " no-tls-tickets"
    if calls_tls:
        tls = certificates.made(place.scratch)
        server = (f"ssl crt {tls}/both.pem ca-file {tls}/root.pem verify required verifyhost mesh.lab "
                  f"ssl-min-ver TLSv1.3 {server}")
        server += "" if setting.resume else " no-ssl-reuse"
    request = "" if is_tcp else REQUEST
    services = ""
    if setting.services:
        names = directory / "services.map"
        names.write_text("".join(f"service-{number}.lab service-{number}\n" for number in range(setting.services)))
        request += f"\n  use_backend %[req.hdr(host),lower,map({names})] if {{ req.hdr(host),lower,map({names}) -m found }}"
        services = "".join(SERVICE.format(number=number, upstream=upstream) for number in range(setting.services))
    cache = "" if setting.resume or not (takes_tls or calls_tls) else "tune.ssl.cachesize 0"
    return MAIN.format(connections=setting.connections + 1000, mode="tcp" if is_tcp else "http", cache=cache,
                       options=TCP if is_tcp else HTTP, port=port, bind=bind, request=request,
                       upstream=upstream, server=server) + services


def speaks(protocol, is_tls):
    if protocol == "tcp":
        return ""
    if protocol == "http1":
        return "alpn http/1.1" if is_tls else ""
    return "alpn h2" if is_tls else "proto h2"

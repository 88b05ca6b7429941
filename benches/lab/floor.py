"""The floor: bytes passed through and nothing else, no TLS either."""

import processes
from processes import Plan, Program, Skip


def plan(place, setting, name):
    if setting.services or setting.chain == "side":
        raise Skip("has neither services nor TLS")
    programs, upstream = [], setting.upstream
    for _ in setting.hops():
        port = processes.free_port()
        command = [place.programs / "weft-load", "floor", "--listen", f"127.0.0.1:{port}", "--to", f"127.0.0.1:{upstream}"]
        programs.append(Program(f"{name}-{len(programs)}", command, processes.listens(port)))
        upstream = port
    return Plan(name, programs, upstream)

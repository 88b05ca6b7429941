"""What the lab needs from outside, and how to get it."""

import os
import shutil
import subprocess
import sys

import envoy
import nginx
import processes

# Programs and Debian's packages that hold them.
PROGRAMS = {"openssl": "openssl", "nginx": "nginx-light", "haproxy": "haproxy"}


def missing():
    packages = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if not nginx.STREAM_MODULE.exists():
        packages.append("libnginx-mod-stream")
    return packages


def install():
    packages = missing()
    if packages:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            sys.exit(f"benches/lab: install these yourself: {' '.join(packages)}")
        # Nothing that is installed for this may start by itself: 101 is `not allowed` to Debian's scripts.
        policy = "/usr/sbin/policy-rc.d"
        made = not os.path.exists(policy)
        if made:
            with open(policy, "w") as file:
                file.write("#!/bin/sh\nexit 101\n")
            os.chmod(policy, 0o755)
        try:
            command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
            if subprocess.run(command).returncode != 0:
                subprocess.run(["apt-get", "update"], check=True)
                subprocess.run(command, check=True)
        finally:
            if made:
                os.remove(policy)
    try:
        envoy.program()
    except processes.Skip:
        envoy.install()

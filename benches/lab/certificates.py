"""Certificates for the peers: a root and one P-256 leaf for both ends. Made by openssl."""

import functools
import shutil
import subprocess

import processes

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@functools.cache
def made(place_directory):
    if not shutil.which("openssl"):
        raise processes.Skip("needs openssl (Debian package openssl)")
    directory = place_directory / "tls"
    directory.mkdir()
    openssl(directory, "req", "-x509", *KEY, "-keyout", "root.key", "-out", "root.pem", "-days", "2", "-subj", "/CN=lab root")
    signed(directory, "leaf", "DNS:mesh.lab", directory / "root.pem", directory / "root.key")
    (directory / "both.pem").write_text((directory / "leaf.pem").read_text() + (directory / "leaf.key").read_text())
    return directory


def signed(directory, name, subject_name, root, root_key):
    """A leaf NAME.pem and NAME.key with that alternative name."""
    extensions = directory / f"{name}.ext"
    extensions.write_text(f"subjectAltName={subject_name}\nextendedKeyUsage=serverAuth,clientAuth\n"
                          "keyUsage=digitalSignature\nbasicConstraints=CA:FALSE\n")
    openssl(directory, "req", *KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-CA", root, "-CAkey", root_key, "-set_serial", "4711",
            "-days", "1", "-extfile", extensions, "-out", f"{name}.pem")
    # Unprivileged workers read it.
    (directory / f"{name}.key").chmod(0o644)


def openssl(directory, *arguments):
    subprocess.run(["openssl", *map(str, arguments)], cwd=directory, check=True, capture_output=True)

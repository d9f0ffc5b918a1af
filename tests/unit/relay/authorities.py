"""A certificate authority for one test run, made with the openssl command."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """An authority that nobody trusts by default, and a server's certificate that it signed."""

    ca_file: str
    server: ssl.SSLContext


def make(folder: Path, name: str = "localhost", days: int = 2) -> Authority:
    """An authority and a certificate for `name`."""
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    key, request, signed = folder / "key.pem", folder / "request.pem", folder / "signed.pem"
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", ca_key, "-out", ca,
             "-days", "2", "-subj", "/CN=Test authority",
             "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request,
             "-subj", f"/CN={name}")  # fmt: skip
    extensions = folder / "extensions"
    extensions.write_text(f"subjectAltName=DNS:{name}\n")
    _openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
             "-out", signed, "-days", str(days), "-extfile", extensions)  # fmt: skip
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(signed, key)
    return Authority(str(ca), server)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

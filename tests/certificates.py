"""Certificates that a test makes for itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

OPENSSL = shutil.which("openssl")


class Pair(NamedTuple):
    """PEM files of a certificate for this machine and of its key."""

    certificate: Path
    key: Path


def make_certificate(folder: Path, name: str = "certificate", signed_by: Pair | None = None) -> Pair:
    """A certificate for localhost that nobody vouches for, or the pair that it is signed by."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    assert OPENSSL is not None
    new = [OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    if signed_by is not None:
        names += ["-addext", "basicConstraints=critical,CA:FALSE"]
        names += ["-CA", str(signed_by.certificate), "-CAkey", str(signed_by.key)]
    files = ["-keyout", str(pair.key), "-out", str(pair.certificate)]
    subprocess.run([*new, *names, *files], check=True, capture_output=True)
    return pair

"""Whose certificates are trusted, and which one is shown."""

from __future__ import annotations

import ssl
from pathlib import Path

from shardfs.config import Settings
from shardfs.errors import UsageError


def context(settings: Settings) -> ssl.SSLContext:
    """How connections to https remotes are made: TLS 1.2 or newer, host names checked.

    Raises:
        UsageError: `remote.ca_file` or `remote.client_cert` cannot be used; one line says why.
    """
    made = ssl.create_default_context()
    if settings.ca_file:
        with _Named("remote.ca_file", settings.ca_file) as path:
            made.load_verify_locations(path)
    if settings.client_cert:
        with _Named("remote.client_cert", settings.client_cert) as path:
            made.load_cert_chain(path, password="")  # never asks the terminal
    return made


class _Named:
    """A file of a setting; what goes wrong with it inside the block names both."""

    def __init__(self, key: str, path: str) -> None:
        self._key = key
        self._path = Path(path).expanduser()

    def __enter__(self) -> Path:
        return self._path

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ssl.SSLError):
            msg = f"{self._key}: {self._path} holds no such thing in PEM form, or it is encrypted"
            raise UsageError(msg) from error
        if isinstance(error, OSError):
            msg = f"{self._key}: {self._path} cannot be read: {error.strerror}"
            raise UsageError(msg) from error

"""From `s3://`, `gs://` and `az://` URLs to remotes. Keys come from the environment, never from the URL."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from shardfs.config import Settings
from shardfs.errors import UsageError
from shardfs.remotes import address, tls
from shardfs.remotes.objectstore.aws_profile import read_profile
from shardfs.remotes.objectstore.bucket import Bucket
from shardfs.remotes.objectstore.remote import ObjectStoreRemote

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

    _Maker = Callable[[ClientConfig, RetryConfig], ObjectStore]

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BUCKET_SIZES: Final = range(3, 223)  # characters: S3 and Azure end at 63, Google's names with dots at 222
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
# obstore panics on those of them that no header can hold, and on an endpoint that is no URL.
_SENT: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")
_PAIR: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_OTHER_KEYS: Final = (  # where credentials come from when there are no keys; obstore looks for them
    "AWS_ACCESS_KEY_ID",
    "AWS_SKIP_SIGNATURE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def open_object_store(url: str, name: str, settings: Settings) -> ObjectStoreRemote:
    """The remote at an object store's URL. Nothing is connected to yet.

    Args:
        url: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`.
        name: how the user calls the remote.
        settings: time limits and certificates.

    Raises:
        UsageError: not such a URL, or the environment does not say what is needed to find the place.
    """
    scheme, bucket, prefix = _parts(url)
    shown = f"{scheme}://{bucket}/{prefix}".rstrip("/")
    try:
        make, endpoint = _MAKERS[scheme](bucket, prefix)
        place = Bucket(_trusting(make, settings), shown, settings.deadline_s, endpoint)
    except (BaseError, ValueError, OSError) as error:
        # A message of obstore may quote what is in the environment.
        msg = f"{shown}: {_missing(scheme, error)}; see docs/how-to/object-storage.md"
        raise UsageError(msg) from None
    return ObjectStoreRemote(place, name=name)


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and prefix."""
    try:
        parts = urlsplit(url)
        bucket, path = parts.netloc, unquote(parts.path).strip("/")
    except ValueError:
        bucket = path = ""
    names = path.split("/")
    strange = any(not c.isprintable() or c.isspace() for c in path) or any(n in ("", ".", "..") for n in names)
    if not _BUCKET.fullmatch(bucket) or (path and strange) or "?" in url or "#" in url:
        msg = "the URL of an object store must look like s3://bucket/prefix; keys belong into the environment"
        raise UsageError(msg)
    if len(bucket) not in _BUCKET_SIZES:
        msg = f"{url[:100]}: {bucket[:20]!r} can be no bucket or container; their names have 3 to 63 characters"
        raise UsageError(msg)
    return parts.scheme.lower(), bucket, path


def _trusting(make: _Maker, settings: Settings) -> _Maker:
    """`make`, with the certificates of `remote.ca_file` beside those of the system."""
    if not settings.ca_file:
        return make
    tls.context(settings)  # says what is wrong with the file
    certificates = Path(settings.ca_file).expanduser().read_bytes()
    return lambda client, again: make({**client, "root_certificate": certificates}, again)


def _s3(bucket: str, prefix: str) -> tuple[_Maker, str]:
    options = _s3_options(os.environ)
    endpoint = options.get("endpoint", "")

    def make(client: ClientConfig, again: RetryConfig) -> ObjectStore:
        client = {**client, "allow_http": True} if endpoint.startswith("http://") else client
        return S3Store(bucket, prefix=prefix or None, client_options=client, retry_config=again, **options)

    return make, endpoint


def _s3_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """Options beyond what obstore finds in the environment by itself."""
    options: dict[str, Any] = {}
    _check_pair(environment)
    if not any(environment.get(key) for key in _OTHER_KEYS):
        options.update(read_profile(environment))
    if any(environment.get(key) for key in ("AWS_REGION", "AWS_DEFAULT_REGION")):
        options.pop("region", None)
    endpoint = next((key for key in _ENDPOINTS if environment.get(key)), None)
    if endpoint is not None:
        options["endpoint"] = environment[endpoint]
    _check({key: environment.get(key, "") for key in _SENT} | options)
    if "endpoint" in options:
        _check_endpoint(endpoint or "endpoint_url", options["endpoint"])
    return options


def _check_pair(environment: Mapping[str, str]) -> None:
    for given, missing in (_PAIR, _PAIR[::-1]):
        if environment.get(given) and not environment.get(missing):
            msg = f"{given} is set and {missing} is not; set both, or none of them"
            raise UsageError(msg)


def _check(values: Mapping[str, str]) -> None:
    for key, value in values.items():
        if not (value.isascii() and value.isprintable()):
            msg = f"{key} holds a character that no request can carry, such as the end of a line"
            raise UsageError(msg)


def _check_endpoint(key: str, value: str) -> None:
    try:
        address.split(value)
    except UsageError:
        msg = f"{key} must look like https://host[:port]"
        raise UsageError(msg) from None


def _gs(bucket: str, prefix: str) -> tuple[_Maker, str]:
    return partial(_make_other, GCSStore, bucket, prefix), ""


def _az(container: str, prefix: str) -> tuple[_Maker, str]:
    return partial(_make_other, AzureStore, container, prefix), os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")


def _make_other(kind: Any, bucket: str, prefix: str, client: ClientConfig, again: RetryConfig) -> ObjectStore:
    made: ObjectStore = kind(bucket, prefix=prefix or None, client_options=client, retry_config=again)
    return made


def _missing(scheme: str, error: Exception) -> str:
    if scheme == "az" and "Account must be specified" in str(error):
        return "AZURE_STORAGE_ACCOUNT_NAME is not set"
    return f"what the environment says of this store cannot be used ({type(error).__name__})"


_MAKERS: Final = {"s3": _s3, "gs": _gs, "az": _az}

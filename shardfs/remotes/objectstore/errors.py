"""What an object store or obstore says, as errors of a remote.

obstore's messages quote requests and answers in full. Answers may hold key ids and signatures, so only the status and
the code of an answer get into a message.
"""

from __future__ import annotations

import re
from typing import Final

from obstore.exceptions import InvalidPathError, NotSupportedError

from shardfs.errors import (
    RemoteDeniedError,
    RemoteError,
    RemoteProtocolError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    RemoteUnreachableError,
)


class ConditionUnknownError(RemoteProtocolError):
    """The store does not know how to make an object only if there is none."""


_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>|\"(?:code|reason)\": ?\"([A-Za-z0-9]{1,60})\"")
_MOST_TEXT: Final = 64 << 10  # characters of an error that are looked at: obstore quotes an answer of any size
_KIND = re.compile(r"\bkind: (\w+)")
_CREDENTIALS = re.compile(r"169\.254\.\d+\.\d+|metadata\.google|token request|Error getting credentials|MissingAccount")

_AGAIN: Final = frozenset({408, 425, 429})
_NEVER: Final = frozenset({501, 505, 507})
# A pause helps, or the request did not arrive as it was sent.
_AGAIN_CODES: Final = frozenset(
    {"SlowDown", "RequestTimeout", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"}
)
_REASONS: Final = {
    "SignatureDoesNotMatch": "the secret key does not match the access key",
    "InvalidAccessKeyId": "there is no such access key",
    "AccessDenied": "these credentials may not do that",
    "ExpiredToken": "the session token has expired",
    "BadDigest": "it arrived with other bytes",
    "XAmzContentSHA256Mismatch": "it arrived with other bytes",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "InvalidBucketName": "this cannot be the name of a bucket",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
}


def status_of(error: Exception) -> int | None:
    """The HTTP status that an error of obstore reports; None when there was no answer."""
    found = _STATUS.search(_text(error))
    return int(found[1]) if found else None


def is_unknown_condition(error: Exception) -> bool:
    """Whether the store says that it does not know a condition of a request."""
    return status_of(error) == 501 or _code(error) == "NotImplemented" or isinstance(error, NotSupportedError)


def is_no_bucket(error: Exception) -> bool:
    """Whether the bucket itself is not there."""
    return _code(error) in ("NoSuchBucket", "ContainerNotFound")


def remote_error(what: str, error: Exception) -> RemoteError:
    """The error of a remote that an error of obstore amounts to.

    Args:
        what: the request and where it went, for the message.
        error: what obstore raised.
    """
    status, code = status_of(error), _code(error)
    if _CREDENTIALS.search(_text(error)):
        msg = f"{what}: no credentials; docs/how-to/object-storage.md says where they are looked for"
        return RemoteDeniedError(msg)
    if status is None:
        return _no_answer(what, error)
    if is_no_bucket(error):
        return RemoteDeniedError(f"{what}: there is no such bucket; make it first")
    reason = _REASONS.get(code, code)
    msg = f"{what} answered {status}{f': {reason}' if reason else ''}"
    if status in _AGAIN or (500 <= status < 600 and status not in _NEVER) or code in _AGAIN_CODES:
        return RemoteUnavailableError(msg)
    if status in (200, 206, 304, 416):
        return RemoteProtocolError(msg)
    return RemoteDeniedError(msg)


def _no_answer(what: str, error: Exception) -> RemoteError:
    kinds = _KIND.findall(_text(error))
    if "Timeout" in kinds or isinstance(error, TimeoutError):
        return RemoteTimeoutError(f"{what}: no answer in time")
    if "Connect" in kinds:
        if "InvalidData" in kinds or "certificate" in _text(error):
            return RemoteDeniedError(
                f"{what}: no trusted TLS connection; is the endpoint https, its certificate known?"
            )
        refused = "ConnectionRefused" in kinds
        return RemoteUnreachableError(f"{what}: {'connection refused' if refused else 'cannot connect'}")
    if "Interrupted" in kinds or "Request" in kinds or "Body" in kinds:
        return RemoteUnavailableError(f"{what}: the connection broke")
    if isinstance(error, InvalidPathError):
        return RemoteProtocolError(f"{what}: an object has a name with an empty part, '.', '..' or no text; delete it")
    return RemoteProtocolError(f"{what}: {type(error).__name__} of the object store's client")


def _code(error: Exception) -> str:
    found = _CODE.search(_text(error))
    return (found[1] or found[2]) if found else ""


def _text(error: Exception) -> str:
    return str(error)[:_MOST_TEXT]

"""ObjectReader on Amazon S3.

In a bucket with versioning (which this project deploys), each request names the version. In a bucket without
versioning, each request names the event's ETag instead. An object that was overwritten is then not found, and the event
of the later upload imports it.

The function's role needs s3:GetObject, s3:GetObjectVersion, s3:DeleteObject, s3:DeleteObjectVersion and s3:ListBucket.
Without s3:ListBucket, S3 answers 403 for a missing object, which looks like a missing permission.

Source: Amazon S3 API Reference (HeadObject, GetObject, DeleteObject).
"""

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final, TypeVar

from shared.errors import StoreUnavailable
from shared.ports import FoundObject, UploadedObject

log = logging.getLogger(__name__)

T = TypeVar("T")

_MISSING: Final = frozenset((404, 405, 412))  # no such key or version; a delete marker; another ETag
_NULL: Final = "null"  # the version of an object that was stored without versioning


def _connect() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3", config=Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 3, "mode": "standard"})
    )


class S3Reader:
    """Uploads in Amazon S3, see `shared.ports.ObjectReader`.

    Args:
        connect: creates the client; called once, before the first request.
    """

    def __init__(self, *, connect: Callable[[], Any] = _connect) -> None:
        """Store the arguments. No request is made."""
        self._connect = connect
        self._lock = threading.Lock()
        self._client: Any = None

    def find(self, uploaded: UploadedObject) -> FoundObject | None:
        """Return the uploaded version, or None if it does not exist."""
        return self._request(lambda s3: _decode(uploaded, s3.head_object(**_select(uploaded))))

    def read(self, stored: FoundObject) -> bytes | None:
        """Return at most `stored.size` bytes of that version, or None if it does not exist any more."""

        def read(s3: Any) -> bytes:
            with closing(s3.get_object(**_select(stored))["Body"]) as body:
                data: bytes = body.read(stored.size)
            return data

        return self._request(read)

    def remove(self, stored: FoundObject) -> None:
        """Delete that version if it still exists."""
        self._request(lambda s3: s3.delete_object(**_select(stored)))

    def _request(self, send: Callable[[Any], T]) -> T | None:
        """Return the result of *send*, or None if the object does not exist.

        Raises: StoreUnavailable.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return send(self._get_client())
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _MISSING:
                return None
            # The log has the error's code only: its message may quote the object's name.
            log.error("the object store refused: %s", error.response.get("Error", {}).get("Code"))
            raise StoreUnavailable from error
        except BotoCoreError as error:
            log.error("the object store does not answer: %s", type(error).__name__)
            raise StoreUnavailable from error

    def _get_client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client


def _select(target: UploadedObject | FoundObject) -> dict[str, str]:
    """Return the arguments that select the version of *target*."""
    arguments = {"Bucket": target.bucket, "Key": target.key}
    if target.version is not None:
        return {**arguments, "VersionId": target.version}
    return {**arguments, "IfMatch": f'"{target.etag}"'} if target.etag is not None else arguments


def _decode(uploaded: UploadedObject, response: dict[str, Any]) -> FoundObject:
    version = response.get("VersionId")
    return FoundObject(
        uploaded.bucket,
        uploaded.key,
        uploaded.version if version in (None, _NULL) else version,
        response["ETag"].strip('"'),
        response["ContentLength"],
        response["LastModified"],
    )

"""ObjectReader on Amazon S3.

In a bucket with versions (what the project deploys) each call names the version. In one without, the ETag of the
event stands in: an object that was overwritten is not found, and its own event tells of it.

The function's role needs s3:GetObject, s3:GetObjectVersion, s3:DeleteObject, s3:DeleteObjectVersion, and s3:ListBucket:
without the last, S3 answers 403 for an object that is gone, which cannot be told from a missing grant.
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

_GONE: Final = frozenset((404, 405, 412))  # none of that name or version, a delete marker, another content
_NULL: Final = "null"  # the version of what was stored while versions were off


def _connect() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3", config=Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 3, "mode": "standard"})
    )


class S3Reader:
    """See `shared.ports.ObjectReader`. The client is made at the first call."""

    def __init__(self, *, connect: Callable[[], Any] = _connect) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._client: Any = None

    def find(self, uploaded: UploadedObject) -> FoundObject | None:
        return self._ask(lambda s3: _found(uploaded, s3.head_object(**_exactly(uploaded))))

    def read(self, found: FoundObject) -> bytes | None:
        def read(s3: Any) -> bytes:
            with closing(s3.get_object(**_exactly(found))["Body"]) as body:
                data: bytes = body.read(found.size)
            return data

        return self._ask(read)

    def remove(self, found: FoundObject) -> None:
        self._ask(lambda s3: s3.delete_object(**_exactly(found)))

    def _ask(self, call: Callable[[Any], T]) -> T | None:
        """What *call* gives; None where the object is not there."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return call(self._s3())
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _GONE:
                return None
            # Its code says what is wrong; its message may quote the object's name.
            log.error("the object store refused: %s", error.response.get("Error", {}).get("Code"))
            raise StoreUnavailable from error
        except BotoCoreError as error:
            log.error("the object store does not answer: %s", type(error).__name__)
            raise StoreUnavailable from error

    def _s3(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client


def _exactly(one: UploadedObject | FoundObject) -> dict[str, str]:
    """The arguments that mean that very version."""
    which = {"Bucket": one.bucket, "Key": one.key}
    if one.version is not None:
        return {**which, "VersionId": one.version}
    return {**which, "IfMatch": f'"{one.etag}"'} if one.etag is not None else which


def _found(uploaded: UploadedObject, head: dict[str, Any]) -> FoundObject:
    version = head.get("VersionId")
    return FoundObject(
        uploaded.bucket,
        uploaded.key,
        uploaded.version if version in (None, _NULL) else version,
        head["ETag"].strip('"'),
        head["ContentLength"],
        head["LastModified"],
    )

"""ObjectReader on Google Cloud Storage, through its JSON API. Three requests do not justify a client library.

Every object version has a generation, and every request names the generation.

Source: Cloud Storage JSON API (Objects: get, delete).
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from shared.errors import StoreUnavailable
from shared.ports import FoundObject, UploadedObject

log = logging.getLogger(__name__)

T = TypeVar("T")

_API: Final = "https://storage.googleapis.com"
_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
_SECONDS: Final = 10.0  # timeout of one request


class _ObjectMetadata(msgspec.Struct, frozen=True, rename="camel"):
    """The part of the Objects resource that is used here."""

    generation: str
    size: int  # sent as a string, because JSON numbers lose precision
    time_created: datetime
    etag: str | None = None


def _connect() -> Any:
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=[_SCOPE])
    return AuthorizedSession(credentials)  # type: ignore[no-untyped-call]


class GcsReader:
    """Uploads in Google Cloud Storage, see `shared.ports.ObjectReader`.

    Args:
        connect: creates a `requests.Session` with credentials; called once, before the first request.
        api: the base URL of the service.
    """

    def __init__(self, *, connect: Callable[[], Any] = _connect, api: str = _API) -> None:
        """Store the arguments. No request is made."""
        self._connect = connect
        self._api = api
        self._lock = threading.Lock()
        self._session: Any = None

    def find(self, uploaded: UploadedObject) -> FoundObject | None:
        """Return the uploaded version, or None if it does not exist."""
        return self._request("GET", uploaded, lambda response: _decode(uploaded, response.json()))

    def read(self, stored: FoundObject) -> bytes | None:
        """Return at most `stored.size` bytes of that version, or None if it does not exist any more."""
        # With Accept-Encoding, the service does not decompress an object that is marked as gzip. Nor may the client:
        # the decompressed size has no limit.
        return self._request(
            "GET",
            stored,
            lambda response: bytes(response.raw.read(stored.size, decode_content=False)),
            {"alt": "media"},
            {"Accept-Encoding": "gzip"},
        )

    def remove(self, stored: FoundObject) -> None:
        """Delete that version if it still exists."""
        self._request("DELETE", stored, lambda _: None)

    def _request(
        self,
        method: str,
        target: UploadedObject | FoundObject,
        parse: Callable[[Any], T],
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> T | None:
        """Return the parsed response, or None if the object or its generation does not exist.

        Raises: StoreUnavailable.
        """
        import requests
        from google.auth.exceptions import GoogleAuthError

        # Bucket and key are one segment each, so characters like `..`, `/` and `?` cannot change the path.
        url = f"{self._api}/storage/v1/b/{quote(target.bucket, safe='')}/o/{quote(target.key, safe='')}"
        params = {**(query or {}), **({"generation": target.version} if target.version else {})}
        try:
            response = self._get_session().request(
                method, url, params=params, headers=headers, timeout=_SECONDS, stream=True, allow_redirects=False
            )
            with response:
                if response.status_code == 404:
                    return None
                if not 200 <= response.status_code < 300:
                    log.error("the object store refused: %s", response.status_code)
                    raise StoreUnavailable
                return parse(response)
        except (requests.RequestException, GoogleAuthError, OSError, ValueError, msgspec.ValidationError) as error:
            log.error("the object store does not answer: %s", type(error).__name__)
            raise StoreUnavailable from error

    def _get_session(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = self._connect()
            return self._session


def _decode(uploaded: UploadedObject, resource: Any) -> FoundObject:
    metadata = msgspec.convert(resource, _ObjectMetadata, strict=False)
    return FoundObject(
        uploaded.bucket,
        uploaded.key,
        metadata.generation,
        metadata.etag,
        metadata.size,
        metadata.time_created,
    )

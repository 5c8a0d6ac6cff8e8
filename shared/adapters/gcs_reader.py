"""ObjectReader on Google Cloud Storage, by its JSON API: three calls need no client library of their own.

Every object has a generation; each call names it.
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote

from shared.errors import StoreUnavailable
from shared.ports import FoundObject, UploadedObject

log = logging.getLogger(__name__)

T = TypeVar("T")

_API: Final = "https://storage.googleapis.com"
_SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
_SECONDS: Final = 10.0  # of one call


def _connect() -> Any:
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=[_SCOPE])
    return AuthorizedSession(credentials)  # type: ignore[no-untyped-call]


class GcsReader:
    """See `shared.ports.ObjectReader`. The session is made at the first call.

    Args:
        connect: makes a `requests.Session` that signs in.
        api: where the service answers.
    """

    def __init__(self, *, connect: Callable[[], Any] = _connect, api: str = _API) -> None:
        self._connect = connect
        self._api = api
        self._lock = threading.Lock()
        self._session: Any = None

    def find(self, uploaded: UploadedObject) -> FoundObject | None:
        return self._ask("GET", uploaded, lambda answer: _found(uploaded, answer.json()))

    def read(self, found: FoundObject) -> bytes | None:
        # As it is stored: the service would unpack an object marked as gzip, and so would the client, to any size.
        return self._ask(
            "GET",
            found,
            lambda answer: bytes(answer.raw.read(found.size, decode_content=False)),
            {"alt": "media"},
            {"Accept-Encoding": "gzip"},
        )

    def remove(self, found: FoundObject) -> None:
        self._ask("DELETE", found, lambda _: None)

    def _ask(
        self,
        method: str,
        one: UploadedObject | FoundObject,
        take: Callable[[Any], T],
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> T | None:
        """What *take* makes of the answer; None where there is no such object or generation."""
        import requests
        from google.auth.exceptions import GoogleAuthError

        # One segment each, so that no name (`..`, `/`, `?`) leads anywhere else.
        url = f"{self._api}/storage/v1/b/{quote(one.bucket, safe='')}/o/{quote(one.key, safe='')}"
        params = {**(query or {}), **({"generation": one.version} if one.version else {})}
        try:
            answer = self._signed_in().request(
                method, url, params=params, headers=headers, timeout=_SECONDS, stream=True, allow_redirects=False
            )
            with answer:
                if answer.status_code == 404:
                    return None
                if not 200 <= answer.status_code < 300:
                    log.error("the object store refused: %s", answer.status_code)
                    raise StoreUnavailable
                return take(answer)
        except (requests.RequestException, GoogleAuthError, OSError, ValueError, KeyError) as error:
            log.error("the object store does not answer: %s", type(error).__name__)
            raise StoreUnavailable from error

    def _signed_in(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = self._connect()
            return self._session


def _found(uploaded: UploadedObject, told: dict[str, str]) -> FoundObject:
    return FoundObject(
        uploaded.bucket,
        uploaded.key,
        told["generation"],
        told.get("etag"),
        int(told["size"]),
        datetime.fromisoformat(told["timeCreated"]),
    )

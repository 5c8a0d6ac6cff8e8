"""An empty function for the TLS edge: it allows every device. For uvicorn, as the local server uses it."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from benchmarks.fleet import ORG

_VERDICT = {
    "decision": "allow",
    "code": "allowed",
    "orgId": ORG,
    "identity": {"class": "d", "typeId": "thermo", "deviceId": "1"},
    "bound": True,
    "ca": {"id": "0"},
    "expiresAt": "2030-01-01T00:00:00Z",
    "fingerprintsSha256": [["0" * 64, "1" * 64]],  # without fingerprints the callout refuses every client
}
_BODY = msgspec.json.encode(_VERDICT)
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]


async def app(scope: dict[str, Any], receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": _BODY})

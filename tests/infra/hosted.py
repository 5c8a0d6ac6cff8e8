"""What every deployment must answer for the console: the same bytes under the same headers as the local server."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from functions.hosts import wire
from functions.hosts.static import FOLDER, Console
from functions.web.http import Request

FILES: Final = tuple(sorted(f"/console/{one.relative_to(FOLDER).as_posix()}" for one in FOLDER.rglob("*.*")))
ADDRESSES: Final = ("/", "/console", "/console/", *FILES, "/console/nowhere.js", "/console/../main.py")

Answer = tuple[int, bytes, Mapping[str, str]]


def _local(path: str) -> Answer:
    reply = Console().reply(Request("GET", path))
    return reply.status, reply.body, wire.headers(reply)


EXPECTED: Final = {path: _local(path) for path in ADDRESSES}
NAMES: Final = frozenset(name for _, _, headers in EXPECTED.values() for name in headers)


def get_all(send: Callable[..., tuple[int, bytes, Any]]) -> dict[str, Answer]:
    """Each address as *send* gets it, with those headers that the console sets."""
    found: dict[str, Answer] = {}
    for path in ADDRESSES:
        status, body, headers = send("GET", path)
        lower = {name.lower(): value for name, value in headers.items()}
        found[path] = status, body, {name: value for name, value in lower.items() if name in NAMES}
    return found

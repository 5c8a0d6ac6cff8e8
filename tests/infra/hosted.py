"""What every deployment must answer for the console: the same bytes under the same headers as the local server."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from functions.hosts.static import Console
from functions.web.message import Request, reply_headers

FOLDER: Final = Path(__file__).parents[2] / "console"
FILES: Final = tuple(
    sorted(f"/console/{path.relative_to(FOLDER).as_posix()}" for path in FOLDER.rglob("*.*") if not path.match("*.py*"))
)
ADDRESSES: Final = ("/", "/console", "/console/", *FILES, "/console/nowhere.js", "/console/../main.py")

Answer = tuple[int, bytes, Mapping[str, str]]


def _local(path: str) -> Answer:
    reply = Console().reply(Request("GET", path))
    return reply.status, reply.body, reply_headers(reply)


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

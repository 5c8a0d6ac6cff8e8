"""The expected console of every deployment: the same bytes and headers as from the local server."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from functions.hosts.static import Console
from functions.web.message import Request, reply_headers

FOLDER: Final = Path(__file__).parents[2] / "console"
FILES: Final = tuple(
    sorted(f"/console/{file.relative_to(FOLDER).as_posix()}" for file in FOLDER.rglob("*.*") if not file.match("*.py*"))
)
PAGES: Final = tuple(sorted(f"/docs/errors/{file.stem}" for file in FOLDER.glob("errors/*.html")))
OUTSIDE: Final = ("/console/nowhere.js", "/console/../main.py", "/docs/errors/nothing", "/docs/errors/stale.html")
ADDRESSES: Final = ("/", "/console", "/console/", *FILES, "/docs/errors/", *PAGES, *OUTSIDE)

Answer = tuple[int, bytes, Mapping[str, str]]


def _local(path: str) -> Answer:
    reply = Console().reply(Request("GET", path))
    return reply.status, reply.body, reply_headers(reply)


EXPECTED: Final = {path: _local(path) for path in ADDRESSES}
NAMES: Final = frozenset(name for _, _, headers in EXPECTED.values() for name in headers)


def get_all(send: Callable[..., tuple[int, bytes, Any]]) -> dict[str, Answer]:
    """Get each address with *send*. Return the answers, with only the headers that the console sets."""
    answers: dict[str, Answer] = {}
    for path in ADDRESSES:
        status, body, headers = send("GET", path)
        lower = {name.lower(): value for name, value in headers.items()}
        answers[path] = status, body, {name: value for name, value in lower.items() if name in NAMES}
    return answers

"""The console's files and the pages of documentation: read once at the start, served from memory.

The console is at /console/, the API reference at /docs/, the page of an error code at /docs/errors/<code>."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec

from functions.web.message import Reply, Request

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

PREFIX: Final = "/console/"
DOCS: Final = "/docs/"
ERRORS: Final = "/docs/errors/"
PATHS: Final = ("/", "/console/", "/console/{*file}", "/docs/", "/docs/errors/", "/docs/errors/{code}")
"""The console's addresses for the routers in front of the functions. They are not part of the API's description.

`/console` is missing: the Serverless Framework gives it the same resource name as `/console/`.
"""
METHODS: Final = ("GET", "HEAD")

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


class _File(msgspec.Struct, frozen=True):
    content_type: str
    etag: str
    body: bytes


def console_folder() -> "Traversable":
    """Return the folder of the console's files, wherever the package is installed."""
    import importlib.resources  # takes some milliseconds, which a process that shows no console does without

    return importlib.resources.files("console")


def _files(folder: "Traversable", prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Return path and content of every file of a type that the console has. A missing folder has no files."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif PurePosixPath(entry.name).suffix in _TYPES:
            yield f"{prefix}{entry.name}", entry.read_bytes()


class Console:
    """Answers requests for the console's files.

    Args:
        folder: where the files are; `console_folder()` if absent.
        origins: returns where the page may connect besides this service: the OIDC issuer's origins.
    """

    def __init__(
        self, folder: "Traversable | None" = None, *, origins: Callable[[], tuple[str, ...]] = lambda: ()
    ) -> None:
        self._files = {path: _file(path, body) for path, body in _files(folder or console_folder())}
        self._origins = origins

    @staticmethod
    def answers(path: str) -> bool:
        """Whether *path* belongs to the console."""
        return path in ("/", "/console", "/docs") or path.startswith((PREFIX, DOCS))

    def reply(self, request: Request) -> Reply:
        """Return the file, 304 if the client has it already, or 404. Never raises.

        May block: now and then the OIDC issuer's description is fetched.
        """
        if request.method not in METHODS:
            return Reply(405, b"", _PLAIN, {"Allow": "GET, HEAD"})
        if request.path in ("/", "/console", "/docs"):
            location = DOCS if request.path == "/docs" else PREFIX
            return Reply(302, b"", _PLAIN, {"Location": location, "Cache-Control": "no-cache"})
        # The path is looked up in a table, so no path can leave the console's folder.
        file = self._files.get(_file_of(request.path))
        if file is None:
            return Reply(404, b"There is no such page here.", _PLAIN, _SAFE)
        headers = {**_SAFE, "Content-Security-Policy": self._policy(), "ETag": file.etag, "Cache-Control": "no-cache"}
        if file.etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]:
            return Reply(304, b"", file.content_type, headers)
        return Reply(200, b"" if request.method == "HEAD" else file.body, file.content_type, headers)

    def _policy(self) -> str:
        directives = {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self'",
            "connect-src": " ".join(("'self'", *self._origins())),
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }
        return "; ".join(f"{name} {value}" for name, value in directives.items())


def _file_of(path: str) -> str:
    if path == DOCS:
        return "api.html"
    if path.startswith(ERRORS):
        return f"errors/{path.removeprefix(ERRORS) or 'index'}.html"
    return path.removeprefix(PREFIX) or "index.html"


def _file(path: str, body: bytes) -> _File:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return _File(_TYPES[PurePosixPath(path).suffix], etag, body)


_PLAIN: Final = "text/plain; charset=utf-8"
_SAFE: Final[Mapping[str, str]] = {
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
}

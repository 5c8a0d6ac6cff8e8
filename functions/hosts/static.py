"""The console's files: read once at the start, served from memory under /console/, nothing else from the disk."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from functions.web.http import Reply, Request

FOLDER: Final = Path(__file__).resolve().parents[2] / "console"
PREFIX: Final = "/console/"

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


class Console:
    """Answers requests for the console's files.

    Args:
        origins: tells where, beside this service, the page may ask: the OIDC issuer's origins, where there is one.
    """

    def __init__(self, folder: Path = FOLDER, *, origins: Callable[[], tuple[str, ...]] = lambda: ()) -> None:
        self._files = _read(folder)
        self._origins = origins

    @staticmethod
    def answers(path: str) -> bool:
        """Whether *path* is the console's, and not a function's."""
        return path in ("/", "/console") or path.startswith(PREFIX)

    def reply(self, request: Request) -> Reply:
        """The file, 304 where the caller has it already, or 404. Never raises; now and then it asks the OIDC issuer for
        its description, which takes as long as it takes: nothing for an event loop."""
        if request.method not in ("GET", "HEAD"):
            return Reply(405, b"", _PLAIN, {"Allow": "GET, HEAD"})
        if request.path in ("/", "/console"):
            return Reply(302, b"", _PLAIN, {"Location": PREFIX, "Cache-Control": "no-cache"})
        # A path is a name in a table: nothing in it can leave the folder, whatever it is made of.
        file = self._files.get(request.path.removeprefix(PREFIX) or "index.html")
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


def _read(folder: Path) -> Mapping[str, _File]:
    """Every file of a type the console has, by its path below *folder*. No folder (a function deployed without the
    console): no files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in _TYPES and path.is_file():
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[path.relative_to(folder).as_posix()] = _File(_TYPES[path.suffix], etag, body)
    return found


_PLAIN: Final = "text/plain; charset=utf-8"
_SAFE: Final[Mapping[str, str]] = {
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
}

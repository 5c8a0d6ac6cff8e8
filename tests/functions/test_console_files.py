"""The console's files are served under a strict policy, and no other file is served."""

import asyncio
import threading
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from functions.hosts.asgi import Application
from functions.hosts.static import Console
from functions.web.message import Reply, Request
from tests.support.harness import Service

FOLDER = Path(__file__).parents[2] / "console"


@pytest.fixture
def console() -> Console:
    return Console()


def get(console: Console, path: str, method: str = "GET", **headers: str) -> Reply:
    return console.reply(Request(method, path, headers={name.replace("_", "-"): v for name, v in headers.items()}))


def test_every_file_of_the_console_is_served_with_its_type(console: Console) -> None:
    kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    files = [path for path in FOLDER.rglob("*") if path.is_file() and not path.match("*.py*")]
    assert len(files) > 10
    for path in files:
        reply = get(console, f"/console/{path.relative_to(FOLDER).as_posix()}")
        assert (reply.status, reply.body) == (200, path.read_bytes())
        assert reply.content_type.startswith(kinds[path.suffix])


def test_the_root_leads_to_the_console(console: Console) -> None:
    assert get(console, "/console/").body == (FOLDER / "index.html").read_bytes()
    for path in ("/", "/console"):
        reply = get(console, path)
        assert (reply.status, reply.headers["Location"]) == (302, "/console/")


@pytest.mark.parametrize(
    "path",
    [
        "/console/../pyproject.toml",
        "/console/%2e%2e/pyproject.toml",
        "/console/..%2fpyproject.toml",
        "/console//etc/passwd",
        "/console/pages/../../functions/dispatch.py",
        "/console/app.js\0",
        "/console/pages",
        "/console/pages/",
        "/console/APP.JS",
        "/console/app.js/",
        "/console/.hidden",
        "/console/__init__.py",
    ],
)
def test_no_other_file_is_served(console: Console, path: str) -> None:
    """A path is looked up in a table that was made at the start."""
    reply = get(console, path)
    assert reply.status == 404
    assert reply.body == b"There is no such page here."


def test_a_file_that_is_added_later_is_not_served(tmp_path: Path) -> None:
    """The folder is read at the start only."""
    (tmp_path / "index.html").write_text("one")
    console = Console(tmp_path)
    (tmp_path / "late.html").write_text("two")
    assert get(console, "/console/").body == b"one"
    assert get(console, "/console/late.html").status == 404


def test_without_the_folder_no_file_is_served(tmp_path: Path) -> None:
    assert get(Console(tmp_path / "nowhere"), "/console/").status == 404


def test_the_policy_forbids_foreign_content(console: Console) -> None:
    """No inline script or style, no other origin, no frame, no string that becomes markup."""
    policy = get(console, "/console/").headers["Content-Security-Policy"]
    assert policy == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    headers = get(console, "/console/").headers
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["X-Frame-Options"] == "DENY"


def test_the_page_may_connect_to_this_origin_and_the_issuer_only() -> None:
    console = Console(origins=lambda: ("https://id.example.com", "https://tokens.example.com"))
    policy = get(console, "/console/").headers["Content-Security-Policy"]
    assert "connect-src 'self' https://id.example.com https://tokens.example.com; base-uri" in policy


def test_no_file_of_the_page_has_an_inline_script_or_style() -> None:
    """The policy would refuse it in the browser."""
    text = (FOLDER / "index.html").read_text()
    assert "<style" not in text
    assert "style=" not in text
    assert text.count("<script") == text.count('<script type="module" src=') == 1
    for path in FOLDER.rglob("*.js"):
        script = path.read_text()
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert sink not in script, f"{path.name}: {sink}"


def test_all_requests_are_made_in_one_module() -> None:
    """That module sends no cookies, and sends the token in a header."""
    asking = [
        path.name for path in FOLDER.rglob("*.js") if "fetch(" in path.read_text() or "XMLHttp" in path.read_text()
    ]
    assert asking == ["api.js"]
    assert "credentials: 'omit'" in (FOLDER / "api.js").read_text()


def test_a_browser_with_the_current_file_gets_304(console: Console) -> None:
    first = get(console, "/console/app.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = get(console, "/console/app.js", if_none_match=f'"other", {first.headers["ETag"]}')
    assert (again.status, again.body) == (304, b"")
    assert again.headers["Content-Security-Policy"]
    assert get(console, "/console/app.js", if_none_match='"other"').status == 200


def test_the_console_is_read_only(console: Console) -> None:
    assert get(console, "/console/app.js", method="POST").status == 405
    head = get(console, "/console/app.js", method="HEAD")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("path", ["/api/v0002/session", "/healthz", "/signin", "/consoles", "/consol"])
def test_the_console_does_not_answer_the_functions_addresses(console: Console, path: str) -> None:
    assert not console.answers(path)


def test_a_slow_issuer_delays_the_page_only(service: Service) -> None:
    """The page's policy needs the issuer's discovery document; verdicts do not wait for it."""
    answered = threading.Event()
    application = Application(service.app)
    application._console = Console(origins=lambda: () if answered.wait(30) else ("https://late.example.com",))

    async def both() -> None:
        page = asyncio.create_task(status_of(application, "/console/"))
        assert await status_of(application, "/healthz") == 200
        assert not page.done()
        answered.set()
        assert await page == 200

    asyncio.run(both())


async def status_of(application: Application, path: str) -> int:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await application(scope, receive, send)
    status: int = sent[0]["status"]
    return status

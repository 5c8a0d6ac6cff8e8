"""Every code has a page, and the page says what the sentences say."""

import re
from pathlib import Path

import pytest

from functions.hosts.static import Console
from functions.web.message import Request
from functions.web.problem import page_of
from infra.error_pages import CAUSES, pages
from infra.openapi import document
from shared import config
from shared.errors import Refused, every_error
from tests.support.harness import Client

ROOT = Path(__file__).parents[2]
CODES = sorted(document()["components"]["schemas"]["Code"]["enum"])
LUA = (ROOT / "edge/haproxy/refuse.lua").read_text()
KINDS = {"UNAVAILABLE": ("CONNACK 3", "0x88"), "IDENTIFIER_REJECTED": ("CONNACK 2", "0x85")}
CONNACKS = {
    code: KINDS[kind] for code, kind in re.findall(r"^  (\w+) = (UNAVAILABLE|IDENTIFIER_REJECTED),$", LUA, re.M)
}
REFUSALS = sorted({kind.code for kind in every_error() if issubclass(kind, Refused)})


@pytest.fixture(scope="module")
def console() -> Console:
    return Console()


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_page(console: Console, code: str) -> None:
    reply = console.reply(Request("GET", f"/docs/errors/{code}"))
    assert reply.status == 200
    text = reply.body.decode()
    assert f"<h1>{code}</h1>" in text
    assert "<h2>What to do</h2>" in text
    assert "<script" not in text
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


def test_the_pages_of_the_edge_say_what_the_edge_answers() -> None:
    """Each code that the edge answers in another way than "not authorized" has a page with that answer."""
    assert len(CONNACKS) >= 5
    for code, answers in CONNACKS.items():
        assert all(answer in pages()[f"{code}.html"] for answer in answers), code


def test_no_page_is_of_no_code() -> None:
    """Codes of the HTTP server and of the HAProxy edge are in their own sources."""
    servers = (ROOT / "functions/hosts/limits.py").read_text() + (ROOT / "edge/haproxy/verify_client.lua").read_text()
    others = {name.removesuffix(".html") for name in pages()} - {*CODES, "index"}
    assert others
    assert [code for code in others if f'"{code}"' not in servers and f"'{code}'" not in servers] == []
    assert set(CAUSES) <= set(CODES)


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_has_a_cause_and_says_what_the_device_sees(code: str) -> None:
    page = pages()[f"{code}.html"]
    assert code in CAUSES
    expected = CONNACKS.get(code, ("CONNACK 5", "0x87"))
    assert all(answer in page for answer in expected), "as edge/haproxy/refuse.lua answers"


def test_every_command_is_one_that_openssl_or_a_shell_knows() -> None:
    """Each begins with a program, and has no placeholder but those in capitals."""
    openssl = "openssl (x509|req|s_client|verify|pkey|pkcs8|pkcs12)"
    programs = re.compile(f"({openssl}|cat|date|printf|mosquitto_pub|curl|base64|python -m) ")
    for code, cause in CAUSES.items():
        for command in cause.commands:
            assert programs.match(command), code


def test_an_answer_names_the_page_of_its_code(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = operator.post("/authentication/cacertificates", {"certificate": "junk"})
    assert refused.json["type"] == f"/docs/errors/{refused.code}"
    monkeypatch.setenv("TRUST_URL", "https://trust.example.com/stage/")
    config.base_url.cache_clear()
    assert page_of("stale") == "https://trust.example.com/stage/docs/errors/stale"
    monkeypatch.setenv("TRUST_URL", "not an address")
    config.base_url.cache_clear()
    assert page_of("stale") == "/docs/errors/stale"
    with pytest.raises(config.WrongSetting, match="TRUST_URL"):
        config.Settings.from_env()
    config.base_url.cache_clear()


def test_no_other_file_is_a_page(console: Console) -> None:
    for path in ("/docs/errors/nothing", "/docs/errors/../index", "/docs/errors/stale.html", "/docs/errors/stale/"):
        assert console.reply(Request("GET", path)).status == 404
    assert b"<h1>Error codes</h1>" in console.reply(Request("GET", "/docs/errors/")).body

"""The API reference as a page: complete, without scripts, and every link leads somewhere."""

import re
from html.parser import HTMLParser

import pytest

from functions.hosts.static import Console
from functions.web.message import Reply, Request
from infra.openapi import document


class Links(HTMLParser):
    """Collects the ids of a page and the addresses in its links; names of elements too."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.names.add(tag)
        self.ids += [value for value in (found.get("id"),) if value]
        self.links += [value for value in (found.get("href"), found.get("src")) if value]
        assert not [name for name in found if name.startswith("on") or name == "style"], attrs


@pytest.fixture(scope="module")
def console() -> Console:
    return Console()


def get(console: Console, path: str) -> Reply:
    return console.reply(Request("GET", path))


def test_every_operation_and_thing_is_described(console: Console) -> None:
    page = Links(get(console, "/docs/").body.decode())
    described = document()
    operations = [item["operationId"] for methods in described["paths"].values() for item in methods.values()]
    assert len(operations) > 50
    assert [name for name in operations if name not in page.ids] == []
    assert [name for name in described["components"]["schemas"] if name not in [*page.ids, "Code"]] == []
    assert len(page.ids) == len(set(page.ids)), "an id is in the page once"


@pytest.mark.parametrize("path", ["/docs/", "/docs/errors/", "/docs/errors/untrusted_issuer"])
def test_every_link_of_a_page_leads_somewhere(console: Console, path: str) -> None:
    page = Links(get(console, path).body.decode())
    assert "script" not in page.names
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids, link
            continue
        parts = path.rpartition("/")[0].split("/")[1:]
        address, _, _ = link.partition("#")
        for step in address.split("/")[:-1]:
            parts = parts[:-1] if step == ".." else [*parts, step]
        whole = "/" + "/".join([*parts, address.rpartition("/")[2]])
        if whole != "/openapi.json":  # another function's
            assert get(console, re.sub("/+", "/", whole)).status == 200, link


def test_an_address_without_the_last_slash_leads_to_the_page(console: Console) -> None:
    """The links of the page are relative."""
    reply = get(console, "/docs")
    assert (reply.status, reply.headers["Location"]) == (302, "/docs/")
    assert get(console, "/docs/absent").status == 404

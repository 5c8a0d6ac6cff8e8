"""Requests as brokers send them (tests/data/dialects; each file names its documentation)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from functions.web.message import Request
from shared.errors import TrustError
from tests.support import certs
from tests.support.harness import Answer, Client, answer, basic

LISTENER = "certificates"  # of the broker: the name that its address has, and that keys of tests name
FOLDER = Path(__file__).parent.parent.parent / "data" / "dialects"


@dataclass(frozen=True)
class Recorded:
    """A request. *changes* replace fields of its body, None removes a field; *org* is the organization in it.

    *query*: of the address, which names the listener unless a test says otherwise."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # instead of the recorded body
    refusal: TrustError | None = None
    org: str = "mtxpd0"
    query: Mapping[str, str] = field(default_factory=lambda: {"listener": LISTENER})

    def send(self, client: Client, device: certs.Issued, *sent: certs.Issued) -> Answer:
        recorded = json.loads((FOLDER / f"{self.name}.json").read_text().replace("mtxpd0", self.org))
        assert recorded["source"], "the file names its documentation"
        chain = certs.bundle(device, *sent)
        words = {
            "$PEM_URL": quote(device.pem, safe=""),
            "$CHAIN_URL": quote(chain, safe=""),
            "$SHA256": device.fingerprint,
            "$PEM": device.pem,
        }
        headers = {name: _filled(value, words) for name, value in {**recorded["headers"], **self.headers}.items()}
        if client.key:
            headers["authorization"] = basic(client.key, client.token)
        body = self.body if self.body is not None else self._body(recorded["body"], headers, words)
        request = Request(recorded["method"], recorded["path"], self.query, headers, body, refusal=self.refusal)
        return Answer(answer(client.app, request))

    def _body(self, recorded: Any, headers: Mapping[str, str], words: Mapping[str, str]) -> bytes:
        if recorded is None:
            return b""
        fields = {name: value for name, value in {**recorded, **self.changes}.items() if name not in self._gone()}
        if headers["content-type"] == "application/json":
            return json.dumps(_filled(fields, words)).encode()
        return urlencode(fields).encode()

    def _gone(self) -> set[str]:
        return {name for name, value in self.changes.items() if value is None}


def _filled(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, words) for name, inner in value.items()}
    if isinstance(value, str):
        for word, meaning in words.items():
            value = value.replace(word, meaning)
    return value

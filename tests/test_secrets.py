"""No private key, passphrase or token in a log line, an answer, an error, an activity entry or a repr.

A run with known secrets through every function that meets one; then everything that came out is searched.
"""

import ast
import base64
import io
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from functions.bodies import UploadServerCert
from functions.views import ServerView
from functions.web.http import Request
from shared import log
from shared.records import to_body
from shared.repository import default_ref, org_ref, server_ref
from shared.validation.server_cert import read_server_certificate
from tests import certs
from tests.harness import Answer, Client, Service, basic

PASSPHRASE = "correct horse battery staple"
SERVERS = "/authentication/servercertificates"


class Record:
    """Everything that came out of a run."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.stream = io.StringIO()

    def saw(self, answer: Answer) -> Answer:
        self.texts += [answer.text, repr(answer), repr(answer.reply), str(dict(answer.reply.headers))]
        return answer

    def holds(self, secret: str) -> bool:
        whole = "\n".join([*self.texts, self.stream.getvalue()])
        return secret in whole


@pytest.fixture
def record() -> Iterator[Record]:
    """Collects log lines of every level, as they would be written."""
    found = Record()
    handler = logging.StreamHandler(found.stream)
    handler.setFormatter(log.JsonLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield found
    root.removeHandler(handler)
    root.setLevel(level)


def secrets_of(private: certs.PrivateKey) -> list[str]:
    """Ways a private key could show: its PEM body, its DER as base64 and hex, its numbers."""
    pem_lines = certs.key_pem(private).splitlines()[1:-1]
    der = base64.b64decode("".join(pem_lines))
    numbers: Any = private.private_numbers()  # type: ignore[union-attr]
    secret = numbers.private_value if hasattr(numbers, "private_value") else numbers.d
    return [
        max(pem_lines, key=len),
        base64.b64encode(der).decode()[20:80],
        der.hex()[40:100],
        str(secret),
        f"{secret:x}",
    ]


def test_a_run_with_known_secrets_shows_none_of_them(service: Service, record: Record) -> None:
    operator = service.client("operator")
    saw = record.saw
    own = certs.server(service.host(), private=certs.key("P-256", 31))
    encrypted = certs.key_pem(own.key, PASSPHRASE)
    upload = {"certificate": own.pem, "privateKey": encrypted, "passphrase": PASSPHRASE}

    saw(operator.post(SERVERS, {**upload, "passphrase": PASSPHRASE + "!"})).ok(422)
    saw(operator.post(SERVERS, {**upload, "passphrase": None})).ok(422)
    saw(operator.post(SERVERS, {**upload, "passphrase": 7})).ok(400)
    saw(operator.post(SERVERS, {**upload, "keyPassword": PASSPHRASE})).ok(400)
    saw(operator.post(SERVERS, {**upload, "certificate": own.key_pem})).ok(422)
    saw(operator.post(SERVERS, {**upload, "privateKey": own.key_pem})).ok(422)
    other = certs.server(service.host(), private=certs.key("P-256", 32))
    saw(operator.post(SERVERS, {"certificate": own.pem, "privateKey": other.key_pem})).ok(422)
    saw(operator.post("/authentication/cacertificates", {"certificate": own.key_pem})).ok(422)
    saw(operator.post("/authentication/preview", {"certificate": own.key_pem})).ok(422)
    saw(operator.post("/authorization/denylist", {"certificate": own.key_pem})).ok(422)
    uploaded = saw(operator.post(SERVERS, upload)).ok(201)["id"]
    requested = saw(operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"})).ok(201)["id"]
    for one in (uploaded, requested, "default"):
        saw(operator.get(f"{SERVERS}/{one}")).ok()
    saw(operator.get(f"{SERVERS}/{uploaded}/pem"))
    saw(operator.get(f"{SERVERS}/{requested}/csr"))
    saw(operator.get(SERVERS))
    saw(operator.put(f"{SERVERS}/active", {"id": uploaded})).ok()
    saw(operator.post(f"{SERVERS}/{uploaded}/renewal", {})).ok(201)
    saw(service.client("viewer").get(f"{SERVERS}/{uploaded}"))
    saw(Client(service.app, operator.key, operator.token + "x").get("/session")).ok(401)
    saw(operator.get("/activity?limit=200")).ok()
    _break_inside(service, operator, record, upload)

    repository = service.app.context.repository
    server = read_server_certificate(own.pem.encode(), private_key=encrypted.encode(), passphrase=PASSPHRASE)
    stored_record = repository.get(server_ref(service.org_id, uploaded))
    assert stored_record is not None
    request = repository.get(server_ref(service.org_id, requested))
    assert request is not None
    sealed_here = service.app.sealer.open(request.key, org_id=service.org_id, certificate_id=requested)
    made_here: Any = load_der_private_key(sealed_here, None)
    record.texts += [
        repr(one)
        for one in (
            server,
            stored_record,
            stored_record.key,
            repository.get(default_ref()),
            repository.get(org_ref(service.org_id)),
            service,
            service.app,
            operator,
            UploadServerCert(certificate=own.pem, private_key=encrypted, passphrase=PASSPHRASE),
            Request("POST", SERVERS, headers={}, body=encrypted.encode()),
            Request("GET", "/", headers={"authorization": basic(operator.key, operator.token)}).credentials,
        )
    ]
    record.texts.append(str(to_body(stored_record)))

    assert record.holds(uploaded), "the record is not empty"
    secrets = [PASSPHRASE, operator.token, *secrets_of(own.key), *secrets_of(other.key), *secrets_of(made_here)]
    secrets.append(max(encrypted.splitlines(), key=len))
    assert [one for one in secrets if record.holds(one)] == []


def _break_inside(service: Service, operator: Client, record: Record, upload: dict[str, str]) -> None:
    """An unforeseen error that quotes a secret: a 500 with an id, which the log has too."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"could not seal {upload['privateKey']} with {PASSPHRASE}")

    sealer: Any = service.app.sealer
    kept = sealer.seal
    sealer.seal = broken
    try:
        fresh = certs.server(service.host(), private=certs.key("P-256", 33))
        answer = operator.post(SERVERS, {"certificate": fresh.pem, "privateKey": fresh.key_pem})
    finally:
        sealer.seal = kept
    problem = record.saw(answer).ok(500)
    number = problem["detail"].split()[-1].rstrip(".")
    assert number in record.stream.getvalue(), "the log has the id"
    assert "in broken" in record.stream.getvalue(), "the log has the place"


def test_the_answers_have_no_field_for_a_key() -> None:
    """A listing cannot show what it has no field for."""
    names = {name.lower() for name in ServerView.__struct_fields__}
    assert not {one for one in names if "private" in one or "passphrase" in one or one == "key"}


def test_a_private_key_is_opened_in_three_modules_only() -> None:
    """edgeFeed exports a key, a renewal signs with a key, and `reseal` seals keys again; no other code opens a key."""
    root = Path(__file__).parents[1]
    openers = {
        module.relative_to(root).as_posix()
        for folder in ("shared", "functions")
        for module in (root / folder).rglob("*.py")
        if any(map(_opens_key, ast.walk(ast.parse(module.read_text()))))
    }
    assert openers == {
        "shared/usecases/edges/serve.py",
        "shared/usecases/servers/renew.py",
        "shared/usecases/jobs/reseal.py",
    }


def _opens_key(node: ast.AST) -> bool:
    """Return whether *node* is a call of `KeySealer.open`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    return node.func.attr == "open" and {keyword.arg for keyword in node.keywords} >= {"org_id", "certificate_id"}


def test_the_store_on_disk_holds_no_secret_in_the_clear(service: Service, tmp_path: Path) -> None:
    """Not in the database file, nor beside it."""
    operator = service.client("operator")
    issued = certs.server(service.host(), private=certs.key("RSA-2048", 5))
    encrypted = certs.key_pem(issued.key, PASSPHRASE)
    fields = {"certificate": issued.pem, "privateKey": encrypted, "passphrase": PASSPHRASE}
    operator.post(SERVERS, fields).ok(201)
    der = base64.b64decode("".join(issued.key_pem.splitlines()[1:-1]))
    needles = [PASSPHRASE.encode(), operator.token.encode(), der[320:420], base64.b64encode(der)[640:700]]
    for path in (one for one in tmp_path.rglob("*") if one.is_file()):
        data = path.read_bytes()
        assert not [one for one in needles if one in data], path.name


def test_an_error_carries_no_text_of_its_cause() -> None:
    """What a traceback of ours prints: kinds and places, for an error that is not a refusal."""
    from functions.web.http import problem

    try:
        raise ValueError(PASSPHRASE)
    except ValueError as error:
        reply = problem(Request("GET", "/"), error)
        assert PASSPHRASE in traceback.format_exc()
    assert PASSPHRASE.encode() not in reply.body

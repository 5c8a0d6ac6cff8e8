"""Exports that nobody can change, and imports that take only what belongs together."""

import base64
import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.records import DEFAULT, PLATFORM, ApiKey, Role, to_body
from shared.refs import api_key_ref, default_ref
from shared.usecases.jobs.export_file import ExportedDocument, ExportRefused, write_export
from shared.usecases.jobs.exported_documents import check_document
from shared.usecases.jobs.transfer import Imported, export_lines, import_lines, list_documents
from shared.usecases.orgs.deletion import delete_org, keys_of, partitions_of
from shared.usecases.orgs.organizations import create_org, list_orgs
from tests.support import certs
from tests.support.harness import Client, Service, make_service

pytestmark = pytest.mark.stores("sqlite")

ROOT = certs.ca("Root")
Line = dict[str, Any]


@pytest.fixture
def lines(service: Service, operator: Client) -> list[bytes]:
    """The export of an organization with every kind of document."""
    issued = certs.server(service.host())
    operator.post("/authentication/cacertificates", {"certificate": ROOT.pem}).ok(201)
    operator.post("/authentication/servercertificates", {"certificate": issued.pem, "privateKey": issued.key_pem}).ok(
        201
    )
    operator.post("/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"}).ok(201)
    operator.post("/authorization/denylist", {"kind": "identity", "value": "d:thermo:7"}).ok(201)
    certificate = certs.leaf("d:thermo:42", ROOT).pem
    question = {"serverName": service.host(), "clientId": f"d:{service.org_id}:thermo:42", "certificate": certificate}
    service.client("broker").post("/verifyClient", question).ok()
    service.flush()
    return list(export_lines(service.app.context, service.app.sealer, service.org_id))


@pytest.fixture
def elsewhere(service: Service, tmp_path: Path) -> Service:
    """An empty installation with the same master keys."""
    other = make_service(tmp_path / "elsewhere")
    app = msgspec.structs.replace(other.app, sealer=service.app.sealer)
    delete_org(app.context, other.org_id)
    return replace(other, app=app)


def take(target: Service, lines: list[bytes], **how: Any) -> Imported:
    return import_lines(target.app.context, target.app.sealer, lambda: lines, **how)


def list_org_ids(service: Service) -> list[str]:
    return [org.org_id for org in list_orgs(service.app.context)]


def documents(lines: list[bytes]) -> list[Line]:
    return [json.loads(line) for line in lines[1:-1]]


def test_an_import_brings_every_document(lines: list[bytes], elsewhere: Service) -> None:
    """As it was exported, byte by byte of its content."""
    assert take(elsewhere, lines, with_keys=True).written == len(lines) - 2
    again = [*map(msgspec.to_builtins, list_documents(elsewhere.app.context, "mtxpd0"))]

    def by_key(line: Line) -> tuple[str, str]:
        return line["partition"], line["id"]

    assert sorted(again, key=by_key) == sorted(documents(lines), key=by_key)


def test_every_change_of_an_export_is_noticed_before_anything_is_written(
    lines: list[bytes], elsewhere: Service
) -> None:
    """A changed byte, a line that is missing, moved, added or repeated, and the end of another export."""
    key = ApiKey(
        key="p-attacker00",
        role=Role.EDGE,
        token_hash=hashlib.sha256(b"known").hexdigest(),
        created_at=elsewhere.clock.now,
    )
    added: Line = {"partition": f"key/{PLATFORM}", "id": key.key, "body": to_body(key)}
    other = list(write_export(elsewhere.app.sealer, [ExportedDocument(**added)]))
    changed = {
        "added": [*lines[:-1], json.dumps(added).encode(), lines[-1]],
        "counted": [*lines[:-1], json.dumps(added).encode(), _end(lines[-1], lines=len(lines))],
        "in place": [lines[0], json.dumps(added).encode(), *lines[2:]],
        "missing": [lines[0], *lines[2:]],
        "moved": [lines[0], lines[2], lines[1], *lines[3:]],
        "repeated": [*lines[:2], *lines[1:]],
        "one byte": [*lines[:3], lines[3].replace(b'"body":{"', b'"body": {"', 1), *lines[4:]],
        "another end": [*lines[:-1], other[-1]],
        "another header": [other[0], *lines[1:]],
        "another mac": [*lines[:-1], _end(lines[-1], mac=secrets.token_hex(32))],
        "no mac": [*lines[:-1], _end(lines[-1], mac="")],
        "a part": lines[:5],
        "two exports": [*lines, *lines],
    }
    for name, forged in changed.items():
        assert forged != lines, name
        with pytest.raises(ExportRefused):
            take(elsewhere, forged, with_keys=True)
        assert elsewhere.app.context.repository.get(api_key_ref(None, key.key)) is None, name
        assert list_org_ids(elsewhere) == [], name


def _end(line: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(line), **changes}).encode()


def test_a_key_that_is_sealed_for_another_place_opens_no_export(
    service: Service, lines: list[bytes], elsewhere: Service
) -> None:
    """A tenant may know a private key, and read how the installation sealed it. It is no key of an export."""
    known = secrets.token_bytes(32)
    for org_id, certificate_id in (("mtxpd0", "0" * 32), (PLATFORM, DEFAULT), ("mtxpd0", "export")):
        sealed = service.app.sealer.seal(known, org_id=org_id, certificate_id=certificate_id)

        class Knowing:
            def seal(self, *_: Any, sealed: Any = sealed, **__: Any) -> Any:
                return sealed

        forged = list(write_export(Knowing(), []))  # type: ignore[arg-type]
        with pytest.raises(ExportRefused, match="does not open here"):
            take(elsewhere, [forged[0], *lines[1:]])


def test_an_import_changes_nothing_in_another_organization_of_the_id(lines: list[bytes], elsewhere: Service) -> None:
    """The id was created again: neither its document nor any other is replaced, and no document waits in the way."""
    context = elsewhere.app.context
    create_org(context, "mtxpd0", now=True)
    before = len(list(list_documents(context, "mtxpd0")))
    imported = take(elsewhere, lines, with_keys=True)
    assert (imported.written, imported.kept) == (0, len(lines) - 2)
    assert len(list(list_documents(context, "mtxpd0"))) == before
    root = {"certificate": ROOT.pem}
    elsewhere.client("operator").post("/authentication/cacertificates", root).ok(201)


def test_every_partition_of_an_organization_can_be_imported(service: Service) -> None:
    """A new kind of document needs a rule that says what belongs to it."""
    partitions = [*partitions_of("mtxpd0"), *(key.partition for key in keys_of("mtxpd0"))]
    for partition in partitions:
        with pytest.raises(ExportRefused) as refused:
            check_document(
                7,
                ExportedDocument(
                    partition, "mtxpd0", {"org_id": 5, "entries": 5, "cas": 5, "leaf": 5, "pages": 5, "lines": 5}
                ),
            )
        assert "Line 7" in str(refused.value)
        assert "does not know" not in str(refused.value), partition


@pytest.mark.parametrize(
    ("partition", "change"),
    [
        ("org", lambda line: line["body"].update(org_id="other1")),
        ("org", lambda line: line.update(id="other1")),
        ("org", lambda line: line.update(id="../../x")),
        ("ca/mtxpd0", lambda line: line.update(id="0" * 16)),
        (
            "ca/mtxpd0",
            lambda line: _first(line["body"]["cas"]).update(der=base64.b64encode(certs.ca("Another").der).decode()),
        ),
        ("ca/mtxpd0", lambda line: _first(line["body"]["cas"]).update(der="T2xk")),
        ("ca/mtxpd0", lambda line: line.update(partition="ca/platform")),
        ("deny/mtxpd0", lambda line: line.update(id="i-d:thermo:8")),
        ("deny/mtxpd0", lambda line: _first(line["body"]["entries"]).update(value="d:thermo:8")),
        ("deny/mtxpd0", lambda line: _first(line["body"]["entries"]).update(kind="serial", value="no number")),
        ("deny/mtxpd0", lambda line: _first(line["body"]["entries"]).update(kind="fingerprint", value="no digest")),
        ("deny/mtxpd0", lambda line: line["body"].update(withdrawals=[_withdrawal("other1")])),
        ("org", lambda line: line["body"].update(withdrawals=[_withdrawal("other1")])),
        ("org", lambda line: line["body"].update(withdrawals=[{**_withdrawal("mtxpd0"), "incarnation": "later"}])),
        ("org", lambda line: line["body"].update(withdrawals=[_withdrawal("mtxpd0")] * 201)),
        ("key/mtxpd0", lambda line: line.update(id="a-mtxpd0-another")),
        ("key/mtxpd0", lambda line: line.update(partition="key/other1")),
        ("key/mtxpd0", lambda line: line.update(partition="key/platform")),
        ("key/mtxpd0", lambda line: line["body"].pop("org_id")),
        ("server/mtxpd0", lambda line: line["body"].update(key_hash="0" * 64)),
        ("server/mtxpd0", lambda line: line.update(partition="server")),
        ("usage/mtxpd0", lambda line: line.update(id="yesterday")),
        ("shown/mtxpd0", lambda line: line.update(id="0" * 64)),
        ("shown/mtxpd0", lambda line: line["body"].pop("chain")),
        ("activity/mtxpd0/change", lambda line: line.update(partition="activity/mtxpd0/other")),
        ("activity/mtxpd0/change", lambda line: line.update(partition="feed/hosts")),
        ("activity/mtxpd0/change", lambda line: line.update(body=[])),
    ],
)
def test_a_document_that_is_not_what_its_name_says_is_refused(
    lines: list[bytes], elsewhere: Service, partition: str, change: Callable[[Line], object]
) -> None:
    """Also in a file that is taken without its seal: nothing of the file is written."""
    changed = documents(lines)
    of_kind = [line for line in changed if line["partition"] == partition]
    chosen = next((line for line in of_kind if "leaf" in line["body"]), of_kind[0])
    change(chosen)
    with pytest.raises(ExportRefused):
        take(elsewhere, [json.dumps(line).encode() for line in changed], is_signed=False)
    assert list_org_ids(elsewhere) == []


def _withdrawal(org_id: str) -> Line:
    return {"id": "0" * 12, "org_id": org_id, "kind": "org", "value": org_id, "at": "2026-06-01T12:00:00Z"}


def test_a_denial_of_each_kind_and_a_withdrawal_that_waits_can_be_imported(
    service: Service, operator: Client, lines: list[bytes], elsewhere: Service
) -> None:
    ca_id = operator.post("/authentication/cacertificates", {"certificate": ROOT.pem}).ok()["id"]
    operator.post("/authorization/denylist", {"certificate": certs.leaf("d:thermo:8", ROOT).pem}).ok(201)
    operator.post("/authorization/denylist", {"kind": "serial", "value": f"{ca_id}:0A1"}).ok(201)
    operator.post("/authorization/denylist", {"kind": "identity", "value": "g:hub:1"}).ok(201)
    exported = list(list_documents(service.app.context, "mtxpd0"))
    waiting = [
        msgspec.structs.replace(line, body={**line.body, "withdrawals": [_withdrawal("mtxpd0")]})
        if line.partition == "org"
        else line
        for line in exported
    ]
    imported = take(elsewhere, list(write_export(service.app.sealer, waiting)), with_keys=True)
    assert imported.written == len(exported)


def _first(values: dict[str, Line]) -> Line:
    return next(iter(values.values()))


def test_an_export_without_seal_brings_no_key(lines: list[bytes], elsewhere: Service) -> None:
    """Not even where the caller asks for keys."""
    done = take(elsewhere, lines[1:-1], is_signed=False, with_keys=True)
    assert done.keys == 2
    assert done.written == len(lines) - 4
    assert elsewhere.app.context.repository.list("key/mtxpd0", ApiKey) == []


def test_no_document_comes_without_its_organization(lines: list[bytes], elsewhere: Service) -> None:
    """Otherwise the document would wait for the next organization of that id."""
    without = [line for line in lines[1:-1] if json.loads(line)["partition"] != "org"]
    assert take(elsewhere, without, is_signed=False).written == 0
    assert not any(elsewhere.app.context.repository.has_documents(partition) for partition in partitions_of("mtxpd0"))


def test_one_organization_is_taken_alone(service: Service, elsewhere: Service) -> None:
    """The platform's default certificate and its keys are of no organization."""
    service.other_org()
    service.platform("edge")
    whole = list(export_lines(service.app.context, service.app.sealer, None))
    context = elsewhere.app.context
    before = context.repository.get(default_ref())
    done = take(elsewhere, whole, org_id="other1", with_keys=True)
    assert done.others > 0
    assert list_org_ids(elsewhere) == ["other1"]
    assert context.repository.get(default_ref()) == before
    assert context.repository.list(f"key/{PLATFORM}", ApiKey) == []

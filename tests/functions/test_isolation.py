"""An organization cannot read, change or use anything of another: by no id, path, name, key or server name."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import msgspec
import pytest

from functions.registry import PREFIX
from functions.web.contract import PUBLIC, Route
from shared.records import Proof, Role
from shared.usecases.jobs.transfer import list_documents
from tests.functions.addresses import ROUTES, client_path, handler_of
from tests.functions.dialects.recorded import FOLDER, LISTENER
from tests.functions.dialects.test_table import TABLE, Dialect, Expectation
from tests.support import certs
from tests.support.harness import Answer, Client, Service

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"
DENY = "/authorization/denylist"
SETTINGS = "/authorization/settings"
VERIFY = "/authorization/verifyclient"
THEIR_HOST = "other1.messaging.example.com"
THEIR_ROOT = certs.ca("Their Root")
OWN_ROOT = certs.ca("Own Root")
THEIR_DEVICE = certs.leaf("d:thermo:42", THEIR_ROOT)


class Theirs:
    """Another organization with one thing of each kind, and its stored documents."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.org_id = service.other_org("other1")
        self.operator = service.client("operator", self.org_id)
        self.broker = service.client("broker", self.org_id)
        post = self.operator.post
        self.ca: str = post(CAS, {"certificate": THEIR_ROOT.pem, "comments": "their own words"}).ok(201)["id"]
        server = certs.server(THEIR_HOST, THEIR_ROOT)
        fields = {"certificate": server.pem, "privateKey": server.key_pem}
        self.server: str = post(SERVERS, fields).ok(201)["id"]
        self.active: str = post(SERVERS, {
            "certificate": (two := certs.server(THEIR_HOST, THEIR_ROOT)).pem, "privateKey": two.key_pem
        }).ok(201)["id"]  # fmt: skip
        self.operator.put(f"{SERVERS}/active", {"id": self.active}).ok()
        self.csr: str = post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256", "organization": "Their Company"}).ok(201)["id"]
        denied = ({"kind": "identity", "value": "d:their:1"}, {"kind": "serial", "value": f"{self.ca}:5"})
        self.denials: list[str] = [post(DENY, entry).ok(201)["id"] for entry in denied]
        domains = {"enabled": True, "domains": ["iot.example.org"]}
        self.operator.put(SETTINGS, {"customDomains": domains}).ok()
        rules = [{"deviceType": "their", "level": "TLS Optional"}]
        policy = {"default": "TLS with Client Certificate Authentication", "rules": rules}
        self.operator.put("/authorization/connectionpolicy", policy).ok()
        assert ask(self.broker)["decision"] == "allow"
        service.flush()

    @property
    def ids(self) -> list[str]:
        return [self.ca, self.server, self.active, self.csr, *self.denials]

    @property
    def words(self) -> list[str]:
        """Words that no other caller may receive."""
        return [*self.ids, "Their", "their own words", "iot.example.org", THEIR_ROOT.fingerprint]

    def dump(self) -> list[dict[str, Any]]:
        """Return every stored document of the organization."""
        self._service.flush()
        documents = map(msgspec.to_builtins, list_documents(self._service.app.context, self.org_id))
        return sorted(documents, key=lambda line: (str(line["partition"]), str(line["id"])))


@pytest.fixture
def theirs(service: Service) -> Theirs:
    return Theirs(service)


def ask(client: Client, **fields: Any) -> dict[str, Any]:
    whole = {"serverName": THEIR_HOST, "clientId": "d:other1:thermo:42", "certificate": THEIR_DEVICE.pem, **fields}
    verdict: dict[str, Any] = client.post(VERIFY, {k: v for k, v in whole.items() if v is not None}).ok()
    return verdict


Body = dict[str, Any]
Case = Callable[[Theirs, str], Iterator[Body]]  # bodies that might reach an id of another organization


def _nothing(theirs: Theirs, item: str) -> Iterator[Body]:
    """The request has no fields; the path and the query hold everything."""
    yield {}


def _certificate(theirs: Theirs, item: str) -> Iterator[Body]:
    yield {"certificate": OWN_ROOT.pem}


def _server(theirs: Theirs, item: str) -> Iterator[Body]:
    server = certs.server(THEIR_HOST, THEIR_ROOT)
    yield {"certificate": server.pem, "privateKey": server.key_pem}
    yield {"certificate": server.pem}


def _signed(theirs: Theirs, item: str) -> Iterator[Body]:
    server = certs.server(THEIR_HOST, THEIR_ROOT)
    yield {"id": item, "certificate": server.pem}
    yield {"certificate": server.pem}


def _device(theirs: Theirs, item: str) -> Iterator[Body]:
    for explain in (True, False):
        yield {"serverName": THEIR_HOST, "certificate": THEIR_DEVICE.pem, "explain": explain}
        yield {"clientId": "d:other1:thermo:42", "certificate": THEIR_DEVICE.pem, "explain": explain}
        yield {"clientId": "d:other1:thermo:42", "tls": False, "explain": explain}


def _policy(theirs: Theirs, item: str) -> Iterator[Body]:
    yield {"default": "TLS Optional", "rules": [{"deviceType": "thermo", "level": "TLS Optional"}]}


def _denial(theirs: Theirs, item: str) -> Iterator[Body]:
    yield {"kind": "serial", "value": f"{item}:5"}
    yield {"kind": "identity", "value": "d:thermo:42"}
    yield {"certificate": OWN_ROOT.pem}


def _fields(**fields: Any) -> Case:
    def case(theirs: Theirs, item: str) -> Iterator[Body]:
        yield {name: item if value == "{item}" else value for name, value in fields.items()}

    return case


CASES: dict[str, Case] = {
    "upload_ca": _certificate,
    "upload_server_cert": _server,
    "activate_server_cert": _fields(id="{item}"),
    "active_server_cert": _nothing,
    "generate_csr": _fields(commonName=THEIR_HOST),
    "fulfill_csr": _signed,
    "verify_client": _device,
    "list_cas": _nothing,
    "get_ca": _nothing,
    "change_ca": _fields(status="inactive", comments="mine now"),
    "delete_ca": _nothing,
    "ca_pem": _nothing,
    "ca_table": _nothing,
    "ca_bundle": _nothing,
    "list_servers": _nothing,
    "get_server_cert": _nothing,
    "change_server": _fields(comments="mine now"),
    "delete_server": _nothing,
    "server_pem": _nothing,
    "server_csr": _nothing,
    "renew": _nothing,
    "preview": _fields(certificate=OWN_ROOT.pem),
    "get_policy": _nothing,
    "put_policy": _policy,
    "dry_run_policy": _policy,
    "get_settings": _nothing,
    "put_settings": _fields(customDomains={"enabled": True, "domains": ["shared.example.org"]}),
    "list_denials": _nothing,
    "deny": _denial,
    "lift": _nothing,
    "list_activity": _nothing,
    "activity_table": _nothing,
    "list_edges": _nothing,
    "list_callers": _nothing,
    "get_traffic": _nothing,
    "list_devices": _nothing,
    "session": _nothing,
    "list_hosts": _nothing,
    "get_host": _nothing,
    "list_withdrawals": _nothing,
    "recheck": _fields(
        sessions=[{"session": "1", "org": "other1", "serverName": THEIR_HOST, "identity": "d:thermo:42"}]
    ),
    "served": _fields(edge="mine", hosts=[{"serverName": THEIR_HOST, "version": "1-1"}]),
    "refused": _fields(edge="mine", refused=[{"org": "other1", "code": "token_of_another", "count": 1}]),
    "listeners": _fields(resource_names=[THEIR_HOST]),
    "secrets": _fields(resource_names=[f"server/{THEIR_HOST}"]),
}


def test_every_route_has_its_case() -> None:
    """A new route needs a case here. Dialects have theirs in their own table."""
    with_caller = [route for route in ROUTES if route.endpoint.roles != PUBLIC]
    assert {handler_of(route) for route in with_caller if not route.endpoint.is_dialect} == set(CASES)
    asked = {json.loads(path.read_text())["path"] for path in FOLDER.iterdir()}
    dialects = {
        route.path.removeprefix(PREFIX).replace("{*rest}", "mqtt") for route in ROUTES if route.endpoint.is_dialect
    }
    assert dialects - asked == {"/verifyClient/envoy"}  # a single handler, with and without a path below it


def every_caller(service: Service) -> list[Client]:
    """Return clients with each kind of foreign key: each role, each mark, the platform's keys for this organization."""
    return [
        *map(service.client, Role),
        service.client("broker", no_sni=True),
        service.client("broker", proof=Proof.BROKER),
        service.client("broker", proof=Proof.BROKER, listener=LISTENER),
        service.platform("broker", orgs=[service.org_id]),
        service.platform("edge", orgs=[service.org_id]),
        service.anonymous,
    ]


def queries(route: Route, item: str) -> Iterator[dict[str, str]]:
    yield {}
    takes = route.endpoint.query
    if "dryrun" in takes:
        yield {"dryrun": "true"}
    if "bookmark" in takes:
        yield {"bookmark": item}
    if "q" in takes:
        yield {"q": item}
    if "ids" in takes:
        yield {"ids": item}


def test_no_route_reaches_an_id_of_another_organization(service: Service, theirs: Theirs) -> None:
    """For every role, with the id in the path, in the body and as a bookmark: not found, or refused.

    No answer contains a word of the other organization, and none of its documents changes.
    """
    before = theirs.dump()
    members = every_caller(service)
    leaks: list[str] = []
    for route in ROUTES:
        if handler_of(route) not in CASES:
            continue
        for item in theirs.ids if "{id}" in route.path or route.method != "GET" else theirs.ids[:1]:
            path = client_path(route, id=item, serverName=THEIR_HOST)
            for body in CASES[handler_of(route)](theirs, item):
                sent = json.dumps(body).encode()
                for member, query in product(members, queries(route, item)):
                    answer = member.send(route.method, path, sent, headers={"if-match": "*"}, query=query)
                    names_theirs = "{id}" in route.path or "{serverName}" in route.path
                    reached = names_theirs and answer.status not in (400, 401, 403, 404)
                    if answer.status >= 500 or reached:
                        leaks.append(f"{route.method} {path} {body}: {answer.status} {answer.text}")
                    # the answer may repeat the request, and nothing else of the other organization
                    known = f"{item} {json.dumps(body)}"
                    sent_too = "CN=Their Root" if THEIR_DEVICE.pem in body.values() else known
                    leaks += [
                        f"{route.method} {path} {body} contains {word}: {answer.text}"
                        for word in theirs.words
                        if word in answer.text.replace(sent_too, "") and word not in known
                    ]
    assert leaks == []
    assert theirs.dump() == before


def matches(expected: Expectation, answer: Answer) -> bool:
    """Whether *answer* is the expected answer; an answer of another form is not."""
    try:
        return expected(answer)
    except (AssertionError, KeyError):
        return False


@pytest.mark.stores("sqlite")  # a verdict reads each store in the same way (test_verify_client.py)
@pytest.mark.parametrize("row", TABLE.values(), ids=list(TABLE))
def test_no_dialect_admits_a_device_of_another_organization(service: Service, theirs: Theirs, row: Dialect) -> None:
    """For every foreign key the device is refused, and nothing of the other organization changes.

    With the organization's own key the same question is allowed, in every dialect that has a word for it.
    """
    question = replace(row.request, org=theirs.org_id)
    if theirs.org_id not in (FOLDER / f"{question.name}.json").read_text().replace("mtxpd0", theirs.org_id):
        question = replace(
            question, changes={"client_id": f"d:{theirs.org_id}:thermo:42"}
        )  # the recorded question names no organization
    before = theirs.dump()
    for client in every_caller(service):
        answer = question.send(client, THEIR_DEVICE)
        assert answer.status < 500
        assert row.allowed is row.denied or not matches(row.allowed, answer), (client.key, answer.text)
        assert [word for word in theirs.words if word in answer.text.replace(THEIR_DEVICE.pem, "")] == []
    assert theirs.dump() == before
    own = replace(question, changes={}).send(service.client("broker", theirs.org_id, **row.key), THEIR_DEVICE)
    assert row.allowed(own), own.text


def test_lists_and_activity_show_the_own_organization_only(service: Service, theirs: Theirs, operator: Client) -> None:
    own = operator.post(CAS, {"certificate": certs.ca("Own").pem}).ok(201)["id"]
    assert [entry["id"] for entry in operator.get(CAS).ok()["results"]] == [own]
    assert [entry["id"] for entry in operator.get(SERVERS).ok()["results"]] == ["default"]
    assert operator.get(DENY).ok()["results"] == []
    assert {entry["who"] for entry in operator.get("/activity").ok()["results"]} == {"admin", operator.key}
    assert own not in theirs.operator.get("/activity").text


def test_activating_or_fulfilling_an_id_of_another_organization(theirs: Theirs, operator: Client) -> None:
    """404, with the same text as for an id that does not exist."""
    before = theirs.dump()

    def both(send: Any) -> None:
        answers: list[Answer] = [send(server_id) for server_id in (theirs.server, "0" * 32)]
        assert [server_id.status for server_id in answers] == [404, 404]
        assert answers[0].text == answers[1].text

    both(lambda server_id: operator.put(f"{SERVERS}/active", {"id": server_id}))
    both(lambda server_id: operator.post("/activateServerCert", {"id": server_id}))
    both(lambda server_id: operator.post("/fulfillCSR", {"id": server_id, "certificate": THEIR_DEVICE.pem}))
    both(lambda server_id: operator.post(f"{SERVERS}/{server_id}/renewal", {}))
    both(lambda server_id: operator.get(f"{SERVERS}/{server_id}/pem"))
    both(lambda server_id: operator.get(f"{SERVERS}/{server_id}/csr"))
    both(lambda server_id: operator.delete(f"{SERVERS}/{server_id}"))
    assert operator.get(f"{SERVERS}/active").ok()["active"] == "default"
    assert theirs.dump() == before


def test_devices_of_another_organization(service: Service, theirs: Theirs, broker: Client, operator: Client) -> None:
    """A key gets `org_mismatch` for every question about such a device.

    The question leaves no usage and no activity in the other organization.
    """
    before = theirs.dump()
    no_sni = service.client("broker", no_sni=True)
    only_mine = service.platform("broker", orgs=[service.org_id])
    for client in (broker, no_sni, only_mine):
        for fields in (
            {},
            {"clientId": None},
            {"serverName": None},
            {"serverName": None, "tls": False},
            {"serverName": "other1.messaging.iot.example.org"},
            {"serverName": THEIR_HOST.upper()},
        ):
            verdict = ask(client, **fields)
            if client is no_sni and "clientId" in fields:
                assert (verdict["code"], verdict["orgId"]) == (
                    "no_trusted_ca",
                    service.org_id,
                )  # the key's own organization decides
                continue
            assert (verdict["decision"], verdict["code"], verdict["orgId"]) == (
                "deny",
                "org_mismatch",
                client.key[2:8] if client is not only_mine else None,
            )
            assert verdict["identity"] is None
    verdict = ask(broker, serverName=service.host(), clientId="d:other1:thermo:42")
    assert verdict["code"] == "org_mismatch"
    assert theirs.dump() == before


def test_a_shared_custom_domain_gives_no_access(service: Service, theirs: Theirs, operator: Client) -> None:
    """The first label of a host names the organization, and a certificate must be for one of its own hosts."""
    domains = {"enabled": True, "domains": ["iot.example.org"]}
    operator.put(SETTINGS, {"customDomains": domains}).ok()
    name = "other1.messaging.iot.example.org"
    assert ask(service.client("broker"), serverName=name)["code"] == "org_mismatch"
    server = certs.server(name, THEIR_ROOT)
    refused = operator.post(SERVERS, {"certificate": server.pem, "privateKey": server.key_pem})
    assert refused.code == "host_mismatch"
    assert operator.post(f"{SERVERS}/csr", {"commonName": name}).code == "host_not_allowed"


def test_a_ca_vouches_for_devices_of_its_organization_only(service: Service, theirs: Theirs) -> None:
    """A device that names another organization's host is refused, although its own organization accepts it."""
    root = certs.ca("Own")
    service.client("operator").post(CAS, {"certificate": root.pem}).ok(201)
    device = certs.leaf("d:thermo:42", root).pem
    everybody = service.platform("broker")
    home = {"serverName": service.host(), "clientId": "d:mtxpd0:thermo:42"}
    assert ask(everybody, certificate=device, **home)["decision"] == "allow"
    assert ask(everybody, certificate=device)["code"] == "untrusted_issuer"
    assert ask(everybody, certificate=device, serverName=service.host())["code"] == "org_mismatch"
    assert ask(everybody, **home)["code"] == "untrusted_issuer"


def test_a_ca_in_two_organizations_is_two_records(service: Service, theirs: Theirs, operator: Client) -> None:
    """A CA is public. Registering it a second time reveals and changes nothing of the other organization."""
    before = theirs.dump()
    mine = operator.post(CAS, {"certificate": THEIR_ROOT.pem}).ok(201)
    assert mine["id"] == theirs.ca  # the id identifies the certificate, not the organization
    assert (mine["comments"], mine["lastUsed"], mine["createdBy"]) == ("", None, operator.key)
    assert ask(service.client("broker"))["code"] == "org_mismatch"
    operator.put(f"{CAS}/{theirs.ca}", {"status": "inactive"}).ok()
    operator.delete(f"{CAS}/{theirs.ca}").ok(204)
    assert theirs.dump() == before
    assert ask(theirs.broker)["decision"] == "allow"


def test_a_deny_list_affects_its_own_organization_only(service: Service, theirs: Theirs, operator: Client) -> None:
    """An entry for a certificate, device or CA of another organization has no effect there."""
    before = theirs.dump()
    for body in (
        {"certificate": THEIR_DEVICE.pem},
        {"certificate": THEIR_ROOT.pem},
        {"kind": "identity", "value": "d:thermo:42"},
    ):
        operator.post(DENY, body).ok(201)
    assert operator.post(DENY, {"kind": "serial", "value": f"{theirs.ca}:1"}).status == 404
    assert theirs.dump() == before
    assert ask(theirs.broker)["decision"] == "allow"


def test_a_key_with_another_organization_in_its_name(service: Service, theirs: Theirs, operator: Client) -> None:
    """The organization is part of the key's name, so a changed name is a key that does not exist."""
    forged = Client(service.app, operator.key.replace("mtxpd0", "other1"), operator.token)
    swapped = Client(service.app, theirs.operator.key, operator.token)
    for client in (forged, swapped):
        assert client.get(CAS).status == 401
        assert client.post(VERIFY, {}).status == 401


def test_a_body_cannot_choose_the_organization(theirs: Theirs, operator: Client) -> None:
    """The key decides. A field that names another organization is unknown, and a header is ignored."""
    before = theirs.dump()
    for name in ("org", "orgId", "org_id"):
        assert operator.post(CAS, {"certificate": THEIR_ROOT.pem, name: "other1"}).code == "unknown_field"
    own = operator.send("GET", "/session", headers={"x-org-id": "other1", "host": THEIR_HOST}, query={"org": "other1"})
    assert own.ok()["org"] == "mtxpd0"
    assert theirs.dump() == before

"""One org never reads, changes or uses anything of another: not by an id, a path, a name, a key or a server name."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from functions.routes import ANYBODY, ROUTES, Route
from functions.web.contract import CONTRACTS
from shared.records import Proof, Role
from shared.usecases.jobs.transfer import export_lines
from tests import certs
from tests.functions.dialects.recorded import FOLDER
from tests.functions.dialects.test_table import TABLE, DeliveredMessage, Dialect
from tests.harness import Answer, Client, Service

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
    """Another org with one thing of each kind, and what it looks like in the store."""

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
        self.denials: list[str] = [post(DENY, one).ok(201)["id"] for one in denied]
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
        """What must not be told to anybody else."""
        return [*self.ids, "Their", "their own words", "iot.example.org", THEIR_ROOT.fingerprint]

    def dump(self) -> list[dict[str, Any]]:
        """Every document of the org, as it is stored."""
        self._service.flush()
        lines = export_lines(self._service.app.context, self.org_id)
        return sorted(lines, key=lambda line: (str(line["partition"]), str(line["id"])))


@pytest.fixture
def theirs(service: Service) -> Theirs:
    return Theirs(service)


def ask(client: Client, **fields: Any) -> dict[str, Any]:
    whole = {"serverName": THEIR_HOST, "clientId": "d:other1:thermo:42", "certificate": THEIR_DEVICE.pem, **fields}
    found: dict[str, Any] = client.post(VERIFY, {k: v for k, v in whole.items() if v is not None}).ok()
    return found


Body = dict[str, Any]
Case = Callable[[Theirs, str], Iterator[Body]]  # what could be sent to a handler to reach an id of another org


def _nothing(theirs: Theirs, item: str) -> Iterator[Body]:
    """What can be asked for stands in the path and the query."""
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


def _one(**fields: Any) -> Case:
    def case(theirs: Theirs, item: str) -> Iterator[Body]:
        yield {name: item if value == "{item}" else value for name, value in fields.items()}

    return case


CASES: dict[str, Case] = {
    "upload_ca:upload_ca": _certificate,
    "upload_server_cert:upload_server_cert": _server,
    "activate_server_cert:activate_server_cert": _one(id="{item}"),
    "activate_server_cert:active_server_cert": _nothing,
    "generate_csr:generate_csr": _one(commonName=THEIR_HOST),
    "fulfill_csr:fulfill_csr": _signed,
    "verify_client:verify_client": _device,
    "manage_certificates:list_cas": _nothing,
    "manage_certificates:get_ca": _nothing,
    "manage_certificates:change_ca": _one(status="inactive", comments="mine now"),
    "manage_certificates:delete_ca": _nothing,
    "manage_certificates:ca_pem": _nothing,
    "manage_certificates:list_servers": _nothing,
    "manage_certificates:get_server_cert": _nothing,
    "manage_certificates:change_server": _one(comments="mine now"),
    "manage_certificates:delete_server": _nothing,
    "manage_certificates:server_pem": _nothing,
    "manage_certificates:server_csr": _nothing,
    "manage_certificates:renew": _nothing,
    "manage_certificates:preview": _one(certificate=OWN_ROOT.pem),
    "connection_policy:get_policy": _nothing,
    "connection_policy:put_policy": _policy,
    "connection_policy:dry_run_policy": _policy,
    "connection_policy:get_settings": _nothing,
    "connection_policy:put_settings": _one(customDomains={"enabled": True, "domains": ["shared.example.org"]}),
    "connection_policy:list_denials": _nothing,
    "connection_policy:deny": _denial,
    "connection_policy:lift": _nothing,
    "activity_log:list_activity": _nothing,
    "activity_log:session": _nothing,
    "edge_feed:list_hosts": _nothing,
    "edge_feed:get_host": _nothing,
    "edge_feed:list_withdrawals": _nothing,
    "edge_feed:served": _one(edge="mine", hosts=[{"serverName": THEIR_HOST, "version": "1-1"}]),
    "envoy_discovery:listeners": _one(resource_names=[THEIR_HOST]),
    "envoy_discovery:secrets": _one(resource_names=[f"server/{THEIR_HOST}"]),
}


def test_every_route_has_its_case() -> None:
    """A new route without one fails here, so that nobody forgets to try it. Dialects have theirs in their own table."""
    handlers = {route.handler for route in ROUTES if route.roles != ANYBODY}
    assert {one for one in handlers if not one.startswith("dialects.")} == set(CASES)
    asked = {json.loads(path.read_text())["path"] for path in FOLDER.iterdir()}
    dialects = {route.path.replace("{*rest}", "mqtt") for route in ROUTES if route.handler.startswith("dialects.")}
    assert dialects - asked == {"/verifyClient/envoy"}  # with and without a path behind it: one handler


def every_caller(service: Service) -> list[Client]:
    """One key of each kind that is not theirs: every role, every mark, and the platform's for this org alone."""
    return [
        *map(service.client, Role),
        service.client("broker", no_sni=True),
        service.client("broker", proof=Proof.BROKER),
        service.platform("broker", orgs=[service.org_id]),
        service.platform("edge", orgs=[service.org_id]),
        service.anybody,
    ]


def queries(route: Route, item: str) -> Iterator[dict[str, str]]:
    yield {}
    takes = CONTRACTS[route.load].query
    if "dryrun" in takes:
        yield {"dryrun": "true"}
    if "bookmark" in takes:
        yield {"bookmark": item}


def test_every_route_with_every_id_of_another_org(service: Service, theirs: Theirs) -> None:
    """By every role, with the id in the path, in the body and as a bookmark: not found, or refused; nothing is told,
    nothing is changed."""
    before = theirs.dump()
    members = every_caller(service)
    told: list[str] = []
    for route in ROUTES:
        if route.handler not in CASES:
            continue
        for item in theirs.ids if "{id}" in route.path or route.method != "GET" else theirs.ids[:1]:
            path = route.path.replace("{id}", item).replace("{serverName}", THEIR_HOST)
            path = f"/{path}" if route.bare else path
            for body in CASES[route.handler](theirs, item):
                sent = json.dumps(body).encode()
                for member, query in product(members, queries(route, item)):
                    answer = member.send(route.method, path, sent, headers={"if-match": "*"}, query=query)
                    names_theirs = "{id}" in route.path or "{serverName}" in route.path
                    reached = names_theirs and answer.status not in (400, 401, 403, 404)
                    if answer.status >= 500 or reached:
                        told.append(f"{route.method} {path} {body}: {answer.status} {answer.text}")
                    # what was asked may be said again, and nothing else of theirs
                    known = f"{item} {json.dumps(body)}"
                    sent_too = "CN=Their Root" if THEIR_DEVICE.pem in body.values() else known
                    told += [
                        f"{route.method} {path} {body} tells {word}: {answer.text}"
                        for word in theirs.words
                        if word in answer.text.replace(sent_too, "") and word not in known
                    ]
    assert told == []
    assert theirs.dump() == before


def says(told: DeliveredMessage, answer: Answer) -> bool:
    """Whether *answer* is that; one of another form is not."""
    try:
        return told(answer)
    except (AssertionError, KeyError):
        return False


@pytest.mark.parametrize("row", TABLE.values(), ids=list(TABLE))
def test_every_dialect_about_another_orgs_device(service: Service, theirs: Theirs, row: Dialect) -> None:
    """By every key that is not theirs: nobody is let in, and the other org hears nothing of it. By their own key the
    very same question is allowed, where that broker can be told so."""
    question = replace(row.request, org=theirs.org_id)
    if theirs.org_id not in (FOLDER / f"{question.name}.json").read_text().replace("mtxpd0", theirs.org_id):
        question = replace(
            question, changes={"client_id": f"d:{theirs.org_id}:thermo:42"}
        )  # it names no org: this does
    before = theirs.dump()
    for client in every_caller(service):
        answer = question.send(client, THEIR_DEVICE)
        assert answer.status < 500
        assert row.allowed is row.denied or not says(row.allowed, answer), (client.key, answer.text)
        assert [word for word in theirs.words if word in answer.text.replace(THEIR_DEVICE.pem, "")] == []
    assert theirs.dump() == before
    by_names = Proof.BROKER if row.by_names else Proof.CHAIN
    own = replace(question, changes={}).send(service.client("broker", theirs.org_id, proof=by_names), THEIR_DEVICE)
    assert row.allowed(own), own.text


def test_lists_and_activity_show_ones_own_only(service: Service, theirs: Theirs, operator: Client) -> None:
    own = operator.post(CAS, {"certificate": certs.ca("Own").pem}).ok(201)["id"]
    assert [one["id"] for one in operator.get(CAS).ok()["results"]] == [own]
    assert [one["id"] for one in operator.get(SERVERS).ok()["results"]] == ["default"]
    assert operator.get(DENY).ok()["results"] == []
    assert {one["who"] for one in operator.get("/activity").ok()["results"]} == {"admin", operator.key}
    assert own not in theirs.operator.get("/activity").text


def test_activating_or_fulfilling_what_is_anothers(theirs: Theirs, operator: Client) -> None:
    """404, word for word as for an id that nobody has."""
    before = theirs.dump()

    def both(send: Any) -> None:
        answers: list[Answer] = [send(one) for one in (theirs.server, "0" * 32)]
        assert [one.status for one in answers] == [404, 404]
        assert answers[0].text == answers[1].text

    both(lambda one: operator.put(f"{SERVERS}/active", {"id": one}))
    both(lambda one: operator.post("/activateServerCert", {"id": one}))
    both(lambda one: operator.post("/fulfillCSR", {"id": one, "certificate": THEIR_DEVICE.pem}))
    both(lambda one: operator.post(f"{SERVERS}/{one}/renewal", {}))
    both(lambda one: operator.get(f"{SERVERS}/{one}/pem"))
    both(lambda one: operator.get(f"{SERVERS}/{one}/csr"))
    both(lambda one: operator.delete(f"{SERVERS}/{one}"))
    assert operator.get(f"{SERVERS}/active").ok()["active"] == "default"
    assert theirs.dump() == before


def test_another_orgs_devices(service: Service, theirs: Theirs, broker: Client, operator: Client) -> None:
    """A key of one org gets `org_mismatch` about another's devices, however it asks; and its own sightings tell
    nothing to the other."""
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
            found = ask(client, **fields)
            if client is no_sni and "clientId" in fields:
                assert (found["code"], found["orgId"]) == ("no_trusted_ca", service.org_id)  # its own org is judged
                continue
            assert (found["decision"], found["code"], found["orgId"]) == (
                "deny",
                "org_mismatch",
                client.key[2:8] if client is not only_mine else None,
            )
            assert found["identity"] is None
    found = ask(broker, serverName=service.host(), clientId="d:other1:thermo:42")
    assert found["code"] == "org_mismatch"
    assert theirs.dump() == before


def test_a_shared_custom_domain_gives_nothing_of_anothers(service: Service, theirs: Theirs, operator: Client) -> None:
    """Both list it: the first label still names the org, and a certificate must be for one's own host."""
    domains = {"enabled": True, "domains": ["iot.example.org"]}
    operator.put(SETTINGS, {"customDomains": domains}).ok()
    name = "other1.messaging.iot.example.org"
    assert ask(service.client("broker"), serverName=name)["code"] == "org_mismatch"
    one = certs.server(name, THEIR_ROOT)
    refused = operator.post(SERVERS, {"certificate": one.pem, "privateKey": one.key_pem})
    assert refused.code == "host_mismatch"
    assert operator.post(f"{SERVERS}/csr", {"commonName": name}).code == "host_not_allowed"


def test_ones_own_ca_vouches_for_nobody_elsewhere(service: Service, theirs: Theirs) -> None:
    """A device of one org that names the other's host is no device there, though its certificate is good at home."""
    root = certs.ca("Own")
    service.client("operator").post(CAS, {"certificate": root.pem}).ok(201)
    device = certs.leaf("d:thermo:42", root).pem
    everybody = service.platform("broker")
    home = {"serverName": service.host(), "clientId": "d:mtxpd0:thermo:42"}
    assert ask(everybody, certificate=device, **home)["decision"] == "allow"
    assert ask(everybody, certificate=device)["code"] == "untrusted_issuer"
    assert ask(everybody, certificate=device, serverName=service.host())["code"] == "org_mismatch"
    assert ask(everybody, **home)["code"] == "untrusted_issuer"


def test_one_ca_in_two_orgs_is_two_records(service: Service, theirs: Theirs, operator: Client) -> None:
    """A CA is public and may be anybody's: who registers it too learns nothing of the other's, and changes nothing."""
    before = theirs.dump()
    mine = operator.post(CAS, {"certificate": THEIR_ROOT.pem}).ok(201)
    assert mine["id"] == theirs.ca  # an id says which certificate it is, not whose
    assert (mine["comments"], mine["lastUsed"], mine["createdBy"]) == ("", None, operator.key)
    assert ask(service.client("broker"))["code"] == "org_mismatch"
    operator.put(f"{CAS}/{theirs.ca}", {"status": "inactive"}).ok()
    operator.delete(f"{CAS}/{theirs.ca}").ok(204)
    assert theirs.dump() == before
    assert ask(theirs.broker)["decision"] == "allow"


def test_one_orgs_deny_list_is_its_own(service: Service, theirs: Theirs, operator: Client) -> None:
    """Denying another org's certificate, device or CA does nothing to it there."""
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


def test_a_key_that_claims_another_org(service: Service, theirs: Theirs, operator: Client) -> None:
    """The org is in the key's name, so a changed name is another key, and nobody's."""
    forged = Client(service.app, operator.key.replace("mtxpd0", "other1"), operator.token)
    swapped = Client(service.app, theirs.operator.key, operator.token)
    for client in (forged, swapped):
        assert client.get(CAS).status == 401
        assert client.post(VERIFY, {}).status == 401


def test_a_body_cannot_say_for_whom_it_is(theirs: Theirs, operator: Client) -> None:
    """The org comes from the key: a field or header that names another is unknown, or nothing."""
    before = theirs.dump()
    for name in ("org", "orgId", "org_id"):
        assert operator.post(CAS, {"certificate": THEIR_ROOT.pem, name: "other1"}).code == "unknown_field"
    own = operator.send("GET", "/session", headers={"x-org-id": "other1", "host": THEIR_HOST}, query={"org": "other1"})
    assert own.ok()["org"] == "mtxpd0"
    assert theirs.dump() == before

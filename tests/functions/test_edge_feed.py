"""edgeFeed over HTTP: the hosts that a TLS edge serves, and who may export a private key."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import structs

from shared.errors import StoreUnavailable
from shared.ports import Key
from shared.refs import org_hosts_ref, org_ref, server_ref
from shared.usecases.callers import label_key
from shared.usecases.edges import listing
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.jobs.transfer import export_lines, import_lines
from shared.usecases.orgs.default_certificate import set_default
from shared.usecases.orgs.deletion import delete_org
from shared.usecases.orgs.organizations import create_org, set_suspended
from tests.support import certs
from tests.support.certs import NOON, YEAR
from tests.support.harness import Answer, Client, Service, make_service

HOSTS = "//edge/v1/hosts"
SERVERS = "/authentication/servercertificates"
SETTINGS = "/authorization/settings"
HOST = "mtxpd0.messaging.example.com"
CUSTOM = "mtxpd0.messaging.iot.acme.org"
ROOT = certs.ca("Server Root")
INTERMEDIATE = certs.ca("Server Intermediate", ROOT)


@dataclass
class Edge:
    """An edge as docs/api.md describes it: the edge keeps what it serves, and asks with the head of the last page."""

    client: Client
    head: str = ""
    serves: dict[str, dict[str, Any]] = field(default_factory=dict)
    pages: int = 0
    _listed: set[str] = field(default_factory=set)  # hosts on the pages of a full list so far

    def follow(self) -> list[str]:
        """Read pages until the last one. Return the hosts on the pages."""
        hosts = []
        while True:
            page = self.client.get(HOSTS, query={"since": self.head}).ok()
            self.pages += 1
            if page["first"]:
                self._listed = set()
            for host in page["hosts"]:
                hosts.append(host["serverName"])
                self._listed.add(host["serverName"])
                if host["removed"]:
                    self.serves.pop(host["serverName"], None)
                else:
                    self.serves[host["serverName"]] = host
            self.head = page["head"]
            if not page["more"]:
                if page["full"]:
                    self.serves = {name: host for name, host in self.serves.items() if name in self._listed}
                return hosts

    def version(self, host: str = HOST) -> str:
        version: str = self.serves[host]["version"]
        return version


@pytest.fixture
def edge(service: Service) -> Edge:
    return Edge(service.platform("edge"))


def activate(operator: Client, issued: certs.Issued, *chain: certs.Issued) -> str:
    """Upload and activate a server certificate. Return its id."""
    fields = {"certificate": certs.bundle(issued, *chain), "privateKey": issued.key_pem}
    certificate_id: str = operator.post(SERVERS, fields).ok(201)["id"]
    operator.put(f"{SERVERS}/active", {"id": certificate_id}).ok()
    return certificate_id


def own(number: int = 0, host: str = HOST, **more: Any) -> certs.Issued:
    return certs.server(host, INTERMEDIATE, private=certs.key("P-256", 800 + number), **more)


def list_domains(operator: Client, *domains: str) -> Answer:
    return operator.put(SETTINGS, {"customDomains": {"enabled": bool(domains), "domains": list(domains)}})


# ------------------------------------------------------------------------------------------------------ listing


def test_a_new_org_is_listed_with_the_default_certificate(service: Service, edge: Edge) -> None:
    """The list has exact hosts, never a pattern; a client certificate is requested, never required."""
    page = edge.client.get(HOSTS).ok()
    [host] = page["hosts"]
    assert host == {
        "serverName": HOST,
        "org": "mtxpd0",
        "version": page["defaultVersion"],
        "removed": False,
        "clientCertificate": "requested",
        "certificateId": "default",
    }
    assert (page["more"], page["full"], page["first"]) == (False, True, True)


def test_a_page_without_changes_is_empty_and_has_the_same_head(edge: Edge) -> None:
    edge.follow()
    page = edge.client.get(HOSTS, query={"since": edge.head}).ok()
    assert (page["hosts"], page["head"], page["more"], page["full"]) == ([], edge.head, False, False)


def test_a_change_is_in_the_feed_before_its_call_is_answered(service: Service, operator: Client, edge: Edge) -> None:
    """The next poll lists the changed hosts, and no others, after an activation, a new organization, a suspension and a
    deletion."""
    edge.follow()
    before = edge.version()
    certificate_id = activate(operator, own())
    assert edge.follow() == [HOST]
    assert edge.serves[HOST]["certificateId"] == certificate_id
    assert edge.version() != before
    assert edge.follow() == []

    operator.put(f"{SERVERS}/active", {"id": "default"}).ok()
    edge.follow()
    assert edge.version() == before, "the same certificate is the same version"

    service.other_org()
    assert edge.follow() == [service.host("other1")]
    set_suspended(service.app.context, "other1", True)
    edge.follow()
    assert list(edge.serves) == [HOST]
    set_suspended(service.app.context, "other1", False)
    edge.follow()
    assert sorted(edge.serves) == [HOST, service.host("other1")]
    delete_org(service.app.context, "other1")
    assert edge.follow() == [service.host("other1")]
    assert list(edge.serves) == [HOST]


def test_a_completed_chain_is_served_before_its_call_is_answered(
    service: Service, operator: Client, edge: Edge
) -> None:
    """The active certificate was uploaded without its chain. The edges get the chain with the upload that has it."""
    issued = own()
    certificate_id = activate(operator, issued)
    edge.follow()
    version = edge.version()
    fields = {"certificate": certs.bundle(issued, INTERMEDIATE), "privateKey": issued.key_pem}
    assert operator.post(SERVERS, fields).ok(200)["id"] == certificate_id
    assert edge.follow() == [HOST]
    assert edge.version() != version
    exported = edge.client.get(f"{HOSTS}/{HOST}").ok()
    assert (exported["certificate"], exported["version"]) == (certs.bundle(issued, INTERMEDIATE), edge.version())
    assert edge.follow() == []
    operator.post(SERVERS, fields).ok(200)
    assert edge.follow() == []


def test_a_chain_that_is_completed_beside_an_activation_is_served(
    service: Service, operator: Client, edge: Edge
) -> None:
    """At each store call of the activation in turn, another caller completes the chain of the same certificate."""
    pass_on = service.store.between
    for number in range(1, 100):
        issued = own(number)
        sent = {"certificate": issued.pem, "privateKey": issued.key_pem}
        certificate_id = operator.post(SERVERS, sent).ok(201)["id"]
        fields = {"certificate": certs.bundle(issued, INTERMEDIATE), "privateKey": issued.key_pem}
        calls = 0

        def complete(name: str, key: Any, call: Any, number: int = number, fields: Any = fields) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                service.store.between = pass_on
                operator.post(SERVERS, fields).ok(200)
                service.store.between = complete
            return call()

        service.store.between = complete
        operator.put(f"{SERVERS}/active", {"id": certificate_id}).ok()
        service.store.between = pass_on
        edge.follow()
        exported = edge.client.get(f"{HOSTS}/{HOST}").ok()
        assert edge.version() == exported["version"], f"call {number}"
        operator.put(f"{SERVERS}/active", {"id": "default"}).ok()
        operator.delete(f"{SERVERS}/{certificate_id}").ok(204)
        if calls < number:
            return
    raise AssertionError("an activation takes too many calls to the store")


def test_a_change_that_affects_no_host_is_not_in_the_feed(service: Service, operator: Client, edge: Edge) -> None:
    """Edges have nothing to do after a CA upload, a change of the settings, or an upload that is not activated."""
    edge.follow()
    head = edge.head
    operator.post("/authentication/cacertificates", {"certificate": certs.ca().pem}).ok(201)
    operator.post(SERVERS, {"certificate": own().pem, "privateKey": own().key_pem}).ok(201)
    operator.put(SETTINGS, {"typeCertificates": True}).ok()
    assert edge.follow() == []
    assert edge.head == head


def test_a_custom_domain_is_served_only_where_a_certificate_covers_it(
    service: Service, operator: Client, edge: Edge
) -> None:
    """The active certificate serves a host it covers, else the platform's default; an uncovered host is not served."""
    list_domains(operator, "iot.acme.org").ok()
    edge.follow()
    assert list(edge.serves) == [HOST], "the default certificate does not cover the custom host"
    assert edge.client.get(f"{HOSTS}/{CUSTOM}").status == 404
    activate(operator, own(1, CUSTOM, dns=["*.messaging.iot.acme.org"]))
    edge.follow()
    assert edge.serves[CUSTOM]["serverName"] == CUSTOM, "the exact host, never the wildcard"
    assert edge.serves[CUSTOM]["certificateId"] != "default"
    assert edge.serves[HOST]["certificateId"] == "default", (
        "the default certificate serves a host that the active certificate does not cover"
    )
    operator.put(f"{SERVERS}/active", {"id": "default"}).ok()
    list_domains(operator).ok()
    edge.follow()
    assert list(edge.serves) == [HOST]


def test_a_default_that_covers_a_custom_host_serves_it(service: Service, operator: Client, edge: Edge) -> None:
    list_domains(operator, "iot.acme.org").ok()
    edge.follow()
    issued = certs.server("*.messaging.example.com", ROOT, dns=["*.messaging.example.com", "*.messaging.iot.acme.org"])
    set_default(
        service.app.context,
        service.app.sealer,
        issued.pem.encode(),
        chain=None,
        private_key=issued.key_pem.encode(),
        passphrase=None,
    )
    edge.follow()
    assert edge.serves[CUSTOM]["certificateId"] == "default"
    assert edge.client.get(f"{HOSTS}/{CUSTOM}").ok()["certificate"] == issued.pem


def test_a_new_default_certificate_is_one_write_and_reaches_every_host_that_uses_it(
    service: Service, operator: Client, edge: Edge
) -> None:
    """The head has the version of the default certificate; an edge with another version gets a full list."""
    activate(operator, own())
    service.other_org()
    edge.follow()
    before, own_version = edge.version(service.host("other1")), edge.version()
    writes = service.store.calls["put"]
    issued = certs.server("*.messaging.example.com", ROOT)
    set_default(
        service.app.context,
        service.app.sealer,
        issued.pem.encode(),
        chain=None,
        private_key=issued.key_pem.encode(),
        passphrase=None,
    )
    assert service.store.calls["put"] == writes + 1
    edge.follow()
    assert edge.version(service.host("other1")) != before
    assert edge.version() == own_version


def test_an_expired_active_certificate_stays_served(service: Service, operator: Client, edge: Edge) -> None:
    """The expiry report names the certificate; the service never replaces the certificate by itself."""
    certificate_id = activate(operator, own())
    service.clock.now = NOON + 2 * YEAR
    edge.follow()
    assert edge.serves[HOST]["certificateId"] == certificate_id
    assert edge.client.get(f"{HOSTS}/{HOST}").ok()["certificateId"] == certificate_id


@pytest.mark.stores("sqlite")  # the order of a list is a promise of each store (tests/conformance)
def test_many_hosts_come_in_pages_and_a_change_meanwhile_is_not_lost(
    service: Service, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next request lists an organization that changed while the pages were read."""
    monkeypatch.setattr(listing, "HOSTS_MAX", 20)
    for number in range(48):
        create_org(service.app.context, f"o{number:05}")
    first = edge.client.get(HOSTS).ok()
    assert (len(first["hosts"]), first["more"], first["first"]) == (20, True, True)
    second = edge.client.get(HOSTS, query={"since": first["head"]}).ok()
    assert (len(second["hosts"]), second["more"], second["full"], second["first"]) == (20, True, True, False)
    set_suspended(service.app.context, "o00003", True)  # an organization of the first page
    third = edge.client.get(HOSTS, query={"since": second["head"]}).ok()
    assert (len(third["hosts"]), third["more"]) == (9, False)
    edge.head = third["head"]
    assert edge.follow() == [service.host("o00003")]


def test_many_changes_come_in_pages(service: Service, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each host is listed once; the hosts of one organization are on one page."""
    edge.follow()
    monkeypatch.setattr(listing, "HOSTS_MAX", 5)
    names = [f"o{number:05}" for number in range(17)]
    for name in names:
        create_org(service.app.context, name)
    edge.pages = 0
    assert edge.follow() == [service.host(name) for name in names]
    assert edge.pages == 4


def test_a_new_default_while_pages_are_read_starts_the_list_again(
    service: Service, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No edge serves hosts with two default certificates at the end."""
    monkeypatch.setattr(listing, "HOSTS_MAX", 5)
    for number in range(7):
        create_org(service.app.context, f"o{number:05}")
    first = edge.client.get(HOSTS).ok()
    issued = certs.server("*.messaging.example.com", ROOT)
    set_default(
        service.app.context,
        service.app.sealer,
        issued.pem.encode(),
        chain=None,
        private_key=issued.key_pem.encode(),
        passphrase=None,
    )
    again = edge.client.get(HOSTS, query={"since": first["head"]}).ok()
    assert (again["first"], len(again["hosts"])) == (True, 5)
    assert {host["version"] for host in again["hosts"]} == {again["defaultVersion"]} != {first["defaultVersion"]}


@pytest.mark.stores("sqlite")  # the calls are the same on each store
def test_one_change_among_many_hosts_costs_an_edge_a_few_reads(service: Service, edge: Edge) -> None:
    """A poll without a change costs two reads: the caller's key with the default certificate, and the feed."""
    for number in range(30):
        create_org(service.app.context, f"o{number:05}")
    edge.follow()
    calls = service.store.calls.copy()
    edge.follow()
    assert service.store.calls - calls == {"get_many": 1, "list": 1}
    set_suspended(service.app.context, "o00003", True)
    calls = service.store.calls.copy()
    edge.follow()
    assert (service.store.calls - calls).total() <= 4


def test_an_edge_too_far_behind_gets_a_full_list(service: Service, edge: Edge) -> None:
    """An edge misses no change and drops removed hosts, also after a trim of the feed or a change of the store."""
    service.other_org("gone01")
    edge.follow()
    delete_org(service.app.context, "gone01")
    for _ in range(3):
        set_suspended(service.app.context, service.org_id, True)
        set_suspended(service.app.context, service.org_id, False)
    feed = service.app.context.host_changes
    feed.trim(feed.end())
    edge.follow()
    assert list(edge.serves) == [HOST]
    number, _, rest = edge.head.partition(".")
    ahead = edge.client.get(HOSTS, query={"since": f"{int(number) + 1000}.{rest}"}).ok()
    assert ahead["full"], "a head of another store"


def test_an_edge_notices_a_store_of_another_history(service: Service, operator: Client, edge: Edge) -> None:
    """A backup was restored, and the feed has another line at the edge's number: the edge gets the complete list."""
    activate(operator, own())
    edge.follow()
    number, line_id, default = edge.head.split(".")
    page = edge.client.get(HOSTS, query={"since": f"{number}.{'0' * 12}.{default}"}).ok()
    assert (page["full"], page["first"], page["head"]) == (True, True, edge.head)
    assert edge.client.get(HOSTS, query={"since": edge.head}).ok()["full"] is False
    assert len(line_id) == 12


def test_a_head_of_the_version_before_goes_on_where_its_line_exists(service: Service, edge: Edge) -> None:
    """A head without an id, also within a list of all hosts."""
    edge.follow()
    number, _, default = edge.head.split(".")
    service.other_org("other1")
    page = edge.client.get(HOSTS, query={"since": f"{number}.{default}"}).ok()
    assert ([host["org"] for host in page["hosts"]], page["full"]) == (["other1"], False)
    rest = edge.client.get(HOSTS, query={"since": f"{number}.{default}.mtxpd0"}).ok()
    assert ([host["org"] for host in rest["hosts"]], rest["full"], rest["first"]) == (["other1"], True, False)
    ahead = edge.client.get(HOSTS, query={"since": f"{int(number) + 2}.{default}"}).ok()
    assert ahead["full"]


@pytest.mark.parametrize("since", ["x", "-1", "1", "1.", "../..", "1.0123456789abcdef.MTXPD0", "9" * 30])
def test_a_since_that_is_no_head_is_refused(edge: Edge, since: str) -> None:
    assert edge.client.get(HOSTS, query={"since": since}).code == "wrong_value"


# ---------------------------------------------------------------------------------------- crashes and concurrency


def test_a_change_whose_publication_failed_is_published_when_it_is_repeated(
    service: Service, operator: Client, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a 503 the certificate is active; the repeated call appends the change to the feed."""
    edge.follow()
    certificate_id = operator.post(SERVERS, {"certificate": own().pem, "privateKey": own().key_pem}).ok(201)["id"]
    with monkeypatch.context() as broken:
        broken.setattr(service.app.context.host_changes, "append", _unavailable)
        assert operator.put(f"{SERVERS}/active", {"id": certificate_id}).status == 503
    assert edge.follow() == []
    operator.put(f"{SERVERS}/active", {"id": certificate_id}).ok()
    assert edge.follow() == [HOST]


@pytest.mark.parametrize("partition", ["org", "activity", "hosts"])
def test_a_publication_beside_a_later_activation_does_not_undo_it(
    service: Service, operator: Client, edge: Edge, partition: str
) -> None:
    """The edges serve the certificate that is active, at whichever write of a first activation a second one runs."""
    ids = []
    for number in range(2):
        fields = {"certificate": own(number).pem, "privateKey": own(number).key_pem}
        ids.append(operator.post(SERVERS, fields).ok(201)["id"])
    edge.follow()
    pass_on = service.store.between

    def activate_another(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        if name == "put" and key is not None and key.partition.split("/")[0] == partition:
            service.store.between = pass_on
            operator.put(f"{SERVERS}/active", {"id": ids[1]}).ok()
        return call()

    service.store.between = activate_another
    operator.put(f"{SERVERS}/active", {"id": ids[0]}).ok()
    edge.follow()
    assert edge.serves[HOST]["certificateId"] == operator.get(f"{SERVERS}/active").ok()["active"]


def _unavailable(_: object) -> int:
    raise StoreUnavailable


def test_a_sweep_publishes_what_a_crash_left_unpublished(
    service: Service, operator: Client, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the organization's document and the feed: a new, a changed and a deleted organization are
    published, once."""
    context = service.app.context
    service.other_org("gone01")
    edge.follow()
    with monkeypatch.context() as crashing:
        for publication in ("publish", "publish_change"):
            crashing.setattr(HostFeed, publication, lambda *_: None)
        create_org(context, "newone")
        delete_org(context, "gone01")
        certificate_id = activate(operator, own())
    assert edge.follow() == []
    assert HostFeed(context).sweep() == 3
    assert sorted(edge.follow()) == sorted([HOST, service.host("gone01"), service.host("newone")])
    assert sorted(edge.serves) == [HOST, service.host("newone")]
    assert edge.serves[HOST]["certificateId"] == certificate_id
    assert HostFeed(context).sweep() == 0


def test_a_sweep_publishes_hosts_that_were_written_and_are_not_in_the_feed(service: Service, edge: Edge) -> None:
    """A crash between the hosts' document and the feed loses no change."""
    edge.follow()
    context = service.app.context
    for attempt in context.repository.changing(org_hosts_ref(service.org_id)):
        with attempt as hosts:
            assert hosts is not None
            attempt.write(structs.replace(hosts, is_published=False))
    assert HostFeed(context).sweep() == 1
    assert edge.follow() == [HOST]


def test_the_hosts_of_a_deleted_org_are_deleted_after_30_days(service: Service, edge: Edge) -> None:
    """An edge that did not ask for longer gets a full list."""
    context = service.app.context
    service.other_org("gone01")
    delete_org(context, "gone01")
    HostFeed(context).sweep()
    assert context.repository.get(org_hosts_ref("gone01")) is not None
    service.clock.now += timedelta(days=31)
    HostFeed(context).sweep()
    assert context.repository.get(org_hosts_ref("gone01")) is None


def test_a_change_back_is_published_although_the_hosts_were_read_before_the_change(
    service: Service, operator: Client, edge: Edge
) -> None:
    """A second call published other hosts after the first call had read the hosts and before it wrote."""
    context = service.app.context
    hosts = HostFeed(context)
    first = activate(operator, own(0))
    repository = context.repository
    org = repository.get(org_ref(service.org_id))
    assert org is not None
    documents = repository.read_batch([hosts.ref(service.org_id), server_ref(service.org_id, first)])
    activate(operator, own(1))
    for attempt in repository.changing(org_ref(service.org_id)):
        with attempt:
            attempt.write(org)
    hosts.publish_change(org, documents)
    edge.follow()
    assert edge.serves[HOST]["certificateId"] == first


def test_an_edge_serves_what_is_active_after_concurrent_changes(service: Service, operator: Client, edge: Edge) -> None:
    """16 threads activate certificates of one organization and create others, while an edge polls."""
    ids = ["default"]
    for number in range(3):
        fields = {"certificate": own(number).pem, "privateKey": own(number).key_pem}
        ids.append(operator.post(SERVERS, fields).ok(201)["id"])
    edge.follow()
    with ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(operator.put, f"{SERVERS}/active", {"id": certificate_id}) for certificate_id in ids * 10]
        jobs += [pool.submit(create_org, service.app.context, f"n{number:05}") for number in range(20)]  # type: ignore[arg-type]
        while not all(job.done() for job in jobs):
            edge.follow()
    assert [job.exception() for job in jobs] == [None] * 60
    edge.follow()
    active = operator.get(f"{SERVERS}/active").ok()["active"]
    assert edge.serves[HOST]["certificateId"] == active
    assert len(edge.serves) == 21
    assert HostFeed(service.app.context).sweep() == 0, "every change was published"


def test_imported_orgs_are_in_the_feed(service: Service, edge: Edge, tmp_path: Any) -> None:
    """Edges serve the organizations of an import."""
    lines = list(export_lines(service.app.context, service.app.sealer, service.org_id))
    other = make_service(tmp_path / "other")
    delete_org(other.app.context, other.org_id)
    follower = Edge(other.platform("edge"))
    follower.follow()
    assert follower.serves == {}
    import_lines(other.app.context, service.app.sealer, lambda: lines)
    assert follower.follow() == [HOST]
    other.app.close()


# ------------------------------------------------------------------------------------------------------ authorization


def test_an_orgs_edge_sees_its_own_hosts_only(service: Service) -> None:
    service.other_org()
    edge = Edge(service.client("edge"))
    edge.follow()
    assert list(edge.serves) == [HOST]
    assert edge.client.get(f"{HOSTS}/{service.host('other1')}").status == 404
    set_suspended(service.app.context, "other1", True)
    assert edge.follow() == []


def test_a_platform_edge_may_be_for_some_orgs(service: Service) -> None:
    for org_id in ("other1", "other2", "other3"):
        service.other_org(org_id)
    edge = Edge(service.platform("edge", orgs=["other1", "other3"]))
    edge.follow()
    assert sorted(edge.serves) == [service.host("other1"), service.host("other3")]
    assert edge.client.get(f"{HOSTS}/{service.host('other2')}").status == 404
    set_suspended(service.app.context, "other2", True)
    set_suspended(service.app.context, "other3", True)
    assert edge.follow() == [service.host("other3")]
    assert edge.client.get(f"{HOSTS}/{HOST}").status == 404


def test_the_edge_of_a_suspended_org_gets_the_removal_of_its_host(service: Service) -> None:
    edge = Edge(service.client("edge"))
    edge.follow()
    set_suspended(service.app.context, service.org_id, True)
    assert edge.follow() == [HOST]
    assert edge.serves == {}
    assert edge.client.get(f"{HOSTS}/{HOST}").status == 404


@pytest.mark.parametrize("role", ["viewer", "operator", "broker"])
def test_every_other_role_is_refused(service: Service, role: str) -> None:
    caller = service.client(role)
    for answer in (caller.get(HOSTS), caller.get(f"{HOSTS}/{HOST}"), report(caller, {})):
        assert (answer.status, answer.code) == (403, "forbidden")
    assert service.anonymous.get(f"{HOSTS}/{HOST}").status == 401


LOOPBACK = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
ELSEWHERE = ["192.0.2.7", "10.0.0.1", "", "localhost"]


def allow_plain(edge: Edge) -> Client:
    """Return the edge's client, with TRUST_EDGE_PLAIN=loopback and without TLS."""
    settings = structs.replace(edge.client.app.settings, plain_edge=True)
    return replace(edge.client, app=structs.replace(edge.client.app, settings=settings), scheme="http")


@pytest.mark.parametrize(
    ("scheme", "peer", "private"),
    [
        ("https", "192.0.2.7", True),
        *(("http", peer, True) for peer in LOOPBACK),
        *(("http", p, False) for p in ELSEWHERE),
    ],
)
def test_the_feed_is_for_tls_or_this_machine(edge: Edge, scheme: str, peer: str, private: bool) -> None:
    """Plain HTTP from another machine is refused, whatever the client's headers say."""
    client = replace(edge.client, scheme=scheme, peer=peer)
    forged = {"x-forwarded-proto": "https", "x-forwarded-for": "127.0.0.1", "forwarded": "proto=https;for=127.0.0.1"}
    for path in (HOSTS, "//edge/v1/withdrawals"):
        answer = client.get(path, headers=forged)
        assert (answer.status == 200) is private
        assert private or (answer.status, answer.code) == (403, "insecure_transport")


@pytest.mark.parametrize("peer", [*LOOPBACK, *ELSEWHERE])
def test_keys_are_exported_over_plain_http_only_if_the_operator_allows_this_machine(edge: Edge, peer: str) -> None:
    """Behind a plain proxy on this machine every client has a loopback address, and keys would go on unprotected."""
    refused = replace(edge.client, scheme="http", peer=peer).get(f"{HOSTS}/{HOST}")
    assert (refused.status, refused.code) == (403, "insecure_transport")
    assert "TRUST_EDGE_PLAIN=loopback" in refused.text
    allowed = replace(allow_plain(edge), peer=peer).get(f"{HOSTS}/{HOST}")
    assert (allowed.status == 200) is (peer in LOOPBACK)


@pytest.mark.parametrize(
    "header",
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded", "forwarded", "via", "x-real-ip"],
)
def test_keys_never_pass_a_proxy_without_tls(edge: Edge, header: str) -> None:
    """A forwarding header shows the proxy, whatever its value. Over TLS such a header means nothing."""
    client = replace(allow_plain(edge), peer="127.0.0.1")
    secrets = {"resource_names": [f"server/{HOST}"], "node": {"id": "1"}}
    for value in ("127.0.0.1", "https", ""):
        answer = client.get(f"{HOSTS}/{HOST}", headers={header: value})
        assert (answer.status, answer.code) == (403, "insecure_transport")
        answer = client.post("//v3/discovery:secrets", secrets, headers={header: value})
        assert (answer.status, answer.code) == (403, "insecure_transport")
    assert client.get(f"{HOSTS}/{HOST}").status == 200
    assert edge.client.get(f"{HOSTS}/{HOST}", headers={header: "192.0.2.9"}).status == 200


# ------------------------------------------------------------------------------------------------- one host's key


def test_a_host_is_exported_with_chain_and_key(service: Service, operator: Client, edge: Edge) -> None:
    """Both are PEM, the leaf first, the key as PKCS#8; no proxy may store the answer."""
    issued = own()
    certificate_id = activate(operator, issued, INTERMEDIATE)
    edge.follow()
    answer = edge.client.get(f"{HOSTS}/{HOST}")
    exported = answer.ok()
    assert exported["certificate"] == issued.pem + INTERMEDIATE.pem
    assert exported["privateKey"].startswith("-----BEGIN PRIVATE KEY-----\n")
    key = load_pem_private_key(exported["privateKey"].encode(), None)
    assert key.public_key() == issued.key.public_key()
    assert answer.reply.headers["Cache-Control"] == "no-store"
    rest = {name: exported[name] for name in exported.keys() - {"certificate", "privateKey"}}
    assert rest == {
        "serverName": HOST,
        "org": "mtxpd0",
        "version": edge.version(),
        "certificateId": certificate_id,
        "clientCertificate": "requested",
    }


def test_a_name_compares_without_case_and_without_root_dot(edge: Edge) -> None:
    assert edge.client.get(f"{HOSTS}/{HOST.upper()}.").ok()["serverName"] == HOST


@pytest.mark.parametrize(
    "name",
    [
        "*.messaging.example.com",
        "nobody.messaging.example.com",
        "mtxpd0.messaging.other.org",
        "mtxpd0.example.com",
        "default",
        "..%2fhosts",
        "mtxpd0.messaging.example.com%00",
    ],
)
def test_an_unknown_host_is_not_found(edge: Edge, name: str) -> None:
    assert edge.client.get(f"{HOSTS}/{name}").status == 404


def test_each_export_is_logged_and_in_the_activity_list_once_an_hour(
    service: Service, operator: Client, viewer: Client, edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """The log line has the edge, the host and the version, and never the key."""
    activate(operator, own())
    with caplog.at_level("INFO"):
        for _ in range(3):
            exported = edge.client.get(f"{HOSTS}/{HOST}").ok()
    lines = [record for record in caplog.records if record.message == "a private key was exported"]
    assert [(record.host, record.edge) for record in lines] == [(HOST, edge.client.key)] * 3  # type: ignore[attr-defined]
    assert "PRIVATE" not in caplog.text
    assert exported["privateKey"].splitlines()[1] not in caplog.text

    def entries() -> list[Any]:
        results = viewer.get("/activity?kind=edge").ok()["results"]
        return [(entry["who"], entry["what"], entry["detail"]["host"]) for entry in results]

    assert entries() == [(label_key(edge.client.key), "keyHandedOut", HOST)]
    service.clock.now += timedelta(hours=1)
    edge.client.get(f"{HOSTS}/{HOST}").ok()
    assert len(entries()) == 2
    other = service.platform("edge")
    other.get(f"{HOSTS}/{HOST}").ok()
    assert len(entries()) == 3, "another edge is another entry"


# ------------------------------------------------------------------------------------------------------ reports


def report(client: Client, served: dict[str, str], edge: str = "edge-1") -> Answer:
    hosts = [{"serverName": name, "version": version} for name, version in served.items()]
    return client.send(
        "POST",
        "//edge/v1/served",
        body=json.dumps({"edge": edge, "hosts": hosts}).encode(),
    )


def test_served_since_is_the_time_of_the_first_report(
    service: Service, operator: Client, viewer: Client, edge: Edge
) -> None:
    """The API shows `servedSince` while the certificate is active, and the activity list has an entry; a second report
    changes nothing."""
    certificate_id = activate(operator, own())
    edge.follow()
    assert viewer.get(f"{SERVERS}/{certificate_id}").ok()["servedSince"] is None
    service.clock.now += timedelta(seconds=2)
    assert report(edge.client, {HOST: edge.version()}).ok() == {"taken": 1, "stale": []}
    service.clock.now += timedelta(hours=1)
    report(edge.client, {HOST: edge.version()}).ok()
    assert viewer.get(f"{SERVERS}/{certificate_id}").ok()["servedSince"] == "2026-06-01T12:00:02Z"
    [entry] = [entry for entry in viewer.get("/activity?kind=edge").ok()["results"] if entry["what"] == "served"]
    assert (entry["who"], entry["detail"]) == ("edge:edge-1", {"certificate": certificate_id, "host": HOST})


def test_served_since_starts_again_with_each_activation(
    service: Service, operator: Client, viewer: Client, edge: Edge
) -> None:
    certificate_id = activate(operator, own())
    edge.follow()
    report(edge.client, {HOST: edge.version()}).ok()
    operator.put(f"{SERVERS}/active", {"id": "default"}).ok()
    assert viewer.get(f"{SERVERS}/{certificate_id}").ok()["servedSince"] is None
    service.clock.now += timedelta(minutes=1)
    operator.put(f"{SERVERS}/active", {"id": certificate_id}).ok()
    assert viewer.get(f"{SERVERS}/{certificate_id}").ok()["servedSince"] is None, "no edge has reported yet"
    edge.follow()
    report(edge.client, {HOST: edge.version()}).ok()
    assert viewer.get(f"{SERVERS}/{certificate_id}").ok()["servedSince"] == "2026-06-01T12:01:00Z"


def test_a_report_sets_served_since_of_the_default_certificate(service: Service, viewer: Client, edge: Edge) -> None:
    edge.follow()
    report(edge.client, {HOST: edge.version()}).ok()
    assert viewer.get(f"{SERVERS}/default").ok()["servedSince"] == "2026-06-01T12:00:00Z"


def test_a_report_of_another_version_or_host_is_stale(service: Service, edge: Edge) -> None:
    """Another version, an unknown host, a malformed name and another organization's host are stale."""
    edge.follow()
    stale = {HOST: "0" * 16, "nobody.messaging.example.com": edge.version(), "x": "y"}
    assert report(edge.client, stale).ok() == {"taken": 0, "stale": list(stale)}
    service.other_org()
    outsider = service.client("edge", "other1")
    assert report(outsider, {HOST: edge.version()}).ok()["stale"] == [HOST]


@pytest.mark.parametrize("edge_name", ["", "a b", "<script>", "x" * 65])
def test_a_malformed_edge_name_is_refused(edge: Edge, edge_name: str) -> None:
    assert report(edge.client, {}, edge_name).code == "wrong_value"


@pytest.fixture(autouse=True)
def _check_published(service: Service) -> Iterator[None]:
    """After each test the published hosts agree with the organization's document."""
    yield
    context = service.app.context
    if context.repository.get(org_ref(service.org_id)) is not None:
        before = context.host_changes.end()
        HostFeed(context).publish(service.org_id)
        assert context.host_changes.end() == before
    assert HostFeed(context).sweep() == 0


def test_an_exported_certificate_covers_its_host(service: Service, operator: Client, edge: Edge) -> None:
    """Each host is served by a certificate that names the host."""
    list_domains(operator, "iot.acme.org").ok()
    activate(operator, own(1, CUSTOM, dns=[CUSTOM, HOST]))
    edge.follow()
    for host in edge.serves:
        pem = edge.client.get(f"{HOSTS}/{host}").ok()["certificate"]
        names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        assert host in names.value.get_values_for_type(x509.DNSName)

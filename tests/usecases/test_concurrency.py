"""Concurrent calls: exactly one active certificate, one record for each certificate, no dangling pointer, no lost
update."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import pytest

from shared.records import Org
from shared.repository import org_ref, server_ref
from tests import certs
from tests.harness import Answer, Client, Service

SERVERS = "/authentication/servercertificates"
CAS = "/authentication/cacertificates"


def at_once(calls: Sequence[Callable[[], Answer]], workers: int = 16) -> list[Answer]:
    with ThreadPoolExecutor(workers) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def upload(service: Service, operator: Client, number: int) -> str:
    """Upload a server certificate with a key of its own. Return its id."""
    issued = certs.server(service.host(), private=certs.key("P-256", 500 + number))
    fields = {"certificate": issued.pem, "privateKey": issued.key_pem}
    certificate_id: str = operator.post(SERVERS, fields).ok(201)["id"]
    return certificate_id


def org_of(service: Service) -> Org:
    org = service.app.context.repository.get(org_ref(service.org_id))
    assert org is not None
    return org


def test_a_hundred_activations_end_with_one_active_certificate_and_its_predecessor(
    service: Service, operator: Client
) -> None:
    """`previous` is the certificate that was active just before: the activations form a chain without a gap."""
    ids = [upload(service, operator, number) for number in range(4)]
    answers = at_once(
        [partial(operator.put, f"{SERVERS}/active", {"id": certificate_id}) for certificate_id in ids * 25]
    )
    assert {answer.status for answer in answers} == {200}

    entries = operator.get("/activity?kind=change&limit=200").ok()["results"]
    activations = [entry["detail"] for entry in entries if "previous" in entry["detail"]]
    for detail in activations:
        assert detail["previous"] != detail["certificate"]
    left = [detail["previous"] for detail in activations]
    entered = [detail["certificate"] for detail in activations]
    final = operator.get(f"{SERVERS}/active").ok()
    assert final["active"] in ids
    # Each activation leaves one certificate and enters another, so both are equal but for the two ends of the chain.
    for certificate_id in {*ids, "default"}:
        is_start, is_end = certificate_id == "default", certificate_id == final["active"]
        assert left.count(certificate_id) + is_end == entered.count(certificate_id) + is_start
    assert {"certificate": final["active"], "previous": final["previous"]} in activations
    assert [server["active"] for server in operator.get(SERVERS).ok()["results"]].count(True) == 1


def test_the_same_server_certificate_a_hundred_times_at_once_is_one_record(service: Service, operator: Client) -> None:
    issued = certs.server(service.host())
    fields = {"certificate": issued.pem, "privateKey": issued.key_pem}
    answers = at_once([lambda: operator.post(SERVERS, fields)] * 100)
    assert sorted(answer.status for answer in answers) == [200] * 99 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1
    stored = service.store.list(f"server/{service.org_id}", limit=200)
    assert [document.key.id for document in stored] == [answers[0].json["id"]]


def test_the_same_ca_a_hundred_times_at_once_is_one_record(service: Service, operator: Client) -> None:
    root = certs.ca()
    answers = at_once([lambda: operator.post(CAS, {"certificate": root.pem})] * 100)
    assert sorted(answer.status for answer in answers) == [200] * 99 + [201]
    assert len(operator.get(CAS).ok()["results"]) == 1
    assert sum(len(answer.json["warnings"]) for answer in answers) == 1, "the SNI warning comes once"


def test_concurrent_uploads_of_cas_of_one_name_are_all_registered_up_to_ten(service: Service, operator: Client) -> None:
    """The CAs share one document: no update is lost, and the limit holds."""
    roots = [certs.ca("Same", private=certs.key("P-256", 700 + number)) for number in range(14)]
    answers = at_once([partial(operator.post, CAS, {"certificate": root.pem}) for root in roots])
    assert sorted(answer.status for answer in answers) == [201] * 10 + [409] * 4
    assert len(operator.get(CAS).ok()["results"]) == 10


def test_the_limit_of_server_certificates_holds_under_concurrency(service: Service, operator: Client) -> None:
    for number in range(46):
        upload(service, operator, number)
    issued = [certs.server(service.host(), private=certs.key("P-256", 600 + number)) for number in range(10)]
    calls = [
        partial(operator.post, SERVERS, {"certificate": server.pem, "privateKey": server.key_pem}) for server in issued
    ]
    assert sorted(answer.status for answer in at_once(calls)) == [201] * 4 + [409] * 6
    assert len(org_of(service).servers) == 50
    assert len(service.store.list(f"server/{service.org_id}", limit=200)) == 50, "no body is left behind"


@pytest.mark.parametrize("attempt", range(5))
def test_activation_racing_deletion_leaves_no_dangling_pointer(
    service: Service, operator: Client, attempt: int
) -> None:
    """Whichever comes first, the active certificate exists, with its key."""
    certificate_id = upload(service, operator, attempt)
    answers = at_once(
        [
            partial(operator.put, f"{SERVERS}/active", {"id": certificate_id}),
            partial(operator.delete, f"{SERVERS}/{certificate_id}"),
        ]
    )
    org = org_of(service)
    if answers[1].status == 204:
        assert answers[0].status in (200, 404)
        assert org.activation.active == "default" or org.activation.active in org.servers
        assert certificate_id not in (org.activation.active, org.activation.previous)
    else:
        assert answers[1].code == "active_certificate"
        assert org.activation.active == certificate_id
    if org.activation.active != "default":
        assert service.app.context.repository.get(server_ref(org.org_id, org.activation.active)) is not None


def test_two_changes_on_one_version_have_one_winner(service: Service, operator: Client) -> None:
    """With If-Match the others are refused, and nothing of the first change is lost."""
    ca = operator.post(CAS, {"certificate": certs.ca().pem})
    path = f"{CAS}/{ca.json['id']}"
    calls = [partial(operator.put, path, {"comments": f"change {n}"}, version=ca.etag) for n in range(8)]
    answers = at_once(calls)
    assert sorted(answer.status for answer in answers) == [200] + [412] * 7
    winner = next(answer for answer in answers if answer.status == 200)
    assert operator.get(path).json["comments"] == winner.json["comments"]


def test_uploads_and_deletions_of_the_last_ca_agree_on_whether_sni_is_needed(
    service: Service, operator: Client
) -> None:
    """An organization with a CA refuses a connection without server name, and an organization without a CA does not."""
    roots = [certs.ca(f"Root {number}") for number in range(6)]
    for first, second in pairwise(roots):
        before = operator.post(CAS, {"certificate": first.pem}).json["id"]
        at_once(
            [
                partial(operator.delete, f"{CAS}/{before}"),
                partial(operator.post, CAS, {"certificate": second.pem}),
            ]
        )
        listed = operator.get(CAS).ok()["results"]
        assert org_of(service).has_ca == bool(listed)

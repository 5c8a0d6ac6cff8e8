"""Concurrent callers: exactly one active certificate, one record for each thing, and no lost change."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from shared.ports import Key
from shared.records import Org
from shared.refs import org_ref, server_ref
from tests.support import certs
from tests.support.harness import Answer, Client, Service

SERVERS = "/authentication/servercertificates"
CAS = "/authentication/cacertificates"


def run_concurrently(calls: Sequence[Callable[[], Answer]], workers: int = 16) -> list[Answer]:
    with ThreadPoolExecutor(workers) as pool:
        return [job.result() for job in [pool.submit(call) for call in calls]]


def upload(service: Service, operator: Client, number: int) -> str:
    """Upload a server certificate with a key of its own. Return its id."""
    issued = certs.server(service.host(), private=certs.key("P-256", 500 + number))
    fields = {"certificate": issued.pem, "privateKey": issued.key_pem}
    certificate_id: str = operator.post(SERVERS, fields).ok(201)["id"]
    return certificate_id


def get_org(service: Service) -> Org:
    org = service.app.context.repository.get(org_ref(service.org_id))
    assert org is not None
    return org


def test_a_hundred_activations_end_with_one_active_and_its_previous(service: Service, operator: Client) -> None:
    """`previous` is the certificate that was active before: the activity list has every activation, without a gap."""
    ids = [upload(service, operator, number) for number in range(4)]
    answers = run_concurrently(
        [partial(operator.put, f"{SERVERS}/active", {"id": certificate_id}) for certificate_id in ids * 25]
    )
    assert {answer.status for answer in answers} == {200}

    entries = operator.get("/activity?kind=change&limit=200").ok()["results"]
    activations = [entry["detail"] for entry in entries if "previous" in entry["detail"]]
    assert all(activation["previous"] != activation["certificate"] for activation in activations)
    final = operator.get(f"{SERVERS}/active").ok()
    assert final["active"] in ids
    # A certificate becomes active as often as it is replaced. Only the first and the last active certificate differ.
    activated = [activation["certificate"] for activation in activations]
    replaced = [activation["previous"] for activation in activations]
    for certificate_id in {*ids, "default"}:
        is_first, is_last = certificate_id == "default", certificate_id == final["active"]
        assert replaced.count(certificate_id) + is_last == activated.count(certificate_id) + is_first
    assert {"certificate": final["active"], "previous": final["previous"]} in activations
    assert [server["active"] for server in operator.get(SERVERS).ok()["results"]].count(True) == 1


def test_a_hundred_uploads_of_one_server_certificate_make_one_record(service: Service, operator: Client) -> None:
    issued = certs.server(service.host())
    fields = {"certificate": issued.pem, "privateKey": issued.key_pem}
    answers = run_concurrently([lambda: operator.post(SERVERS, fields)] * 100)
    assert sorted(answer.status for answer in answers) == [200] * 99 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1
    stored = service.store.list(f"server/{service.org_id}", limit=200)
    assert [document.key.id for document in stored] == [answers[0].json["id"]]


def test_a_hundred_uploads_of_one_ca_make_one_record(service: Service, operator: Client) -> None:
    root = certs.ca()
    answers = run_concurrently([lambda: operator.post(CAS, {"certificate": root.pem})] * 100)
    assert sorted(answer.status for answer in answers) == [200] * 99 + [201]
    assert len(operator.get(CAS).ok()["results"]) == 1
    assert sum(len(answer.json["warnings"]) for answer in answers) == 1, "one answer has the SNI warning"


def test_concurrent_uploads_of_cas_with_one_name_are_at_most_ten(service: Service, operator: Client) -> None:
    """CAs of one name are in one document: no upload is lost, and the limit applies."""
    roots = [certs.ca("Same", private=certs.key("P-256", 700 + number)) for number in range(14)]
    answers = run_concurrently([partial(operator.post, CAS, {"certificate": root.pem}) for root in roots])
    assert sorted(answer.status for answer in answers) == [201] * 10 + [409] * 4
    assert len(operator.get(CAS).ok()["results"]) == 10


def test_the_limit_of_server_certificates_applies_to_concurrent_uploads(service: Service, operator: Client) -> None:
    for number in range(46):
        upload(service, operator, number)
    issued = [certs.server(service.host(), private=certs.key("P-256", 600 + number)) for number in range(10)]
    calls = [
        partial(operator.post, SERVERS, {"certificate": server.pem, "privateKey": server.key_pem}) for server in issued
    ]
    assert sorted(answer.status for answer in run_concurrently(calls)) == [201] * 4 + [409] * 6
    assert len(get_org(service).servers) == 50
    assert len(service.store.list(f"server/{service.org_id}", limit=200)) == 50, "no body without a line in the index"


@pytest.mark.parametrize("attempt", range(5))
def test_an_activation_beside_a_deletion_never_activates_a_deleted_certificate(
    service: Service, operator: Client, attempt: int
) -> None:
    """The active certificate exists with its key, whichever call is first."""
    certificate_id = upload(service, operator, attempt)
    answers = run_concurrently(
        [
            partial(operator.put, f"{SERVERS}/active", {"id": certificate_id}),
            partial(operator.delete, f"{SERVERS}/{certificate_id}"),
        ]
    )
    org = get_org(service)
    if answers[1].status == 204:
        assert answers[0].status in (200, 404)
        assert org.activation.active == "default" or org.activation.active in org.servers
        assert certificate_id not in (org.activation.active, org.activation.previous)
    else:
        assert answers[1].code == "active_certificate"
        assert org.activation.active == certificate_id
    if org.activation.active != "default":
        assert service.app.context.repository.get(server_ref(org.org_id, org.activation.active)) is not None


def test_concurrent_changes_of_one_version_have_one_winner(service: Service, operator: Client) -> None:
    """With If-Match, one change is stored and every other change is refused with 412."""
    ca = operator.post(CAS, {"certificate": certs.ca().pem})
    path = f"{CAS}/{ca.json['id']}"
    calls = [partial(operator.put, path, {"comments": f"change {n}"}, version=ca.etag) for n in range(8)]
    answers = run_concurrently(calls)
    assert sorted(answer.status for answer in answers) == [200] + [412] * 7
    winner = next(answer for answer in answers if answer.status == 200)
    assert operator.get(path).json["comments"] == winner.json["comments"]


def test_uploads_and_deletions_of_the_last_ca_agree_on_whether_sni_is_needed(
    service: Service, operator: Client
) -> None:
    """`has_ca` of the organization agrees with its list of CAs."""
    roots = [certs.ca(f"Root {number}") for number in range(6)]
    for first, second in pairwise(roots):
        ca_id = operator.post(CAS, {"certificate": first.pem}).json["id"]
        run_concurrently(
            [
                partial(operator.delete, f"{CAS}/{ca_id}"),
                partial(operator.post, CAS, {"certificate": second.pem}),
            ]
        )
        listed = operator.get(CAS).ok()["results"]
        assert get_org(service).has_ca == bool(listed)


def test_an_upload_during_the_deletion_of_the_last_ca_keeps_sni_needed(service: Service, operator: Client) -> None:
    """The upload finds the flag `has_ca` set and leaves it. The deletion clears the flag, then checks again."""
    ca_id = operator.post(CAS, {"certificate": certs.ca("First").pem}).ok(201)["id"]
    pass_on = service.store.between

    def upload_another(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        if name == "put" and key == org_ref(service.org_id).key:
            service.store.between = pass_on
            operator.post(CAS, {"certificate": certs.ca("Second").pem}).ok(201)
        return call()

    service.store.between = upload_another
    operator.delete(f"{CAS}/{ca_id}").ok(204)
    assert service.store.between == pass_on, "the upload was made before the flag was cleared"
    assert len(operator.get(CAS).ok()["results"]) == 1
    assert get_org(service).has_ca


@pytest.mark.parametrize("partition", ["ca", "deny"])
def test_a_ca_that_is_uploaded_and_denied_concurrently_is_denied(
    service: Service, operator: Client, broker: Client, partition: str
) -> None:
    """The denial is made just before the CA is stored, or the CA is stored just before the denial is made."""
    root = certs.ca("Root")
    upload_root = partial(operator.post, CAS, {"certificate": root.pem})
    deny_root = partial(operator.post, "/authorization/denylist", {"kind": "fingerprint", "value": root.fingerprint})
    outer, inner = (upload_root, deny_root) if partition == "ca" else (deny_root, upload_root)
    pass_on = service.store.between

    def run_inner_first(name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        if name == "put" and key is not None and key.partition == f"{partition}/{service.org_id}":
            service.store.between = pass_on
            inner().ok(201)
        return call()

    service.store.between = run_inner_first
    outer().ok(201)
    assert service.store.between == pass_on, "the inner call was made"
    device = {"serverName": service.host(), "clientId": "d:mtxpd0:thermo:42"}
    question = {**device, "certificate": certs.leaf("d:thermo:42", root).pem}  # devices do not send the CA
    verdict = broker.post("/authorization/verifyclient", question).ok()
    assert (verdict["decision"], verdict["code"]) == ("deny", "certificate_revoked")

"""connectionPolicy over HTTP: the policy and its dry run, the settings, the deny list."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from shared.records import DenyCount
from shared.refs import deny_count_ref
from shared.usecases import denials
from shared.usecases.jobs.maintenance import sweep_org
from shared.usecases.orgs.organizations import get_org
from shared.validation.policy import RULES_MAX
from tests.support import certs
from tests.support.certs import DAY
from tests.support.harness import Answer, Client, Service, make_service

POLICY = "/authorization/connectionpolicy"
SETTINGS = "/authorization/settings"
DENY = "/authorization/denylist"
CAS = "/authentication/cacertificates"
HOST = "mtxpd0.messaging.example.com"
ROOT = certs.ca("Root")

OPTIONAL = "TLS Optional"
TOKEN = "TLS with Token Authentication"
CERTIFICATE = "TLS with Client Certificate Authentication"
BOTH = "TLS with Token and Client Certificate Authentication"
EITHER = "TLS with Client Certificate or Token"


def policy(default: str = CERTIFICATE, **rules: str) -> dict[str, Any]:
    return {"default": default, "rules": [{"deviceType": name, "level": level} for name, level in rules.items()]}


# ------------------------------------------------------------------------------------------------------- policy


def test_a_new_org_requires_certificates(viewer: Client) -> None:
    """The safe default: no device is admitted before a CA is registered."""
    result = viewer.get(POLICY).ok()
    assert (result["default"], result["rules"], result["updatedBy"]) == (CERTIFICATE, [], "admin")


def test_a_policy_is_replaced_as_a_whole(service: Service, operator: Client, viewer: Client) -> None:
    """The answer has the new version; the same policy again makes no new version; every reader gets the policy."""
    service.clock.now += timedelta(hours=1)
    answer = operator.put(POLICY, policy(EITHER, thermo=BOTH, pump=OPTIONAL), version=viewer.get(POLICY).etag)
    result = answer.ok()
    assert result == {
        "default": EITHER,
        "rules": [{"deviceType": "thermo", "level": BOTH}, {"deviceType": "pump", "level": OPTIONAL}],
        "unnamedCertificates": "deny",
        "updatedAt": "2026-06-01T13:00:00Z",
        "updatedBy": operator.key,
        "version": answer.etag.strip('"'),
    }
    assert viewer.get(POLICY).ok() == result
    assert operator.put(POLICY, policy(EITHER, thermo=BOTH, pump=OPTIONAL), version=answer.etag).etag == answer.etag
    assert operator.put(POLICY, {"default": TOKEN}, version=answer.etag).ok()["rules"] == []


def test_invalid_rules_are_refused(operator: Client) -> None:
    """422 with the rule: no device type, a type named twice, more than 500 rules. The policy is unchanged."""
    for rules, field in (
        ([("", TOKEN)], "rules[0].deviceType"),
        ([("a", TOKEN), ("b/c", TOKEN)], "rules[1].deviceType"),
        ([("a" * 37, TOKEN)], "rules[0].deviceType"),
        ([("thermo\n", TOKEN)], "rules[0].deviceType"),
        ([("thermo", TOKEN), ("pump", TOKEN), ("thermo", BOTH)], "rules[2].deviceType"),
        ([(f"t{n}", TOKEN) for n in range(RULES_MAX + 1)], "rules"),
    ):
        body = {"default": TOKEN, "rules": [{"deviceType": name, "level": level} for name, level in rules]}
        for refused in (operator.put(POLICY, body), operator.post(f"{POLICY}/dryrun", body)):
            assert (refused.status, refused.code) == (422, "policy_invalid")
            assert refused.json["violations"][0]["field"] == field
    assert operator.get(POLICY).ok()["default"] == CERTIFICATE
    most = {"default": TOKEN, "rules": [{"deviceType": f"t{n}", "level": BOTH} for n in range(RULES_MAX)]}
    assert len(operator.put(POLICY, most).ok()["rules"]) == RULES_MAX


def test_an_unknown_level_is_refused(operator: Client) -> None:
    """400 with the name of the field: no level, another spelling, a rule without a level."""
    for body, field in (
        ({}, "default"),
        ({"default": "tls optional"}, "default"),
        ({"default": TOKEN, "rules": [{"deviceType": "a", "level": "none"}]}, "rules[0].level"),
        ({"default": TOKEN, "rules": [{"deviceType": "a"}]}, "rules[0].level"),
        ({"default": TOKEN, "rules": {}}, "rules"),
        ({"default": TOKEN, "rules": [{"deviceType": "a", "level": TOKEN, "x": 1}]}, "rules[0].x"),
    ):
        refused = operator.put(POLICY, body)
        assert refused.status == 400
        assert refused.json["violations"][0]["field"] == field


@pytest.mark.parametrize("path", [POLICY, SETTINGS])
def test_a_change_needs_the_version_it_is_based_on(service: Service, operator: Client, path: str) -> None:
    """428 without a version; 412 with an old version, with the caller and the time of the change; `*` overrides.

    Policy and settings have versions of their own.
    """
    bodies = {
        POLICY: (policy(TOKEN), policy(BOTH)),
        SETTINGS: ({"typeCertificates": True}, {"typeCertificates": False}),
    }
    theirs, mine = bodies[path]
    versions = {address: operator.get(address).etag for address in bodies}
    assert operator.put(path, mine, version=None).code == "precondition_required"
    service.clock.now += timedelta(hours=1)
    other = service.client("operator")
    other.put(path, theirs, version=versions[path]).ok()
    stale = operator.put(path, mine, version=versions[path])
    assert (stale.status, stale.code) == (412, "stale")
    assert stale.json["detail"].startswith(f"{other.key} changed this record at 1 Jun 2026, 13:00 UTC.")
    [untouched] = [address for address in bodies if address != path]
    operator.put(untouched, bodies[untouched][0], version=versions[untouched]).ok()
    operator.put(path, mine, version="*").ok()


# ------------------------------------------------------------------------------------------------------ dry run


def dry_run(client: Client, body: dict[str, Any]) -> Any:
    return client.post(f"{POLICY}/dryrun", body).ok()


def test_a_dry_run_without_recent_connections(service: Service, viewer: Client) -> None:
    """It lists the types that change; the sample is empty; nothing is saved."""
    writes = service.store.calls["put"]
    assert dry_run(viewer, policy(TOKEN, thermo=BOTH, pump=CERTIFICATE)) == {
        "changed": [{"deviceType": "thermo", "from": CERTIFICATE, "to": BOTH}],
        "sample": {"identities": 0, "since": None},
        "refused": 0,
        "refusedTypes": [],
        "judged": {"certificates": 0, "since": None, "refused": 0, "codes": {}, "admitted": 0},
    }
    assert service.store.calls["put"] <= writes + 1  # the viewer's key
    assert viewer.get(POLICY).ok()["default"] == CERTIFICATE


def test_a_dry_run_counts_the_identities_that_would_be_refused(
    service: Service, operator: Client, viewer: Client, broker: Client
) -> None:
    """Among recent identities, by what each of them presented last."""
    operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
    operator.put(POLICY, policy(EITHER)).ok()

    def connect(name: str, certified: bool) -> str:
        certificate = {"certificate": certs.leaf(f"d:{name}", ROOT).pem} if certified else {}
        result: str = broker.post(
            "/verifyClient", {"serverName": HOST, "clientId": f"d:mtxpd0:{name}", **certificate}
        ).ok()["decision"]
        return result

    assert connect("thermo:1", certified=True) == "allow"
    service.clock.now += timedelta(days=1)
    assert [connect(f"pump:{n}", certified=False) for n in range(2)] == ["continue"] * 2
    assert connect("valve:1", certified=False) == "continue"
    service.clock.now += timedelta(hours=1)
    connect("valve:1", certified=True)
    service.flush()
    result = dry_run(viewer, policy(CERTIFICATE, gone=TOKEN))
    assert result == {
        "changed": [
            {"deviceType": "gone", "from": EITHER, "to": TOKEN},
            {"deviceType": "pump", "from": EITHER, "to": CERTIFICATE},
            {"deviceType": "thermo", "from": EITHER, "to": CERTIFICATE},
            {"deviceType": "valve", "from": EITHER, "to": CERTIFICATE},
        ],
        "sample": {"identities": 4, "since": "2026-06-01T12:00:00Z"},
        "refused": 2,
        "refusedTypes": ["pump"],
        "judged": {
            "certificates": 2,
            "since": "2026-06-01T12:00:00Z",
            "refused": 0,
            "codes": {},
            "admitted": 0,
        },
    }
    assert dry_run(viewer, policy(CERTIFICATE, pump=TOKEN))["refused"] == 0
    operator.put(POLICY, policy(CERTIFICATE)).ok()
    assert dry_run(viewer, policy(BOTH))["refused"] == 0  # identities that are refused today are not counted
    service.clock.now += 40 * DAY
    assert dry_run(viewer, policy(EITHER))["sample"] == {"identities": 0, "since": None}


# ----------------------------------------------------------------------------------------------------- settings


def domains(client: Client, *names: str, enabled: bool = True) -> Answer:
    return client.put(SETTINGS, {"customDomains": {"enabled": enabled, "domains": list(names)}})


def test_the_settings_of_a_new_org(viewer: Client) -> None:
    result = viewer.get(SETTINGS).ok()
    assert (result["customDomains"], result["typeCertificates"]) == ({"enabled": False, "domains": []}, False)


def test_a_setting_that_is_not_sent_is_unchanged(operator: Client) -> None:
    domains(operator, "iot.example.org").ok()
    result = operator.put(SETTINGS, {"typeCertificates": True}).ok()
    assert result["customDomains"] == {"enabled": True, "domains": ["iot.example.org"]}
    assert domains(operator, "iot.example.org", enabled=False).ok()["typeCertificates"] is True
    before = operator.get(SETTINGS).etag
    assert operator.put(SETTINGS, {}).etag == before


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com.", "example.com"),
        ("messaging.example.com", "example.com"),
        ("mtxpd0.messaging.example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("example.com", "iot.example.com"),
        ("b.example", "a.b.example"),
    ],
)
def test_the_platforms_own_domain_is_reserved(
    tmp_path_factory: pytest.TempPathFactory, name: str, platform: str
) -> None:
    """The domain itself, its parents and its children."""
    service = make_service(tmp_path_factory.mktemp("data"), domain=platform)
    refused = domains(service.client("operator"), "fine.example.org", name)
    assert (refused.status, refused.code) == (422, "domain_reserved")
    normalized = name.lower().removesuffix(".")
    assert refused.json["detail"] == f"{normalized} belongs to the platform. List a domain of your own."
    assert refused.json["violations"][0]["field"] == "customDomains.domains[1]"
    service.app.close()


def test_a_domain_with_the_same_ending_is_not_reserved(operator: Client) -> None:
    domains(operator, "notexample.com", "example.com.evil.org", "com.example").ok()


def test_domains_are_stored_as_lower_case_a_labels(operator: Client) -> None:
    """Each domain once; other scripts as xn--; text that is no DNS name is refused."""
    result = domains(operator, "IoT.Example.ORG", "iot.example.org.", "xn--mnchen-3ya.example").ok()
    assert result["customDomains"]["domains"] == ["iot.example.org", "xn--mnchen-3ya.example"]
    for name in ("münchen.example", "", "localhost", "a..b", "-a.example", "a b.example", "*.example.org", "a.b/c",
                 "x.example\n", "x.example\0", f"{'a' * 64}.example", f"{'a.' * 118}example"):  # fmt: skip
        refused = domains(operator, name)
        assert (refused.status, refused.code) == (422, "policy_invalid")
        assert refused.json["violations"][0]["field"] == "customDomains.domains[0]"


def test_ten_domains(operator: Client) -> None:
    names = [f"d{n}.example.org" for n in range(11)]
    refused = domains(operator, *names)
    assert (refused.status, refused.code) == (422, "policy_invalid")
    domains(operator, *names[:10], names[0].upper()).ok()


def test_several_orgs_may_list_one_domain(service: Service, operator: Client) -> None:
    """The first label of a host names the organization, so a listed domain gives no access to another organization."""
    other = service.client("operator", service.other_org())
    domains(operator, "shared.example.org").ok()
    domains(other, "shared.example.org").ok()


# ---------------------------------------------------------------------------------------------------- deny list


def test_a_key_on_the_deny_list_refuses_every_certificate_with_it(operator: Client, broker: Client) -> None:
    """Whichever CA issued the certificate, whatever it says; by a certificate or by the hash of the key."""
    operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
    key, other = certs.key("P-256", 41), certs.key("P-256", 42)
    stolen = [certs.leaf(f"d:thermo:{n}", ROOT, private=key) for n in range(2)]

    def code(leaf: certs.Issued, number: int) -> str:
        asked = {"serverName": HOST, "clientId": f"d:mtxpd0:thermo:{number}", "certificate": leaf.pem}
        verdict: str = broker.post("/verifyClient", asked).ok()["code"]
        return verdict

    by_certificate = operator.post(DENY, {"kind": "key", "certificate": stolen[0].pem}).ok(201)
    assert (by_certificate["kind"], by_certificate["value"]) == ("key", stolen[0].certificate.key_hash)
    assert [code(leaf, n) for n, leaf in enumerate(stolen)] == ["certificate_revoked"] * 2
    assert code(certs.leaf("d:thermo:0", ROOT, private=other), 0) == "allowed"
    operator.delete(f"{DENY}/{by_certificate['id']}").ok(204)
    assert code(stolen[0], 0) == "allowed"
    spaced = ":".join(re.findall("..", stolen[0].certificate.key_hash.upper()))
    by_hash = operator.post(DENY, {"kind": "key", "value": spaced}).ok(201)
    assert by_hash["id"] == by_certificate["id"]
    assert code(stolen[1], 1) == "certificate_revoked"


def test_the_key_of_a_ca_on_the_deny_list_refuses_what_any_ca_with_it_signed(operator: Client, broker: Client) -> None:
    """Also a CA that is registered later, under another name."""
    renewed = certs.ca("Another Name", private=ROOT.key)
    operator.post(DENY, {"kind": "key", "certificate": ROOT.pem}).ok(201)
    for ca in (ROOT, renewed):
        operator.post(CAS, {"certificate": ca.pem}).ok(201)
        asked = {
            "serverName": HOST,
            "clientId": "d:mtxpd0:thermo:1",
            "certificate": certs.leaf("d:thermo:1", ca).pem,
        }
        assert broker.post("/verifyClient", asked).ok()["code"] == "certificate_revoked"


def test_the_three_kinds_of_entries(service: Service, operator: Client, viewer: Client) -> None:
    """By fingerprint (or a certificate), serial number and identity; each with the caller, the time and the reason."""
    ca = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    device = certs.leaf("d:thermo:42", ROOT)
    colons = ":".join(device.fingerprint.upper()[at : at + 2] for at in range(0, 64, 2))
    made = [
        operator.post(DENY, body | {"reason": "stolen"}).ok(201)
        for body in (
            {"certificate": device.pem},
            {"kind": "serial", "value": f"{ca.upper()}:00AB"},
            {"kind": "identity", "value": "g:hub:7"},
        )
    ]
    assert [(entry["kind"], entry["value"]) for entry in made] == [
        ("fingerprint", device.fingerprint),
        ("serial", f"{ca}:ab"),
        ("identity", "g:hub:7"),
    ]
    for entry in made:
        assert (entry["reason"], entry["createdBy"], entry["createdAt"]) == (
            "stolen",
            operator.key,
            "2026-06-01T12:00:00Z",
        )
        assert set(entry) == {"id", "kind", "value", "reason", "createdAt", "createdBy"}
    again = operator.post(DENY, {"kind": "fingerprint", "value": colons, "reason": "another"}).ok(200)
    assert again == made[0]
    assert viewer.get(DENY).ok() == {"results": sorted(made, key=lambda entry: str(entry["id"])), "bookmark": None}
    for entry in made:
        operator.delete(f"{DENY}/{entry['id']}").ok(204)
        gone = operator.delete(f"{DENY}/{entry['id']}")
        assert (gone.status, gone.code) == (404, "not_found")
    assert viewer.get(DENY).ok()["results"] == []


def test_invalid_entries_are_refused(operator: Client) -> None:
    """The answer names the mistake, and nothing is stored."""
    ca = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    device = certs.leaf("d:thermo:42", ROOT).pem
    for body, status, code in (
        ({}, 422, "denial_invalid"),
        ({"kind": "identity"}, 422, "denial_invalid"),
        ({"kind": "identity", "value": "thermo"}, 422, "denial_invalid"),
        ({"kind": "identity", "value": "d:thermo:"}, 422, "denial_invalid"),
        ({"kind": "identity", "value": "d:thermo:42\n"}, 422, "denial_invalid"),
        ({"kind": "fingerprint", "value": "abcd"}, 422, "denial_invalid"),
        ({"kind": "fingerprint", "value": "g" * 64}, 422, "denial_invalid"),
        ({"kind": "serial", "value": "1234"}, 422, "denial_invalid"),
        ({"kind": "serial", "value": f"{ca}:xyz"}, 422, "denial_invalid"),
        ({"kind": "serial", "value": f"{'0' * 16}-{'0' * 32}:1"}, 404, "not_found"),
        ({"certificate": device, "kind": "identity"}, 422, "denial_invalid"),
        ({"certificate": device, "value": "x"}, 422, "denial_invalid"),
        ({"certificate": "hello, world"}, 422, "not_a_certificate"),
        ({"certificate": ROOT.pem + device}, 422, "denial_invalid"),  # kind and certificate contradict each other
        ({"certificate": ROOT.key_pem}, 422, "private_key_given"),
        ({"kind": "colour", "value": "red"}, 400, "wrong_value"),
        ({"kind": "identity", "value": "d:a:b", "reason": "x" * 1001}, 400, "wrong_value"),
    ):
        refused = operator.post(DENY, body)
        assert (refused.status, refused.code) == (status, code), body
    assert operator.get(DENY).ok()["results"] == []


def test_an_entry_by_multipart(operator: Client) -> None:
    device = certs.leaf("d:thermo:42", ROOT)
    result = operator.form(DENY, {"certificate": device.der, "reason": "lost"}).ok(201)
    assert (result["value"], result["reason"]) == (device.fingerprint, "lost")


@pytest.mark.stores("sqlite")  # the calls are the same on each store
def test_denying_a_serial_reads_few_documents(service: Service, operator: Client) -> None:
    """A registered CA of the serial number is found without a read for each CA.

    Four calls notify the edges, and one reads which uploads of CAs are in flight. Two are for the limit: the first
    entry counts the list, and each reserves a place.
    """
    cas = [certs.ca(f"CA {n}", private=certs.key("P-256", n)) for n in range(20)]
    ids = [operator.post(CAS, {"certificate": ca.pem}).ok(201)["id"] for ca in cas]
    before = service.store.calls.total()
    operator.post(DENY, {"kind": "serial", "value": f"{ids[0]}:5"}).ok(201)
    assert service.store.calls.total() - before < 17


# --------------------------------------------------------------------------------------- the limit of the deny list


def deny_device(operator: Client, number: int) -> Answer:
    return operator.post(DENY, {"kind": "identity", "value": f"d:thermo:{number}"})


def test_the_deny_list_has_a_limit(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal says what to do. An entry that is on the list already, and a removal, are no additions."""
    monkeypatch.setattr(denials, "DENIALS_MAX", 3)
    entries = [deny_device(operator, number).ok(201)["id"] for number in range(3)]
    refused = deny_device(operator, 3)
    assert (refused.status, refused.code) == (409, "too_many_denials")
    assert "deny or deactivate the CA" in refused.text
    assert deny_device(operator, 0).status == 200
    operator.delete(f"{DENY}/{entries[1]}").ok(204)
    assert operator.delete(f"{DENY}/{entries[1]}").status == 404
    assert deny_device(operator, 3).status == 201
    assert deny_device(operator, 4).status == 409


def test_the_limit_of_the_deny_list_holds_under_concurrent_calls(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denials, "DENIALS_MAX", 7)
    with ThreadPoolExecutor(8) as pool:
        statuses = [answer.status for answer in pool.map(lambda number: deny_device(operator, number), range(24))]
    assert sorted(statuses) == [201] * 7 + [409] * 17
    assert len(operator.get(f"{DENY}?limit=200").ok()["results"]) == 7


def test_a_deny_list_from_before_the_limit_stays(
    service: Service, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is beyond the limit is kept and works; nothing is added until there is room."""
    entries = [deny_device(operator, number).ok(201)["id"] for number in range(5)]
    service.app.context.repository.delete(deny_count_ref(service.org_id))
    monkeypatch.setattr(denials, "DENIALS_MAX", 4)
    assert deny_device(operator, 5).status == 409
    assert len(operator.get(DENY).ok()["results"]) == 5
    for entry in entries[:2]:
        operator.delete(f"{DENY}/{entry}").ok(204)
    assert deny_device(operator, 5).status == 201
    assert deny_device(operator, 6).status == 409


def test_a_sweep_counts_the_deny_list_again(
    service: Service, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that was cut short leaves the counter too large, unless a call may be running that has a reservation."""
    monkeypatch.setattr(denials, "DENIALS_MAX", 3)
    deny_device(operator, 0).ok(201)
    repository, ref = service.app.context.repository, deny_count_ref(service.org_id)
    for attempt in repository.changing(ref):
        with attempt:
            attempt.write(DenyCount(entries=3, changed_at=service.clock.now))
    sweep_org(
        service.app.context, get_org(service.app.context, service.org_id), at=service.clock.now + timedelta(seconds=59)
    )
    assert deny_device(operator, 1).status == 409
    sweep_org(
        service.app.context, get_org(service.app.context, service.org_id), at=service.clock.now + timedelta(seconds=60)
    )
    count = repository.get(ref)
    assert count is not None
    assert count.entries == 1
    assert deny_device(operator, 1).status == 201


@pytest.mark.stores("sqlite")  # the calls are the same on each store
def test_lifting_an_entry_that_does_not_exist_reads_few_documents(service: Service, operator: Client) -> None:
    """Neither the deny list nor the CAs are read as a whole: a stranger's guess costs the store nothing."""
    for number in range(20):
        deny_device(operator, number).ok(201)
        operator.post(CAS, {"certificate": certs.ca(f"CA {number}", private=certs.key("P-256", number)).pem}).ok(201)
    for entry in ("f-" + "0" * 64, f"s-{'0' * 32}-5-{'0' * 16}", "i-d:thermo:99", "s-", "anything"):
        service.store.calls.clear()
        assert operator.delete(f"{DENY}/{entry}").status == 404
        assert service.store.calls == {"get_many": 2}, "the caller, and the document of the entry"

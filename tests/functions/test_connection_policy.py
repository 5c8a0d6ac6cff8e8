"""connectionPolicy over HTTP: the policy and its dry run, settings, the deny list."""

from datetime import timedelta
from typing import Any

import pytest

from shared.validation.policy import RULES_MAX
from tests import certs
from tests.certs import DAY
from tests.harness import Answer, Client, Service, make_service

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
    """The safe default: nobody gets in before a CA is registered."""
    found = viewer.get(POLICY).ok()
    assert (found["default"], found["rules"], found["updatedBy"]) == (CERTIFICATE, [], "admin")


def test_the_policy_is_replaced_whole(service: Service, operator: Client, viewer: Client) -> None:
    """With its stamp; the same again is no new version; in force for everybody who reads it."""
    service.clock.now += timedelta(hours=1)
    answer = operator.put(POLICY, policy(EITHER, thermo=BOTH, pump=OPTIONAL), version=viewer.get(POLICY).etag)
    found = answer.ok()
    assert found == {
        "default": EITHER,
        "rules": [{"deviceType": "thermo", "level": BOTH}, {"deviceType": "pump", "level": OPTIONAL}],
        "updatedAt": "2026-06-01T13:00:00Z",
        "updatedBy": operator.key,
        "version": answer.etag.strip('"'),
    }
    assert viewer.get(POLICY).ok() == found
    assert operator.put(POLICY, policy(EITHER, thermo=BOTH, pump=OPTIONAL), version=answer.etag).etag == answer.etag
    assert operator.put(POLICY, {"default": TOKEN}, version=answer.etag).ok()["rules"] == []


def test_rules_that_cannot_be(operator: Client) -> None:
    """422 with the rule at fault: no device type, one named twice, more than 500. The policy stays."""
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


def test_levels_are_the_words_of_the_api(operator: Client) -> None:
    """400 naming the field: no level, another spelling, a rule without one."""
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
def test_a_change_names_the_version_it_is_based_on(service: Service, operator: Client, path: str) -> None:
    """428 without, 412 with an old one naming who and when, `*` overrides. Policy and settings do not disturb each
    other: each has a version of its own."""
    bodies = {
        POLICY: (policy(TOKEN), policy(BOTH)),
        SETTINGS: ({"typeCertificates": True}, {"typeCertificates": False}),
    }
    theirs, mine = bodies[path]
    seen = {one: operator.get(one).etag for one in bodies}
    assert operator.put(path, mine, version=None).code == "precondition_required"
    service.clock.now += timedelta(hours=1)
    other = service.client("operator")
    other.put(path, theirs, version=seen[path]).ok()
    stale = operator.put(path, mine, version=seen[path])
    assert (stale.status, stale.code) == (412, "stale")
    assert stale.json["detail"].startswith(f"{other.key} changed this at 1 Jun 2026, 13:00 UTC.")
    [untouched] = [one for one in bodies if one != path]
    operator.put(untouched, bodies[untouched][0], version=seen[untouched]).ok()
    operator.put(path, mine, version="*").ok()


# ------------------------------------------------------------------------------------------------------ dry run


def dry_run(client: Client, body: dict[str, Any]) -> Any:
    return client.post(f"{POLICY}/dryrun", body).ok()


def test_a_dry_run_of_an_org_that_nobody_connected_to(service: Service, viewer: Client) -> None:
    """Tells which types change; the sample is empty; nothing is saved."""
    writes = service.store.calls["put"]
    assert dry_run(viewer, policy(TOKEN, thermo=BOTH, pump=CERTIFICATE)) == {
        "changed": [{"deviceType": "thermo", "from": CERTIFICATE, "to": BOTH}],
        "sample": {"identities": 0, "since": None},
        "refused": 0,
        "refusedTypes": [],
    }
    assert service.store.calls["put"] <= writes + 1  # the viewer's key
    assert viewer.get(POLICY).ok()["default"] == CERTIFICATE


def test_a_dry_run_counts_who_would_be_refused(
    service: Service, operator: Client, viewer: Client, broker: Client
) -> None:
    """Of the identities seen lately, by how each showed itself last."""
    operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
    operator.put(POLICY, policy(EITHER)).ok()

    def connect(name: str, certified: bool) -> str:
        shown = {"certificate": certs.leaf(f"d:{name}", ROOT).pem} if certified else {}
        found: str = broker.post("/verifyClient", {"serverName": HOST, "clientId": f"d:mtxpd0:{name}", **shown}).ok()[
            "decision"
        ]
        return found

    assert connect("thermo:1", certified=True) == "allow"
    service.clock.now += timedelta(days=1)
    assert [connect(f"pump:{n}", certified=False) for n in range(2)] == ["continue"] * 2
    assert connect("valve:1", certified=False) == "continue"
    service.clock.now += timedelta(hours=1)
    connect("valve:1", certified=True)
    service.flush()
    found = dry_run(viewer, policy(CERTIFICATE, gone=TOKEN))
    assert found == {
        "changed": [
            {"deviceType": "gone", "from": EITHER, "to": TOKEN},
            {"deviceType": "pump", "from": EITHER, "to": CERTIFICATE},
            {"deviceType": "thermo", "from": EITHER, "to": CERTIFICATE},
            {"deviceType": "valve", "from": EITHER, "to": CERTIFICATE},
        ],
        "sample": {"identities": 4, "since": "2026-06-01T12:00:00Z"},
        "refused": 2,
        "refusedTypes": ["pump"],
    }
    assert dry_run(viewer, policy(CERTIFICATE, pump=TOKEN))["refused"] == 0
    operator.put(POLICY, policy(CERTIFICATE)).ok()
    assert dry_run(viewer, policy(BOTH))["refused"] == 0  # who is refused today already is not counted
    service.clock.now += 40 * DAY
    assert dry_run(viewer, policy(EITHER))["sample"] == {"identities": 0, "since": None}


# ----------------------------------------------------------------------------------------------------- settings


def domains(client: Client, *names: str, enabled: bool = True) -> Answer:
    return client.put(SETTINGS, {"customDomains": {"enabled": enabled, "domains": list(names)}})


def test_the_settings_of_a_new_org(viewer: Client) -> None:
    found = viewer.get(SETTINGS).ok()
    assert (found["customDomains"], found["typeCertificates"]) == ({"enabled": False, "domains": []}, False)


def test_what_is_not_sent_stays(operator: Client) -> None:
    domains(operator, "iot.example.org").ok()
    found = operator.put(SETTINGS, {"typeCertificates": True}).ok()
    assert found["customDomains"] == {"enabled": True, "domains": ["iot.example.org"]}
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
    """Equal to it, above it, below it."""
    service = make_service(tmp_path_factory.mktemp("data"), domain=platform)
    refused = domains(service.client("operator"), "fine.example.org", name)
    assert (refused.status, refused.code) == (422, "domain_reserved")
    shown = name.lower().removesuffix(".")
    assert refused.json["detail"] == f"{shown} belongs to the platform. List a domain of your own."
    assert refused.json["violations"][0]["field"] == "customDomains.domains[1]"
    service.app.close()


def test_domains_that_only_end_alike_are_nobodys(operator: Client) -> None:
    domains(operator, "notexample.com", "example.com.evil.org", "com.example").ok()


def test_domains_are_kept_as_lower_case_a_labels(operator: Client) -> None:
    """Each once; other scripts as xn--; what is no DNS name is refused."""
    found = domains(operator, "IoT.Example.ORG", "iot.example.org.", "xn--mnchen-3ya.example").ok()
    assert found["customDomains"]["domains"] == ["iot.example.org", "xn--mnchen-3ya.example"]
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
    """The first label always names the org: listing a domain gives nobody anything of another's."""
    other = service.client("operator", service.other_org())
    domains(operator, "shared.example.org").ok()
    domains(other, "shared.example.org").ok()


# ---------------------------------------------------------------------------------------------------- deny list


def test_the_three_kinds_of_entries(service: Service, operator: Client, viewer: Client) -> None:
    """By fingerprint (or a certificate), serial and identity; each told back with who, when and why."""
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
    assert [(one["kind"], one["value"]) for one in made] == [
        ("fingerprint", device.fingerprint),
        ("serial", f"{ca}:ab"),
        ("identity", "g:hub:7"),
    ]
    for one in made:
        assert (one["reason"], one["createdBy"], one["createdAt"]) == (
            "stolen",
            operator.key,
            "2026-06-01T12:00:00Z",
        )
        assert set(one) == {"id", "kind", "value", "reason", "createdAt", "createdBy"}
    again = operator.post(DENY, {"kind": "fingerprint", "value": colons, "reason": "another"}).ok(200)
    assert again == made[0]
    assert viewer.get(DENY).ok() == {"results": sorted(made, key=lambda one: str(one["id"])), "bookmark": None}
    for one in made:
        operator.delete(f"{DENY}/{one['id']}").ok(204)
        gone = operator.delete(f"{DENY}/{one['id']}")
        assert (gone.status, gone.code) == (404, "not_found")
    assert viewer.get(DENY).ok()["results"] == []


def test_entries_that_cannot_be(operator: Client) -> None:
    """What is at fault is said, and nothing is kept."""
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
        ({"certificate": ROOT.pem + device}, 422, "denial_invalid"),  # which of the two is meant?
        ({"certificate": ROOT.key_pem}, 422, "private_key_given"),
        ({"kind": "colour", "value": "red"}, 400, "wrong_value"),
        ({"kind": "identity", "value": "d:a:b", "reason": "x" * 1001}, 400, "wrong_value"),
    ):
        refused = operator.post(DENY, body)
        assert (refused.status, refused.code) == (status, code), body
    assert operator.get(DENY).ok()["results"] == []


def test_an_entry_by_multipart(operator: Client) -> None:
    device = certs.leaf("d:thermo:42", ROOT)
    found = operator.form(DENY, {"certificate": device.der, "reason": "lost"}).ok(201)
    assert (found["value"], found["reason"]) == (device.fingerprint, "lost")


def test_denying_a_serial_reads_few_documents(service: Service, operator: Client) -> None:
    """Whether a registered CA is meant is found out without asking for each of them; three calls tell the edges."""
    cas = [certs.ca(f"CA {n}", private=certs.key("P-256", n)) for n in range(20)]
    ids = [operator.post(CAS, {"certificate": one.pem}).ok(201)["id"] for one in cas]
    before = service.store.calls.total()
    operator.post(DENY, {"kind": "serial", "value": f"{ids[0]}:5"}).ok(201)
    assert service.store.calls.total() - before < 13

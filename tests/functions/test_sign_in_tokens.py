"""Tokens of an OIDC issuer as proof of who is calling: the good ones, and every known trick."""

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.config import Oidc
from tests import certs
from tests.harness import Answer, Client, Service, now_service
from tests.issuer import AUDIENCE, CLIENT, Issuer, jwk, running_issuer


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as started:
        yield started


@pytest.fixture
def service(tmp_path: Path, issuer: Issuer) -> Iterator[Service]:
    made = now_service(tmp_path / "data", oidc=Oidc(issuer.url, AUDIENCE, CLIENT))
    yield made
    made.app.close()


def session(service: Service, token: str) -> Answer:
    return service.anybody.send("GET", "/session", headers={"authorization": f"Bearer {token}"})


def refused(service: Service, token: str) -> str:
    """The sentence of a 401."""
    answer = session(service, token)
    assert (answer.status, answer.code) == (401, "token_refused")
    detail: str = answer.json["detail"]
    return detail


def one(claim: str, value: Any) -> dict[str, Any]:
    return {claim: value}


# ------------------------------------------------------------------------------------------------------ good ones


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_a_person_who_signed_in_has_the_org_and_role_of_the_token(service: Service, issuer: Issuer, role: str) -> None:
    """Both come from claims of the token, and the activity list shows who it was."""
    told = session(service, issuer.token(role=role)).ok()
    assert (told["org"], told["role"], told["key"]) == ("mtxpd0", role, "oidc:anna")


def test_an_operator_changes_things_and_is_named_for_it(service: Service, issuer: Issuer) -> None:
    root = certs.ca("Root", not_after=certs.NOON + 20 * certs.YEAR)
    headers = {"authorization": f"Bearer {issuer.token()}", "content-type": "application/json"}
    body = json.dumps({"certificate": root.pem}).encode()
    added = service.anybody.send("POST", "/authentication/cacertificates", body, headers=headers).ok(201)
    assert added["createdBy"] == "oidc:anna"


def test_a_viewer_may_look_and_not_change(service: Service, issuer: Issuer) -> None:
    headers = {"authorization": f"Bearer {issuer.token(role='viewer')}", "content-type": "application/json"}
    assert service.anybody.send("GET", "/authentication/cacertificates", headers=headers).status == 200
    answer = service.anybody.send("POST", "/authentication/cacertificates", b"{}", headers=headers)
    assert (answer.status, answer.code) == (403, "forbidden")


def test_a_person_may_ask_why_a_device_was_refused(service: Service, issuer: Issuer) -> None:
    """verifyClient reads caller and decision in one batch; a token works there too, to explain only."""
    headers = {"authorization": f"Bearer {issuer.token(role='viewer')}", "content-type": "application/json"}
    body = {"serverName": service.host(), "clientId": "d:mtxpd0:t:1", "explain": True}
    verdict = service.anybody.send("POST", "/authorization/verifyclient", json.dumps(body).encode(), headers=headers)
    assert verdict.ok()["code"] == "certificate_missing"
    body["explain"] = False
    answer = service.anybody.send("POST", "/authorization/verifyclient", json.dumps(body).encode(), headers=headers)
    assert answer.status == 403


@pytest.mark.parametrize(("kind", "algorithm"), [("P-256", "ES256"), ("P-384", "ES384"), ("RSA-2048", "PS256")])
def test_every_usual_asymmetric_algorithm_is_taken(service: Service, issuer: Issuer, kind: str, algorithm: str) -> None:
    issuer.keys = {"second": certs.key(kind, 901)}
    assert session(service, issuer.token(signer="second", algorithm=algorithm)).status == 200


def test_a_list_of_one_names_one(service: Service, issuer: Issuer) -> None:
    """Issuers often write roles as a list."""
    assert session(service, issuer.token(role=["operator"], org=["mtxpd0"])).status == 200


def test_the_audience_may_be_one_of_several(service: Service, issuer: Issuer) -> None:
    assert session(service, issuer.token(aud=["another", AUDIENCE])).status == 200


@pytest.mark.parametrize(("claim", "seconds"), [("exp", -59), ("nbf", 59)])
def test_two_clocks_may_differ_by_a_minute(service: Service, issuer: Issuer, claim: str, seconds: int) -> None:
    at = service.clock.now.timestamp()
    assert session(service, issuer.token(**one(claim, at + seconds))).status == 200


def test_api_keys_work_beside_tokens(service: Service) -> None:
    assert service.client("viewer").get("/session").ok()["role"] == "viewer"


def test_the_page_is_told_where_to_sign_in(service: Service, issuer: Issuer) -> None:
    told = service.anybody.get("//signin").ok()
    assert told == {"issuer": issuer.url, "clientId": CLIENT, "audience": AUDIENCE}


# ----------------------------------------------------------------------------------------------------- every trick


def unsigned(issuer: Issuer, algorithm: str) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': algorithm, 'kid': 'first', 'typ': 'JWT'})}.{part(issuer.claims())}."


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
def test_a_token_without_signature_is_refused(service: Service, issuer: Issuer, algorithm: str) -> None:
    """RFC 8725, 2.1."""
    refused(service, unsigned(issuer, algorithm))


def test_the_public_key_is_no_secret_to_sign_with(service: Service, issuer: Issuer) -> None:
    """HS256 with the issuer's public key as the secret (RFC 8725, 2.1). Made by hand: PyJWT refuses to."""
    import hashlib
    import hmac

    head = unsigned(issuer, "HS256").rstrip(".")
    mac = hmac.new(issuer.public_pem(), head.encode(), hashlib.sha256).digest()
    refused(service, f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")


def test_a_secret_in_the_key_set_is_not_used(service: Service, issuer: Issuer) -> None:
    """Symmetric keys are nobody's proof, whatever the key set says."""
    secret = b"0123456789abcdef0123456789abcdef"
    encoded = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    issuer.more_keys = [{"kty": "oct", "kid": "shared", "k": encoded, "alg": "HS256"}]
    refused(service, issuer.token(secret=secret, algorithm="HS256", headers={"kid": "shared"}))


def test_addresses_and_keys_inside_a_token_are_not_looked_at(service: Service) -> None:
    """`jku`, `x5u`, `jwk`, `x5c` name the attacker's key (RFC 8725, 3.10): never fetched, never used."""
    own = certs.key("RSA-2048", 902)
    with running_issuer() as attacker:
        attacker.keys = {"first": own}
        told = service.anybody.get("//signin").ok()
        headers = {"jku": f"{attacker.url}/keys", "x5u": f"{attacker.url}/keys", "jwk": jwk("first", own)}
        token = attacker.token(headers=headers, iss=told["issuer"])
        assert "signature" in refused(service, token)
        assert not attacker.asked


def test_a_token_for_another_service_is_refused(service: Service, issuer: Issuer) -> None:
    assert "for another service" in refused(service, issuer.token(aud="https://other.example.com"))
    assert refused(service, issuer.token(aud=None))


def test_a_token_of_another_issuer_is_refused(service: Service, issuer: Issuer) -> None:
    """Even signed with the same key, as one issuer's tenants are."""
    assert "another issuer" in refused(service, issuer.token(iss=f"{issuer.url}/other"))
    assert refused(service, issuer.token(iss=None))


@pytest.mark.parametrize(
    ("claim", "seconds", "why"), [("exp", -60, "it has ended"), ("nbf", 61, "it is not valid yet")]
)
def test_a_token_counts_in_its_time_only(service: Service, issuer: Issuer, claim: str, seconds: int, why: str) -> None:
    at = service.clock.now.timestamp()
    assert why in refused(service, issuer.token(**one(claim, at + seconds)))


def test_a_session_ends_with_its_token(service: Service, issuer: Issuer) -> None:
    token = issuer.token()
    assert session(service, token).status == 200
    service.clock.now += timedelta(minutes=7)
    assert "it has ended" in refused(service, token)


@pytest.mark.parametrize("claim", ["exp", "sub"])
def test_a_token_without_an_end_or_a_person_is_refused(service: Service, issuer: Issuer, claim: str) -> None:
    assert f"it has no {claim}" in refused(service, issuer.token(**one(claim, None)))


def test_an_end_that_is_no_time_is_refused(service: Service, issuer: Issuer) -> None:
    """PyJWT would take the text; the clock here takes numbers."""
    assert refused(service, issuer.token(exp="tomorrow"))
    assert refused(service, issuer.token(exp=True))


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), 10**400, 10**15], ids=["NaN", "Infinity", "huge", "far"]
)
@pytest.mark.parametrize("claim", ["exp", "nbf"])
def test_a_time_that_never_comes_is_none(service: Service, issuer: Issuer, claim: str, number: float) -> None:
    """Python's JSON knows NaN, of which nothing is later or earlier: such a token would never end."""
    assert f"its {claim} is no time" in refused(service, issuer.token(**one(claim, number)))


def test_a_token_of_an_unknown_key_is_refused(service: Service, issuer: Issuer) -> None:
    stranger = certs.key("RSA-2048", 903)
    assert "no such key" in refused(service, issuer.token(signer=stranger, headers={"kid": "unknown"}))
    assert "signature" in refused(service, issuer.token(signer=stranger))


def test_a_token_changed_on_the_way_is_refused(service: Service, issuer: Issuer) -> None:
    head, _, tail = issuer.token().split(".")
    payload = json.dumps(issuer.claims(role="operator", org="other1")).encode()
    changed = base64.urlsafe_b64encode(payload).rstrip(b"=").decode()
    assert "signature" in refused(service, f"{head}.{changed}.{tail}")


@pytest.mark.parametrize("garbage", ["", "x", "a.b.c", "....", "é.é.é", "a" * 20_000])
def test_what_is_no_token_is_refused(service: Service, garbage: str) -> None:
    refused(service, garbage)


def test_what_is_critical_and_not_understood_is_refused(service: Service, issuer: Issuer) -> None:
    """RFC 7515, 4.1.11."""
    refused(service, issuer.token(headers={"crit": ["exp"], "exp": 1}))


@pytest.mark.parametrize("role", ["broker", "edge", "admin", "", None, ["viewer", "operator"], 7, {"operator": True}])
def test_only_viewers_and_operators_sign_in(service: Service, issuer: Issuer, role: object) -> None:
    """Brokers and edges are machines with keys; two roles are no role."""
    answer = session(service, issuer.token(role=role))
    assert (answer.status, answer.code) == (403, "role_not_granted")


@pytest.mark.parametrize("org", [None, "", "MTXPD0", "../org", "mtxpd0\n", ["mtxpd0", "other1"], "nobody"])
def test_a_token_must_name_one_org_that_is_here(service: Service, issuer: Issuer, org: object) -> None:
    answer = session(service, issuer.token(org=org))
    assert (answer.status, answer.code) == (403, "role_not_granted")


def test_a_person_of_one_org_sees_nothing_of_another(service: Service, issuer: Issuer) -> None:
    service.other_org()
    other = service.client("operator", "other1")
    root = certs.ca("Root", not_after=certs.NOON + 20 * certs.YEAR)
    there = other.post("/authentication/cacertificates", {"certificate": root.pem}).ok(201)["id"]
    headers = {"authorization": f"Bearer {issuer.token()}"}
    assert service.anybody.send("GET", f"/authentication/cacertificates/{there}", headers=headers).status == 404


def test_a_suspended_org_lets_nobody_sign_in(service: Service, issuer: Issuer) -> None:
    from shared.usecases.orgs.organizations import set_suspended

    set_suspended(service.app.context, service.org_id, True)
    assert session(service, issuer.token()).code == "org_suspended"


# -------------------------------------------------------------------------------------------------- the issuer's keys


def test_keys_are_asked_for_once_and_kept(service: Service, issuer: Issuer) -> None:
    for _ in range(5):
        session(service, issuer.token()).ok()
    assert issuer.asked["/keys"] == 1


def test_a_new_key_of_the_issuer_is_found_at_most_once_a_minute(service: Service, issuer: Issuer) -> None:
    """Whoever sends made-up key ids cannot make this service ask more often."""
    session(service, issuer.token()).ok()
    issuer.keys["second"] = certs.key("P-256", 904)
    token = issuer.token(signer="second", algorithm="ES256")
    assert "no such key" in refused(service, token)
    service.clock.now += timedelta(seconds=61)
    assert session(service, token).status == 200
    for number in range(5):
        refused(service, issuer.token(headers={"kid": f"made-up-{number}"}))
    assert issuer.asked["/keys"] == 2


def test_a_key_that_the_issuer_withdrew_stops_counting(service: Service, issuer: Issuer) -> None:
    session(service, issuer.token()).ok()
    token = issuer.token(exp=service.clock.now.timestamp() + 3600)
    issuer.keys = {"second": certs.key("P-256", 905)}
    service.clock.now += timedelta(minutes=10)
    assert "no such key" in refused(service, token)


def test_an_issuer_that_is_down_does_not_sign_out_who_is_in(service: Service, issuer: Issuer) -> None:
    """Its keys are used for an hour more; then nobody can be believed, and 503 says so."""
    token = issuer.token(exp=service.clock.now.timestamp() + 7200)
    session(service, token).ok()
    issuer.down = True
    service.clock.now += timedelta(minutes=30)
    assert session(service, token).status == 200
    service.clock.now += timedelta(minutes=31)
    answer = session(service, token)
    assert (answer.status, answer.code, answer.reply.headers["Retry-After"]) == (503, "issuer_unavailable", "60")


@pytest.mark.parametrize(
    "lie",
    [
        {"issuer": "https://other.example.com"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
        {"jwks_uri": "ftp://127.0.0.1/keys"},
    ],
)
def test_a_discovery_document_that_cannot_be_right_is_not_used(
    service: Service, issuer: Issuer, lie: dict[str, Any]
) -> None:
    issuer.discovery = lie
    assert session(service, issuer.token()).code == "issuer_unavailable"


def test_no_redirect_is_followed_to_other_keys(service: Service, issuer: Issuer) -> None:
    with running_issuer() as attacker:
        issuer.redirect_keys_to = f"{attacker.url}/keys"
        assert session(service, issuer.token()).code == "issuer_unavailable"
        assert not attacker.asked


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")  # the test signs with it on purpose
def test_weak_and_encryption_keys_of_the_set_are_left_out(service: Service, issuer: Issuer) -> None:
    issuer.keys["weak"] = certs.key("RSA-1024", 906)
    issuer.more_keys = [{**jwk("enc", certs.key("P-256", 907)), "use": "enc"}, {"kty": "RSA"}, {"kid": "x"}]
    assert "no such key" in refused(service, issuer.token(signer="weak"))
    encryption = issuer.token(signer=certs.key("P-256", 907), algorithm="ES256", headers={"kid": "enc"})
    assert "no such key" in refused(service, encryption)
    assert session(service, issuer.token()).status == 200


def test_a_key_is_used_as_the_set_says(service: Service, issuer: Issuer) -> None:
    """An RSA key marked for PS256 is not good for RS256 (RFC 7517, 4.4)."""
    issuer.more_keys = [{**jwk("marked", certs.key("RSA-2048", 908)), "alg": "PS256"}]
    signer = certs.key("RSA-2048", 908)
    refused(service, issuer.token(signer=signer, headers={"kid": "marked"}))
    assert session(service, issuer.token(signer=signer, algorithm="PS256", headers={"kid": "marked"})).status == 200


# ------------------------------------------------------------------------------------------------- without an issuer


def test_without_an_issuer_no_token_is_taken_and_nowhere_is_named(tmp_path: Path, issuer: Issuer) -> None:
    plain = now_service(tmp_path / "plain")
    try:
        answer = session(plain, issuer.token())
        assert (answer.status, answer.code) == (401, "not_authenticated")
        assert plain.anybody.get("//signin").ok() == {}
        assert not issuer.asked
    finally:
        plain.app.close()


def test_an_api_without_client_id_takes_tokens_and_names_no_page(tmp_path: Path, issuer: Issuer) -> None:
    made = now_service(tmp_path / "other", oidc=Oidc(issuer.url, AUDIENCE))
    try:
        assert session(made, issuer.token()).status == 200
        assert Client(made.app).get("//signin").ok() == {}
    finally:
        made.app.close()

"""Tokens of an OIDC issuer authenticate people: valid tokens, and every known attack."""

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.adapters.oidc_tokens import WAITING
from shared.config import Oidc
from shared.usecases.orgs.deletion import delete_org
from shared.usecases.orgs.organizations import create_org
from tests.support import certs
from tests.support.harness import Answer, Client, Service, make_current_service
from tests.support.issuer import AUDIENCE, CLIENT, Issuer, jwk, run_issuer


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with run_issuer() as started:
        yield started


@pytest.fixture
def service(tmp_path: Path, issuer: Issuer) -> Iterator[Service]:
    made = make_current_service(tmp_path / "data", oidc=Oidc(issuer.url, AUDIENCE, CLIENT))
    yield made
    made.app.close()


def session(service: Service, token: str) -> Answer:
    return service.anonymous.send("GET", "/session", headers={"authorization": f"Bearer {token}"})


def refused(service: Service, token: str) -> str:
    """Return the sentence of a 401."""
    answer = session(service, token)
    assert (answer.status, answer.code) == (401, "token_refused")
    detail: str = answer.json["detail"]
    return detail


def with_claim(claim: str, value: Any) -> dict[str, Any]:
    return {claim: value}


# --------------------------------------------------------------------------------------------------- valid tokens


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_a_token_gives_its_organization_and_role(service: Service, issuer: Issuer, role: str) -> None:
    """Both are claims of the token, and the activity list names the person."""
    view = session(service, issuer.token(role=role)).ok()
    assert (view["org"], view["role"], view["key"]) == ("mtxpd0", role, "oidc:anna")


def test_a_change_names_the_operator_who_signed_in(service: Service, issuer: Issuer) -> None:
    root = certs.ca("Root", not_after=certs.NOON + 20 * certs.YEAR)
    headers = {"authorization": f"Bearer {issuer.token()}", "content-type": "application/json"}
    body = json.dumps({"certificate": root.pem}).encode()
    added = service.anonymous.send("POST", "/authentication/cacertificates", body, headers=headers).ok(201)
    assert added["createdBy"] == "oidc:anna"


def test_a_viewer_may_read_and_not_change(service: Service, issuer: Issuer) -> None:
    headers = {"authorization": f"Bearer {issuer.token(role='viewer')}", "content-type": "application/json"}
    assert service.anonymous.send("GET", "/authentication/cacertificates", headers=headers).status == 200
    answer = service.anonymous.send("POST", "/authentication/cacertificates", b"{}", headers=headers)
    assert (answer.status, answer.code) == (403, "forbidden")


def test_a_person_may_explain_a_verdict(service: Service, issuer: Issuer) -> None:
    """verifyClient accepts a token as well, but only to explain a verdict."""
    headers = {"authorization": f"Bearer {issuer.token(role='viewer')}", "content-type": "application/json"}
    body = {"serverName": service.host(), "clientId": "d:mtxpd0:t:1", "explain": True}
    verdict = service.anonymous.send("POST", "/authorization/verifyclient", json.dumps(body).encode(), headers=headers)
    assert verdict.ok()["code"] == "certificate_missing"
    body["explain"] = False
    answer = service.anonymous.send("POST", "/authorization/verifyclient", json.dumps(body).encode(), headers=headers)
    assert answer.status == 403


@pytest.mark.parametrize(("kind", "algorithm"), [("P-256", "ES256"), ("P-384", "ES384"), ("RSA-2048", "PS256")])
def test_every_usual_asymmetric_algorithm_is_accepted(
    service: Service, issuer: Issuer, kind: str, algorithm: str
) -> None:
    issuer.keys = {"second": certs.key(kind, 901)}
    assert session(service, issuer.token(signer="second", algorithm=algorithm)).status == 200


def test_a_claim_may_be_a_list_with_a_single_value(service: Service, issuer: Issuer) -> None:
    """Many issuers write roles as a list."""
    assert session(service, issuer.token(role=["operator"], org=["mtxpd0"])).status == 200


def test_the_audience_may_be_one_of_several(service: Service, issuer: Issuer) -> None:
    assert session(service, issuer.token(aud=["another", AUDIENCE])).status == 200


@pytest.mark.parametrize(("claim", "seconds"), [("exp", -59), ("nbf", 59)])
def test_two_clocks_may_differ_by_a_minute(service: Service, issuer: Issuer, claim: str, seconds: int) -> None:
    at = service.clock.now.timestamp()
    assert session(service, issuer.token(**with_claim(claim, at + seconds))).status == 200


def test_api_keys_work_beside_tokens(service: Service) -> None:
    assert service.client("viewer").get("/session").ok()["role"] == "viewer"


def test_the_page_gets_the_issuer(service: Service, issuer: Issuer) -> None:
    view = service.anonymous.get("//signin").ok()
    assert view == {"issuer": issuer.url, "clientId": CLIENT, "audience": AUDIENCE}


# ------------------------------------------------------------------------------------------------------- attacks


def unsigned(issuer: Issuer, algorithm: str) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': algorithm, 'kid': 'first', 'typ': 'JWT'})}.{part(issuer.claims())}."


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
def test_a_token_without_signature_is_refused(service: Service, issuer: Issuer, algorithm: str) -> None:
    """RFC 8725, 2.1."""
    refused(service, unsigned(issuer, algorithm))


def test_a_signature_with_the_public_key_as_secret_is_refused(service: Service, issuer: Issuer) -> None:
    """HS256 with the issuer's public key as the secret (RFC 8725, 2.1). PyJWT refuses to make such a token."""
    import hashlib
    import hmac

    head = unsigned(issuer, "HS256").rstrip(".")
    mac = hmac.new(issuer.public_pem(), head.encode(), hashlib.sha256).digest()
    refused(service, f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")


def test_a_secret_in_the_key_set_is_not_used(service: Service, issuer: Issuer) -> None:
    """A symmetric key in the key set authenticates no caller."""
    secret = b"0123456789abcdef0123456789abcdef"
    encoded = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    issuer.more_keys = [{"kty": "oct", "kid": "shared", "k": encoded, "alg": "HS256"}]
    refused(service, issuer.token(secret=secret, algorithm="HS256", headers={"kid": "shared"}))


def test_addresses_and_keys_inside_a_token_are_ignored(service: Service) -> None:
    """`jku`, `x5u`, `jwk` and `x5c` may name an attacker's key (RFC 8725, 3.10), which is neither fetched nor used."""
    own = certs.key("RSA-2048", 902)
    with run_issuer() as attacker:
        attacker.keys = {"first": own}
        view = service.anonymous.get("//signin").ok()
        headers = {"jku": f"{attacker.url}/keys", "x5u": f"{attacker.url}/keys", "jwk": jwk("first", own)}
        token = attacker.token(headers=headers, iss=view["issuer"])
        assert "signature" in refused(service, token)
        assert not attacker.asked


def test_a_token_for_another_service_is_refused(service: Service, issuer: Issuer) -> None:
    assert "for another service" in refused(service, issuer.token(aud="https://other.example.com"))
    assert refused(service, issuer.token(aud=None))


def test_a_token_of_another_issuer_is_refused(service: Service, issuer: Issuer) -> None:
    """Also if the key is the same, as for the tenants of one issuer."""
    assert "another issuer" in refused(service, issuer.token(iss=f"{issuer.url}/other"))
    assert refused(service, issuer.token(iss=None))


@pytest.mark.parametrize(
    ("claim", "seconds", "why"), [("exp", -60, "it has ended"), ("nbf", 61, "it is not valid yet")]
)
def test_a_token_is_valid_in_its_time_only(
    service: Service, issuer: Issuer, claim: str, seconds: int, why: str
) -> None:
    at = service.clock.now.timestamp()
    assert why in refused(service, issuer.token(**with_claim(claim, at + seconds)))


def test_a_session_ends_with_its_token(service: Service, issuer: Issuer) -> None:
    token = issuer.token()
    assert session(service, token).status == 200
    service.clock.now += timedelta(minutes=7)
    assert "it has ended" in refused(service, token)


@pytest.mark.parametrize("claim", ["exp", "sub"])
def test_a_token_without_an_end_or_a_person_is_refused(service: Service, issuer: Issuer, claim: str) -> None:
    assert f"it has no {claim}" in refused(service, issuer.token(**with_claim(claim, None)))


def test_an_expiry_that_is_no_number_is_refused(service: Service, issuer: Issuer) -> None:
    """PyJWT would accept text."""
    assert refused(service, issuer.token(exp="tomorrow"))
    assert refused(service, issuer.token(exp=True))


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), 10**400, 10**15], ids=["NaN", "Infinity", "huge", "far"]
)
@pytest.mark.parametrize("claim", ["exp", "nbf"])
def test_a_time_that_is_not_finite_is_refused(service: Service, issuer: Issuer, claim: str, number: float) -> None:
    """Python's JSON parser accepts NaN, and no comparison with NaN is true: such a token would never expire."""
    assert f"its {claim} is no time" in refused(service, issuer.token(**with_claim(claim, number)))


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
def test_text_that_is_no_token_is_refused(service: Service, garbage: str) -> None:
    refused(service, garbage)


def test_an_unknown_critical_header_is_refused(service: Service, issuer: Issuer) -> None:
    """RFC 7515, 4.1.11."""
    refused(service, issuer.token(headers={"crit": ["exp"], "exp": 1}))


@pytest.mark.parametrize("role", ["broker", "edge", "admin", "", None, ["viewer", "operator"], 7, {"operator": True}])
def test_only_viewers_and_operators_sign_in(service: Service, issuer: Issuer, role: object) -> None:
    """Brokers and edges are machines with keys. A token with two roles has none."""
    answer = session(service, issuer.token(role=role))
    assert (answer.status, answer.code) == (403, "role_not_granted")


@pytest.mark.parametrize("org", [None, "", "MTXPD0", "../org", "mtxpd0\n", ["mtxpd0", "other1"], "nobody"])
def test_a_token_must_name_a_single_known_organization(service: Service, issuer: Issuer, org: object) -> None:
    answer = session(service, issuer.token(org=org))
    assert (answer.status, answer.code) == (403, "role_not_granted")


def test_a_token_gives_no_access_to_another_organization(service: Service, issuer: Issuer) -> None:
    service.other_org()
    other = service.client("operator", "other1")
    root = certs.ca("Root", not_after=certs.NOON + 20 * certs.YEAR)
    there = other.post("/authentication/cacertificates", {"certificate": root.pem}).ok(201)["id"]
    headers = {"authorization": f"Bearer {issuer.token()}"}
    assert service.anonymous.send("GET", f"/authentication/cacertificates/{there}", headers=headers).status == 404


def test_a_token_is_no_token_of_the_next_organization_of_the_id(service: Service, issuer: Issuer) -> None:
    """A token names an id. The time of its issue says which of the organizations of that id is meant."""
    before = issuer.token()
    session(service, before).ok()
    delete_org(service.app.context, service.org_id)
    assert session(service, before).code == "role_not_granted"
    service.clock.now += timedelta(seconds=30)
    create_org(service.app.context, service.org_id, now=True)
    assert "older than the organization" in refused(service, before)
    assert "older than the organization" in refused(service, issuer.token(iat=None))
    explain = {"serverName": service.host(), "clientId": "d:mtxpd0:t:1", "explain": True}
    headers = {"authorization": f"Bearer {before}", "content-type": "application/json"}
    body = json.dumps(explain).encode()
    assert service.anonymous.send("POST", "/authorization/verifyclient", body, headers=headers).status == 401
    session(service, issuer.token(iat=service.clock.now.timestamp() + 1)).ok()


def test_a_suspended_organization_refuses_its_people(service: Service, issuer: Issuer) -> None:
    from shared.usecases.orgs.organizations import set_suspended

    set_suspended(service.app.context, service.org_id, True)
    assert session(service, issuer.token()).code == "org_suspended"


# -------------------------------------------------------------------------------------------------- the issuer's keys


def test_keys_are_fetched_once_and_cached(service: Service, issuer: Issuer) -> None:
    for _ in range(5):
        session(service, issuer.token()).ok()
    assert issuer.asked["/keys"] == 1


def test_a_new_key_of_the_issuer_is_found_at_most_once_a_minute(service: Service, issuer: Issuer) -> None:
    """Invented key ids cannot make this service fetch the keys more often."""
    session(service, issuer.token()).ok()
    issuer.keys["second"] = certs.key("P-256", 904)
    token = issuer.token(signer="second", algorithm="ES256")
    assert "no such key" in refused(service, token)
    service.clock.now += timedelta(seconds=61)
    assert session(service, token).status == 200
    for number in range(5):
        refused(service, issuer.token(headers={"kid": f"made-up-{number}"}))
    assert issuer.asked["/keys"] == 2


def test_a_key_that_the_issuer_withdrew_is_no_longer_accepted(service: Service, issuer: Issuer) -> None:
    session(service, issuer.token()).ok()
    token = issuer.token(exp=service.clock.now.timestamp() + 3600)
    issuer.keys = {"second": certs.key("P-256", 905)}
    service.clock.now += timedelta(minutes=10)
    assert "no such key" in refused(service, token)


def test_a_clock_that_is_set_back_keeps_no_withdrawn_key(
    service: Service, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys age by a counter as well, and so does the pause between two requests to the issuer."""
    passed = [0.0]
    monkeypatch.setattr(service.app.tokens, "_seconds", lambda: passed[0])
    token = issuer.token()
    session(service, token).ok()
    issuer.keys = {"second": certs.key("P-256", 905)}
    service.clock.now -= timedelta(hours=5)
    passed[0] += 599
    assert session(service, token).status == 200
    passed[0] += 1
    assert "no such key" in refused(service, token)


def test_tokens_are_accepted_for_an_hour_while_the_issuer_is_down(service: Service, issuer: Issuer) -> None:
    """The cached keys are used for an hour. After that a token is answered with 503."""
    token = issuer.token(exp=service.clock.now.timestamp() + 7200)
    session(service, token).ok()
    issuer.down = True
    service.clock.now += timedelta(minutes=30)
    assert session(service, token).status == 200
    service.clock.now += timedelta(minutes=31)
    answer = session(service, token)
    assert (answer.status, answer.code, answer.reply.headers["Retry-After"]) == (503, "issuer_unavailable", "60")


def test_a_silent_issuer_keeps_few_callers_waiting(service: Service, issuer: Issuer) -> None:
    """Anybody can send tokens that need the issuer's keys. Most of them are answered with 503 at once."""
    issuer.silent = threading.Event()
    token = issuer.token()
    with ThreadPoolExecutor(32) as pool:
        answers = [pool.submit(session, service, token) for _ in range(32)]
        done = as_completed(answers, timeout=4)  # the issuer's own time-out is 5 s
        at_once = [next(done).result() for _ in range(32 - 1 - WAITING)]
        assert {(answer.status, answer.code) for answer in at_once} == {(503, "issuer_unavailable")}
        issuer.silent.set()
    assert sum(answer.result().status == 200 for answer in answers) == 1 + WAITING


def test_known_keys_are_used_while_the_issuer_is_silent(service: Service, issuer: Issuer) -> None:
    """A stranger's token with an unknown key id, and keys that are to be fetched again, delay nobody else's token."""
    token = issuer.token(exp=service.clock.now.timestamp() + 7200)
    session(service, token).ok()
    issuer.silent = threading.Event()
    service.clock.now += timedelta(minutes=11)
    with ThreadPoolExecutor(2) as pool:
        stranger = pool.submit(session, service, issuer.token(headers={"kid": "unknown"}))
        while issuer.asked["/.well-known/openid-configuration"] != 2:
            assert not stranger.done()
        assert pool.submit(session, service, token).result(4).status == 200
        assert not stranger.done()
        issuer.silent.set()
    assert stranger.result().status == 401


@pytest.mark.parametrize(
    "lie",
    [
        {"issuer": "https://other.example.com"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
        {"jwks_uri": "ftp://127.0.0.1/keys"},
    ],
)
def test_an_inconsistent_discovery_document_is_not_used(service: Service, issuer: Issuer, lie: dict[str, Any]) -> None:
    issuer.discovery = lie
    assert session(service, issuer.token()).code == "issuer_unavailable"


def test_no_redirect_is_followed_to_other_keys(service: Service, issuer: Issuer) -> None:
    with run_issuer() as attacker:
        issuer.redirect_keys_to = f"{attacker.url}/keys"
        assert session(service, issuer.token()).code == "issuer_unavailable"
        assert not attacker.asked


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")  # the test signs with the weak key on purpose
def test_weak_keys_and_encryption_keys_of_the_set_are_ignored(service: Service, issuer: Issuer) -> None:
    issuer.keys["weak"] = certs.key("RSA-1024", 906)
    issuer.more_keys = [{**jwk("enc", certs.key("P-256", 907)), "use": "enc"}, {"kty": "RSA"}, {"kid": "x"}]
    assert "no such key" in refused(service, issuer.token(signer="weak"))
    encryption = issuer.token(signer=certs.key("P-256", 907), algorithm="ES256", headers={"kid": "enc"})
    assert "no such key" in refused(service, encryption)
    assert session(service, issuer.token()).status == 200


def test_a_key_is_used_for_its_own_algorithm_only(service: Service, issuer: Issuer) -> None:
    """An RSA key for PS256 does not verify RS256 (RFC 7517, 4.4)."""
    issuer.more_keys = [{**jwk("marked", certs.key("RSA-2048", 908)), "alg": "PS256"}]
    signer = certs.key("RSA-2048", 908)
    refused(service, issuer.token(signer=signer, headers={"kid": "marked"}))
    assert session(service, issuer.token(signer=signer, algorithm="PS256", headers={"kid": "marked"})).status == 200


# ------------------------------------------------------------------------------------------------- without an issuer


def test_without_an_issuer_no_token_is_accepted(tmp_path: Path, issuer: Issuer) -> None:
    plain = make_current_service(tmp_path / "plain")
    try:
        answer = session(plain, issuer.token())
        assert (answer.status, answer.code) == (401, "not_authenticated")
        assert plain.anonymous.get("//signin").ok() == {}
        assert not issuer.asked
    finally:
        plain.app.close()


def test_without_a_client_id_tokens_are_accepted_and_no_sign_in_is_named(tmp_path: Path, issuer: Issuer) -> None:
    made = make_current_service(tmp_path / "other", oidc=Oidc(issuer.url, AUDIENCE))
    try:
        assert session(made, issuer.token()).status == 200
        assert Client(made.app).get("//signin").ok() == {}
    finally:
        made.app.close()

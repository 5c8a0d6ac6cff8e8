"""Every dialect with every outcome, in the broker's own format.

A dialect without a word for `continue` refuses; another authenticator asks for the password there.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from msgspec import structs

from functions.web.body import body_too_large
from shared.errors import StoreUnavailable
from shared.records import Proof
from tests.functions.dialects.recorded import FOLDER, LISTENER, Recorded
from tests.support import certs
from tests.support.harness import Answer, Client, Service

pytestmark = pytest.mark.stores("sqlite")  # a verdict reads each store in the same way (test_verify_client.py)

ROOT = certs.ca("Root")
DEVICE = certs.leaf("d:thermo:42", ROOT)
TOKEN_TOO = "TLS with Token and Client Certificate Authentication"
CERTIFICATE_OR_TOKEN = "TLS with Client Certificate or Token"

Expectation = Callable[[Answer], bool]


def is_json(status: int, **expected: Any) -> Expectation:
    """Expect a status, JSON, and these fields among others."""

    def matches(answer: Answer) -> bool:
        assert answer.reply.content_type == "application/json"
        document = answer.json
        return answer.status == status and {name: document.get(name) for name in expected} == expected

    return matches


def is_text(text: str) -> Expectation:
    return lambda answer: (answer.status, answer.text, answer.reply.content_type[:10]) == (200, text, "text/plain")


def is_status(status: int) -> Expectation:
    return lambda answer: answer.status == status


@dataclass(frozen=True)
class Dialect:
    """A dialect's row. *by_names*: the key is made with `--proof broker`."""

    request: Recorded
    allowed: Expectation
    denied: Expectation
    continued: Expectation
    by_names: bool = False
    malformed: Recorded | None = None

    @property
    def key(self) -> dict[str, Any]:
        """What the key of this dialect is made with."""
        return {"proof": Proof.BROKER, "listener": LISTENER} if self.by_names else {}

    bad_key: Expectation | None = None  # the native form uses HTTP's own status
    too_large: Expectation | None = None
    bad_form: Expectation | None = None


_MOSQUITTO_NO = is_json(403, ok=False)
_AWS_NO = is_json(200, isAuthenticated=False, policyDocuments=[])
ALLOW, DENY = is_text("allow"), is_text("deny")
VERNE_NO = is_json(200, result={"error": "not_allowed"})

TABLE = {
    "native": Dialect(
        Recorded("native"),
        is_json(200, decision="allow"),
        is_json(200, decision="deny"),
        is_json(200, decision="continue"),
        bad_key=is_status(401),
        too_large=is_status(413),
        bad_form=is_status(400),
    ),
    "emqx": Dialect(
        Recorded("emqx"), is_json(200, result="allow"), is_json(200, result="deny"), is_json(200, result="ignore")
    ),
    "emqx by names": Dialect(
        Recorded("emqx_names"),
        is_json(200, result="allow"),
        is_json(200, result="deny"),
        is_json(200, result="ignore"),
        by_names=True,
    ),
    "rabbitmq user": Dialect(Recorded("rabbitmq_user"), ALLOW, DENY, DENY, by_names=True),
    # A connected client has passed the token stage, so `continue` allows its own topics.
    "rabbitmq vhost": Dialect(Recorded("rabbitmq_vhost"), ALLOW, DENY, ALLOW, by_names=True),
    "rabbitmq resource": Dialect(Recorded("rabbitmq_resource"), ALLOW, DENY, ALLOW, by_names=True),
    "rabbitmq topic": Dialect(Recorded("rabbitmq_topic"), ALLOW, DENY, ALLOW, by_names=True),
    "vernemq": Dialect(
        Recorded("vernemq"), is_json(200, result="ok"), VERNE_NO, is_json(200, result="next"), by_names=True
    ),
    "vernemq m5": Dialect(
        Recorded("vernemq_m5"), is_json(200, result="ok"), VERNE_NO, is_json(200, result="next"), by_names=True
    ),
    "vernemq publish": Dialect(
        Recorded("vernemq_publish"), is_json(200, result="ok"), VERNE_NO, is_json(200, result="ok"), by_names=True
    ),
    "vernemq subscribe": Dialect(
        Recorded("vernemq_subscribe"), is_json(200, result="ok"), VERNE_NO, is_json(200, result="ok"), by_names=True
    ),
    # mosquitto asks getuser only if the name was typed, and superuser has no meaning here: every client is refused.
    "mosquitto getuser": Dialect(
        Recorded("mosquitto_getuser"), _MOSQUITTO_NO, _MOSQUITTO_NO, _MOSQUITTO_NO, by_names=True
    ),
    "mosquitto superuser": Dialect(
        Recorded("mosquitto_superuser"), _MOSQUITTO_NO, _MOSQUITTO_NO, _MOSQUITTO_NO, by_names=True
    ),
    "mosquitto aclcheck": Dialect(
        Recorded("mosquitto_aclcheck"), is_json(200, ok=True), _MOSQUITTO_NO, is_json(200, ok=True), by_names=True
    ),
    "mosquitto aclcheck form": Dialect(
        Recorded("mosquitto_aclcheck_form"), is_json(200, ok=True), _MOSQUITTO_NO, is_json(200, ok=True), by_names=True
    ),
    "envoy": Dialect(
        Recorded("envoy"),
        lambda answer: (answer.status, answer.reply.headers["X-Client-Identity"]) == (200, "d:thermo:42"),
        is_status(403),
        is_status(403),
        malformed=Recorded("envoy", headers={"x-forwarded-client-cert": 'Cert="$PEM_URL",Cert="$PEM_URL"'}),
    ),
    "nginx": Dialect(
        Recorded("nginx"),
        lambda answer: (answer.status, answer.reply.body) == (204, b""),
        is_status(403),
        is_status(403),
        malformed=Recorded("nginx", headers={"x-client-cert": "%zz%ff-----BEGIN"}),
    ),
    "aws-iot": Dialect(Recorded("aws_iot"), is_json(200, isAuthenticated=True), _AWS_NO, _AWS_NO),
}


@pytest.fixture(params=TABLE)
def row(request: pytest.FixtureRequest) -> Dialect:
    return TABLE[request.param]


@pytest.fixture
def ask(service: Service, operator: Client, row: Dialect) -> Callable[..., Answer]:
    """Send the row's request with a suitable key; the organization trusts ROOT."""
    operator.post("/authentication/cacertificates", {"certificate": ROOT.pem}).ok(201)
    client = service.client("broker", **row.key)

    def send(recorded: Recorded | None = None, client: Client = client) -> Answer:
        return (recorded or row.request).send(client, DEVICE)

    return send


def level(operator: Client, name: str) -> None:
    operator.put("/authorization/connectionpolicy", {"default": name}).ok()


def test_every_recorded_request_is_in_the_table() -> None:
    """Each file names its documentation, which is asserted when the request is sent."""
    assert {row.request.name for row in TABLE.values()} == {path.stem for path in FOLDER.iterdir()}


def test_allow(ask: Callable[..., Answer], row: Dialect) -> None:
    answer = ask()
    assert row.allowed(answer), answer.text
    assert answer.reply.headers["Cache-Control"] == "no-store"


def test_deny(operator: Client, ask: Callable[..., Answer], row: Dialect) -> None:
    """The deny list's identities are in force in every dialect."""
    operator.post("/authorization/denylist", {"kind": "identity", "value": "d:thermo:42"}).ok(201)
    answer = ask()
    assert row.denied(answer), answer.text


def test_continue(operator: Client, ask: Callable[..., Answer], row: Dialect) -> None:
    """The certificate part is satisfied; the token is asked for next."""
    level(operator, TOKEN_TOO)
    answer = ask()
    assert row.continued(answer), answer.text


def test_bad_key(service: Service, ask: Callable[..., Answer], row: Dialect) -> None:
    right = service.client("broker")
    strangers = [
        replace(right, token="wrong"),
        replace(right, key="a-mtxpd0-nobody0000"),
        replace(right, key="root"),
        service.anonymous,
        service.client("operator"),
        service.client("edge"),
    ]
    is_expected = row.bad_key or row.denied
    for stranger in strangers[:4]:
        answer = ask(client=stranger)
        assert is_expected(answer), answer.text
    for stranger in strangers[4:]:
        answer = ask(client=stranger)
        assert (is_status(403) if row.bad_key else row.denied)(answer), answer.text


def test_body_too_large(ask: Callable[..., Answer], row: Dialect) -> None:
    """The host dropped the body, or the body is too large here."""
    is_expected = row.too_large or row.denied
    answer = ask(replace(row.request, refusal=body_too_large(), body=b""))
    assert is_expected(answer), answer.text
    if row.malformed is None:
        answer = ask(replace(row.request, body=b'{"a": "' + b"x" * (256 * 1024) + b'"}'))
        assert is_expected(answer), answer.text


def test_malformed(ask: Callable[..., Answer], row: Dialect) -> None:
    is_expected = row.bad_form or row.denied
    if row.malformed is not None:
        requests = [row.malformed]
    else:
        requests = [
            replace(row.request, body=body, headers={"content-type": media})
            for body, media in [
                (b"{", "application/json"),
                (b"", "application/json"),
                (b"[1]", "application/json"),
                (b"[" * 100_000, "application/json"),
                (b"\xff\x00", "application/json"),
                (
                    b'{"username": 1, "clientid": [], "cert_pem": {}, "protocolData": 3, "acc": true}',
                    "application/json",
                ),
                (b"&".join(b"a=b" for _ in range(1000)), "application/x-www-form-urlencoded"),
                (b"%%%", "application/x-www-form-urlencoded"),
                (b"<a/>", "text/xml"),
            ]
        ]
    for request in requests:
        answer = ask(request)
        assert is_expected(answer) or (answer.status == 415 and row.bad_form), (request.body, answer.text)


def test_store_down(
    service: Service, ask: Callable[..., Answer], row: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_: object) -> Any:
        raise StoreUnavailable

    monkeypatch.setattr(service.store, "get_many", down)
    answer = ask()
    assert row.denied(answer), answer.text


@pytest.mark.parametrize(
    "row",
    [name for name in TABLE if name != "mosquitto superuser"],  # does not read the store
    indirect=True,
)
def test_exception(
    service: Service,
    ask: Callable[..., Answer],
    row: Dialect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An unexpected error refuses the client. Its text, which may quote a secret, is in neither answer nor log."""

    secret = "-in-an-".join(("secret", "error"))  # a traceback shows the line that raises

    def mistaken(_: object) -> Any:
        raise RuntimeError(secret)

    monkeypatch.setattr(service.store, "get_many", mistaken)
    answer = ask()
    assert row.denied(answer), answer.text
    assert secret not in caplog.text + answer.text
    assert "RuntimeError" in caplog.text


def test_timeout(service: Service, ask: Callable[..., Answer], row: Dialect, hanging: threading.Event) -> None:
    """While the store hangs, the client is refused after the time limit, which test_deadline.py tests."""
    structs.force_setattr(service.app, "verdict_seconds", 0.05)
    answer = ask()
    assert row.denied(answer), answer.text


@pytest.mark.parametrize(
    "row",
    [name for name, row in TABLE.items() if not row.bad_key],  # the native form answers 404 and 405
    indirect=True,
)
def test_a_wrong_path_or_method_is_refused_in_the_dialect_too(service: Service, row: Dialect) -> None:
    """A broker with a mistake in its configuration must not read an error as "ask the next authenticator"."""
    path = json.loads((FOLDER / f"{row.request.name}.json").read_text())["path"]
    for method, where in [("POST", f"/{path}/no/such/thing"), ("DELETE", f"/{path}"), ("POST", f"//api/v0002{path}/x")]:
        answer = service.client("broker").send(method, where)
        assert row.denied(answer), (method, where, answer.text)

"""Invalid input is answered with a 4xx problem document that names the mistake, and never with a 500."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.web.body import Body
from functions.web.contract import Route
from infra.openapi import document
from tests.functions.addresses import ROUTES, client_path, handler_of
from tests.support import certs
from tests.support.harness import Answer, Client, Service, multipart

pytestmark = pytest.mark.stores("sqlite")  # bad input reaches no store

ROOT = certs.ca("Root")
CODES = set(document()["components"]["schemas"]["Code"]["enum"])
# Bodies of this API's own format; Envoy and brokers may send more fields than are read.
WITH_BODY = [route for route in ROUTES if issubclass(route.endpoint.body or object, Body)]
WITH_ID = [route for route in ROUTES if "{id}" in route.path]


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def fields_of(route: Route) -> list[str]:
    body = route.endpoint.body
    assert body is not None
    return [field.encode_name for field in msgspec.structs.fields(body)]


def send(client: Client, route: Route, body: bytes, content_type: str = "application/json", item: str = "x") -> Answer:
    path = client_path(route, id=item)
    return client.send(route.method, path, body, headers={"content-type": content_type, "if-match": "*"})


def caller(service: Service, route: Route) -> Client:
    return service.client({"verifyClient": "broker", "edgeFeed": "edge"}.get(route.endpoint.function, "operator"))


def check_problem(answer: Answer, *statuses: int) -> None:
    """Check for an RFC 9457 document with a documented code and a sentence."""
    assert answer.status in statuses, answer.text
    assert answer.reply.content_type == "application/problem+json"
    document = answer.json
    assert set(document) <= {"type", "title", "status", "detail", "code", "violations"}
    assert (document["type"], document["status"]) == (f"/docs/errors/{document['code']}", answer.status)
    assert document["code"] in CODES
    assert document["detail"].strip()
    for violation in document.get("violations", ()):
        assert set(violation) == {"field", "code", "message"}


DEEP = b'{"certificate":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
NOISE = bytes((n * 7919 + 13) % 256 for n in range(4096))
BODIES: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "malformed_body", "The body cannot be read as JSON: it is empty."),
    "not JSON": (b"certificate=abc", "malformed_body", "The body cannot be read as JSON: "),
    "cut off": (b'{"certificate": "', "malformed_body", "The body cannot be read as JSON: "),
    "an array": (b"[]", "malformed_body", "The body cannot be read as JSON: it is no object."),
    "null": (b"null", "malformed_body", "The body cannot be read as JSON: it is no object."),
    "a text": (b'"abc"', "malformed_body", "The body cannot be read as JSON: it is no object."),
    "nested": (DEEP, "malformed_body", "The body cannot be read as JSON: "),
    "noise": (NOISE, "malformed_body", "The body cannot be read as JSON: "),
    "half a surrogate": (b'{"comments": "\\ud800"}', "malformed_body", "The body cannot be read as JSON: "),
    "not UTF-8": (b'{"comments": "\xff\xfe"}', "malformed_body", "The body cannot be read as JSON: "),
    "unknown field": (b'{"colour": "red"}', "unknown_field", "This call has no field colour. It takes "),
    "__proto__": (b'{"__proto__": {}}', "unknown_field", "This call has no field __proto__. It takes "),
}


@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
def test_bodies_that_cannot_be_read(service: Service, route: Route) -> None:
    """400 with the mistake. For an unknown field, the answer names it and the known fields."""
    client = caller(service, route)
    for case, (body, code, sentence) in BODIES.items():
        answer = send(client, route, body)
        check_problem(answer, 400)
        assert answer.code == code, case
        assert answer.json["detail"].startswith(sentence), case
        if code == "unknown_field":
            assert answer.json["detail"].endswith(f"It takes {', '.join(fields_of(route))}.")


@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
def test_wrong_types(service: Service, route: Route) -> None:
    """400 with the name of the field, for each field of each endpoint."""
    client = caller(service, route)
    for name in fields_of(route):
        values: list[Any] = [5, 1e400, [5], {"x": {}}, [[[]]]]
        for value in values:
            answer = send(client, route, json.dumps({name: value}).replace("Infinity", "1e400").encode())
            check_problem(answer, 400)
            if answer.code == "wrong_value":
                assert answer.json["violations"][0]["field"].startswith(name)


@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
def test_sizes_and_kinds_of_bodies(service: Service, route: Route) -> None:
    """1 MiB is a 413, an unsupported content type a 415, a malformed form a 400."""
    client = caller(service, route)
    check_problem(send(client, route, b'{"certificate": "' + b"x" * 1024 * 1024 + b'"}'), 413)
    big_form = multipart({"certificate": b"x" * 1024 * 1024})
    check_problem(send(client, route, big_form[1], big_form[0]), 413)
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/xml", "", "x" * 5000, "é"):
        check_problem(send(client, route, b"{}", content_type), 415)
    part = b'--x\r\nContent-Disposition: form-data; name="certificate"\r\n'
    for content_type, body in (
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=", b"--x--"),
        ("multipart/form-data; boundary=" + "x" * 300, b""),
        ("multipart/form-data; boundary=x", b"{}"),
        ("multipart/form-data; boundary=x", NOISE),
        ("multipart/form-data; boundary=x", part),
        ("multipart/form-data; boundary=x", part + b"\r\nabc"),
        ("multipart/form-data; boundary=x", part + b"\r\nabc\r\n--x\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nabc\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", part + b"Content-Transfer-Encoding: base64\r\n\r\n!\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x; boundary=y", b"--z\r\n"),
    ):
        check_problem(send(client, route, body, content_type), 400)
    colour = multipart({"colour": "red", "shape": b"round"})
    answer = send(client, route, colour[1], colour[0])
    check_problem(answer, 400)
    assert answer.code == "unknown_field"


def test_a_truncated_form_is_refused(operator: Client) -> None:
    """The missing part may have been a field."""
    content_type, body = multipart({"certificate": ROOT.pem, "comments": "the CA of plant 1"})
    headers = {"content-type": content_type}
    for cut in (10, 60, 200):
        answer = operator.send("POST", "/uploadCA", body[:-cut], headers=headers)
        check_problem(answer, 400)
        assert answer.json["detail"].startswith("The body cannot be read as multipart/form-data: its end is missing.")
    operator.send("POST", "/uploadCA", body.removesuffix(b"\r\n"), headers=headers).ok(201)


def test_a_body_that_is_not_needed_is_not_read(operator: Client) -> None:
    """Renewal takes no fields."""
    answer = operator.send("POST", "/authentication/servercertificates/x/renewal", NOISE)
    check_problem(answer, 404)


@pytest.mark.parametrize("route", WITH_ID, ids=name_of)
def test_hostile_ids(service: Service, route: Route) -> None:
    """Text that is no id is not found, whatever it means to a file system, a store or a template."""
    client = caller(service, route)
    bodies: dict[str, dict[str, Any]] = {
        "fulfill_csr": {"certificate": ROOT.pem},
        "change_server": {"comments": "x"},
    }
    body = json.dumps(bodies.get(handler_of(route), {})).encode()
    for item in (
        "..",
        ".",
        "%2e%2e",
        "%2E",
        "%00",
        "a%00b",
        "..%2F..%2Forg",
        "%2F",
        "%5c..%5c",
        "%ff",
        "%E2%80%AE",
        "é",
        "%D0%B0",
        "\x1f",
        "%1F",
        "mtxpd0",
        "platform",
        "__proto__",
        "__x__",
        "{id}",
        "%7Bid%7D",
        "'%20OR%201=1--",
        "*",
        "s-",
        "s--",
        "f-",
        "-",
        "x" * 5000,
        "0" * 33,
    ):
        answer = send(client, route, body, item=item)
        check_problem(answer, 404)
        assert answer.code == "not_found"


@pytest.mark.parametrize("item", ["..", "%00", "a%2Fb", "__x__", "x" * 5000])
def test_a_malformed_id_never_reaches_a_store(service: Service, operator: Client, item: str) -> None:
    """Stores have their own rules for keys. Only the caller's own record is read."""
    for method, path in (("GET", "/authentication/cacertificates"), ("DELETE", "/authorization/denylist")):
        before = service.store.calls.total()
        check_problem(operator.send(method, f"{path}/{item}"), 404)
        assert service.store.calls.total() - before == 1


# --------------------------------------------------------------------------------------------------------- fuzz


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
LIKELY = st.sampled_from(
    [
        ROOT.pem,
        ROOT.pem[:100],
        ROOT.key_pem,
        certs.leaf("d:thermo:42", ROOT).pem,
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----",
        "MAA=",
        "default",
        "d:mtxpd0:thermo:42",
        "mtxpd0.messaging.example.com",
        "P-256",
        "identity",
        "serial",
        "inactive",
        "TLS Optional",
        "\0",
        "",
    ]
)
FUZZED = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def check_fuzzed(answer: Answer) -> None:
    if answer.status >= 400:
        check_problem(answer, 400, 404, 409, 413, 415, 422, 429)
    else:
        assert answer.status in (200, 201)


@FUZZED
@given(data=st.data())
def test_any_json_is_answered(service: Service, operator: Client, broker: Client, data: st.DataObject) -> None:
    """Objects with the endpoint's own fields, and random or plausible values."""
    clients = {"verifyClient": broker, "edgeFeed": service.client("edge")}
    for route in WITH_BODY:
        values = data.draw(st.dictionaries(st.sampled_from(fields_of(route)), LIKELY | JSON_VALUES, max_size=4))
        if route.endpoint.function == "generateCSR":
            values["keyAlgorithm"] = "P-256"  # an RSA key takes long to generate
        check_fuzzed(send(clients.get(route.endpoint.function, operator), route, json.dumps(values).encode()))


@FUZZED
@given(
    body=st.binary(max_size=200),
    parts=st.lists(
        st.sampled_from(
            [
                b"--x",
                b"--x--",
                b"\r\n",
                b"\r\n\r\n",
                b"\n",
                b'Content-Disposition: form-data; name="certificate"',
                b'Content-Disposition: form-data; name="comments"; filename="a"',
                b"Content-Type: text/plain; charset=utf-16",
                b"Content-Transfer-Encoding: quoted-printable",
                b"Content-Transfer-Encoding: base64",
                b"=ZZ",
            ]
        ),
        max_size=12,
    ),
    content_type=st.sampled_from(
        ["application/json", "multipart/form-data; boundary=x", 'multipart/form-data; boundary="x"', "a/b+json"]
    ),
)
def test_any_bytes_are_answered(operator: Client, body: bytes, parts: list[bytes], content_type: str) -> None:
    for sent in (body, b"".join(parts), b"".join([*parts, body, *parts])):
        answer = operator.send("POST", "/uploadCA", sent, headers={"content-type": content_type})
        check_problem(answer, 400, 422)


@FUZZED
@given(at=st.integers(0, len(ROOT.der) - 1), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_any_damaged_certificate_is_answered(operator: Client, broker: Client, at: int, value: int, cut: int) -> None:
    """As a CA, in a preview, and from a device."""
    damaged = bytearray(ROOT.der)
    damaged[at] = value
    sent = bytes(damaged[: len(damaged) - cut])
    check_fuzzed(operator.form("/authentication/cacertificates", {"certificate": sent}))
    check_fuzzed(operator.form("/authentication/preview", {"certificate": sent}))
    check_fuzzed(operator.form("/authorization/denylist", {"certificate": sent}))
    verdict = broker.form("/verifyClient", {"certificateDer": sent, "serverName": "mtxpd0.messaging.example.com"}).ok()
    assert verdict["decision"] == "deny"


@FUZZED
@given(
    path=st.text(st.sampled_from("/%.{}?#&=\0\x7f") | st.characters(codec="latin-1"), max_size=40),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"]),
)
def test_any_path_is_answered(operator: Client, path: str, method: str) -> None:
    for start in ("/", "/authentication/cacertificates/", "/authorization/denylist/", "//"):
        answer = operator.send(method, (start + path).split("?")[0], b"{}", headers={"if-match": "*"})
        assert answer.status < 500

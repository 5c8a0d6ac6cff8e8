"""A function that is deployed alone refuses addresses as the whole service does.

API gateways and load balancers route by method and path template, and every other request to health.
"""

import json

import pytest

from functions.dispatch import Dispatcher
from functions.registry import PREFIX
from functions.web.body import body_too_large
from functions.web.message import Reply, Request
from tests.support.harness import Service

CAS = f"{PREFIX}/authentication/cacertificates"
SERVERS = f"{PREFIX}/authentication/servercertificates"


def send(service: Service, function: str | None, method: str, path: str, *, too_large: bool = False) -> Reply:
    request = Request(method, path, scheme="https", refusal=body_too_large() if too_large else None)
    return Dispatcher(lambda: service.app, function).dispatch(request)


def code_of(reply: Reply) -> str:
    code: str = json.loads(reply.body)["code"]
    return code


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", f"{SERVERS}/csr", "POST"),
        ("PUT", f"{SERVERS}/csr", "POST"),
        ("DELETE", f"{SERVERS}/csr", "POST"),
        ("DELETE", f"{SERVERS}/active", "GET, PUT"),
    ],
)
@pytest.mark.parametrize("function", ["manageCertificates", None])
def test_an_address_of_another_function_is_no_id(
    service: Service, function: str | None, method: str, path: str, allow: str
) -> None:
    """`…/{id}` of manageCertificates matches these paths too, and a gateway routes the methods that are left there."""
    reply = send(service, function, method, path)
    assert (reply.status, reply.headers["Allow"]) == (405, allow)


def test_an_address_of_another_function_is_not_found(service: Service) -> None:
    """A gateway routes each of these requests to the other function."""
    for function, method, path in (
        ("manageCertificates", "GET", f"{SERVERS}/active"),
        ("manageCertificates", "POST", CAS),
        ("uploadCA", "GET", CAS),
        ("health", "POST", CAS),
        ("health", "POST", "/verifyClient/emqx"),
    ):
        reply = send(service, function, method, path)
        assert (reply.status, code_of(reply)) == (404, "not_found"), (function, method, path)


@pytest.mark.parametrize("too_large", [False, True], ids=["small", "too large"])
@pytest.mark.parametrize("function", ["health", None])
def test_an_unknown_address_is_not_found_whatever_is_sent(
    service: Service, function: str | None, too_large: bool
) -> None:
    """404 for an address that no function has, 405 for a method that an address does not take; never 413."""
    for path in ("/nowhere", f"{PREFIX}/nowhere", f"{CAS}/a/b"):
        reply = send(service, function, "POST", path, too_large=too_large)
        assert (reply.status, code_of(reply)) == (404, "not_found"), path
    for path, allow in (
        (CAS, "GET, POST"),
        ("/uploadCA", "POST"),
        (f"{CAS}/x", "DELETE, GET, PUT"),
        ("/signin", "GET"),
    ):
        reply = send(service, function, "PATCH", path, too_large=too_large)
        assert (reply.status, reply.headers["Allow"]) == (405, allow), path

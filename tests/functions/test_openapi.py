"""GET /openapi.json: the description is valid, complete and correct."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator

from functions.registry import PREFIX
from functions.web.contract import PUBLIC, Route
from infra.table import FUNCTIONS
from shared.errors import every_error
from shared.records import Role
from tests.functions.addresses import ROUTES
from tests.support import certs
from tests.support.harness import Answer, Client, Service

pytestmark = pytest.mark.stores("sqlite")  # the description is the same on each store

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"
HOST = "mtxpd0.messaging.example.com"
ROOT = certs.ca("Root")
METHODS = ("get", "put", "post", "delete")


@pytest.fixture
def api(service: Service) -> dict[str, Any]:
    document: dict[str, Any] = service.anonymous.get("//openapi.json").ok()
    return document


def operations(api: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in api["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def described_path(route: Route) -> str:
    return route.path.replace("{*", "{")


def is_dialect(path: str) -> bool:
    """Whether every reply, refusals too, is in a broker's own format."""
    return path.startswith(f"{PREFIX}/verifyClient/")


def test_the_description_is_valid(api: dict[str, Any]) -> None:
    """OpenAPI 3.1, whose schemas are JSON Schema 2020-12."""
    assert api["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(api).validate()
    for schema in api["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


PEOPLE = {Role.VIEWER, Role.OPERATOR}


def test_every_route_is_described(api: dict[str, Any]) -> None:
    """With its method, its function as tag, a unique name, and its roles. Nothing else is described."""
    described = {(method.upper(), path): operation for method, path, operation in operations(api)}
    assert set(described) == {(route.method, described_path(route)) for route in ROUTES}
    for route in ROUTES:
        operation = described[route.method, described_path(route)]
        assert operation["tags"] == [route.endpoint.function]
        signed_in: list[dict[str, list[str]]] = (
            [{"signIn": []}] if route.endpoint.roles & PEOPLE else []
        )  # people can sign in; brokers and edges have keys
        assert operation["security"] == ([] if route.endpoint.roles == PUBLIC else [{"apiKey": []}, *signed_in])
        for role in route.endpoint.roles:
            assert role in operation["description"]
        assert ("{" in route.path) == any(parameter["in"] == "path" for parameter in operation["parameters"])
    names = [operation["operationId"] for operation in described.values()]
    assert len(names) == len(set(names))


def test_the_allowed_methods_are_the_described_ones(api: dict[str, Any], operator: Client) -> None:
    """405, with exactly the described methods of the address in Allow (RFC 9110, 10.2.1)."""
    for path, methods in api["paths"].items():
        if not is_dialect(path):
            answer = operator.send("OPTIONS", f"/{path}".replace("{id}", "x").replace("{serverName}", "x"))
            assert answer.status == 405
            assert set(answer.reply.headers["Allow"].split(", ")) == {method.upper() for method in methods}, path


def test_every_code_is_listed(api: dict[str, Any]) -> None:
    """With the codes of verdicts and of unexpected errors."""
    listed = set(api["components"]["schemas"]["Code"]["enum"])
    loaded = {module for function in FUNCTIONS for module in function.modules}  # commands have errors of their own
    assert {error.code for error in every_error() if error.__module__ in loaded} | {
        "allowed",
        "token_required",
        "internal",
        "key_not_opened",
    } <= listed


def test_every_route_with_a_caller_describes_its_refusals(api: dict[str, Any]) -> None:
    for method, path, operation in operations(api):
        statuses = set(operation["responses"])
        if is_dialect(path):
            continue
        if operation["security"]:
            assert {"401", "403", "503"} <= statuses, (method, path)
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= statuses, (method, path)
            assert set(operation["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
        if "{id}" in path:
            assert "404" in statuses, (method, path)


def resolved(api: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def named(api: dict[str, Any], schema: Any, visited: frozenset[str] = frozenset()) -> Iterator[str]:
    """Return the names of all fields in a schema, at every depth."""
    if isinstance(schema, list):
        for part in schema:
            yield from named(api, part, visited)
    elif isinstance(schema, dict):
        ref = schema.get("$ref", "")
        if ref and ref not in visited:
            yield from named(api, resolved(api, schema), visited | {ref})
        properties = schema.get("properties")
        yield from properties if isinstance(properties, dict) else ()
        for part in schema.values():
            if isinstance(part, dict | list):
                yield from named(api, part, visited)


def test_no_answer_has_a_field_for_a_secret(api: dict[str, Any]) -> None:
    """No private key, passphrase or token; the field `key` names the caller's own API key. Digests are of public keys.

    The host of edgeFeed is the only answer with a private key (and Envoy's secrets, in Envoy's format).
    """
    answered: set[str] = set()
    for _, path, operation in operations(api):
        if path == "/edge/v1/hosts/{serverName}":
            [media] = operation["responses"]["200"]["content"].values()
            assert "privateKey" in set(named(api, media["schema"]))
            continue
        for response in operation["responses"].values():
            for media in response.get("content", {}).values():
                answered |= set(named(api, media["schema"]))
    assert {"fingerprintSha256", "keyAlgorithm", "decision"} <= answered  # the walk reaches the fields
    secret = ("private", "passphrase", "token", "secret", "password", "sealed", "pkcs")
    assert [name for name in answered if any(word in name.lower() for word in secret)] == []
    assert {name for name in answered if "key" in name.lower()} == {"keyAlgorithm", "key", "keyDigest", "keyDigests"}


class Checked:
    """Sends like a client, and compares every answer with the description."""

    def __init__(self, api: dict[str, Any], client: Client) -> None:
        self._api = api
        self._client = client
        self.calls: set[tuple[str, str, int]] = set()

    def __call__(self, method: str, template: str, fields: Any = None, *, item: str = "", **more: Any) -> Answer:
        body = b"" if fields is None else json.dumps(fields).encode()
        answer = self._client.send(method, template.replace("{id}", item), body, **more)
        whole = template[1:] if template.startswith("//") else PREFIX + template
        self._check(answer, self._api["paths"][whole][method.lower()]["responses"])
        self.calls.add((method, template, answer.status))
        return answer

    def _check(self, answer: Answer, responses: dict[str, Any]) -> None:
        documented = responses[str(answer.status)]
        content = documented.get("content")
        if content is None:
            assert answer.reply.body == b""
            return
        schema = content[answer.reply.content_type]["schema"]
        if answer.status >= 400:
            assert answer.code in documented["description"].split(", ")
        if answer.reply.content_type.endswith("json"):
            whole = {**schema, "components": self._api["components"]}
            Draft202012Validator(whole).validate(answer.json)
            unknown = set(answer.json) - set(named(self._api, schema))
            assert not unknown or schema == {"type": "object"}


def test_real_calls_are_answered_as_described(
    api: dict[str, Any], operator: Client, broker: Client, service: Service
) -> None:
    """Status, content type, code and every field, of accepted and of refused calls."""
    do = Checked(api, operator)
    any_version = {"if-match": "*"}
    ca = do("POST", CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    do("POST", CAS, {"certificate": ROOT.pem}).ok(200)
    do("POST", CAS, {"certificate": "nonsense"})
    do("POST", CAS, {"certificate": "x" * 70_000})
    do("POST", CAS, {"colour": "red"})
    do("POST", "/uploadCA", {"certificate": ROOT.pem}).ok(200)
    do("GET", CAS).ok()
    do("GET", f"{CAS}/{{id}}", item=ca).ok()
    do("GET", f"{CAS}/{{id}}", item="x")
    do("GET", f"{CAS}/{{id}}/pem", item=ca)
    do("PUT", f"{CAS}/{{id}}", {"comments": "x"}, item=ca)
    do("PUT", f"{CAS}/{{id}}", {"comments": "x"}, item=ca, headers={"if-match": '"0"'})
    do("PUT", f"{CAS}/{{id}}", {"comments": "x"}, item=ca, headers=any_version).ok()
    do("PUT", f"{CAS}/{{id}}", {"status": "inactive"}, item=ca, query={"dryrun": "true"}).ok()
    do("DELETE", f"{CAS}/{{id}}", item=ca, query={"dryrun": "true"}).ok()
    do("DELETE", f"{CAS}/{{id}}", item=ca, headers={"if-match": '"0"'})

    server = certs.server(HOST, ROOT)
    upload = {"certificate": server.pem, "privateKey": server.key_pem, "chain": ROOT.pem}
    server_id = do("POST", SERVERS, upload).ok(201)["id"]
    do("POST", SERVERS, upload).ok(200)
    do("POST", SERVERS, {"certificate": server.pem})
    csr = do("POST", f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201)["id"]
    do("POST", f"{SERVERS}/csr", {"country": "Germany"})
    do("GET", SERVERS).ok()
    do("GET", SERVERS, query={"limit": "0"})
    do("GET", f"{SERVERS}/{{id}}", item=csr).ok()
    do("GET", f"{SERVERS}/{{id}}/csr", item=csr)
    do("GET", f"{SERVERS}/{{id}}/pem", item=csr)
    do("PUT", f"{SERVERS}/{{id}}", {"comments": "x"}, item=server_id, headers=any_version).ok()
    do("PUT", f"{SERVERS}/{{id}}/certificate", {"certificate": server.pem}, item=csr)
    do("POST", f"{SERVERS}/{{id}}/renewal", item=server_id).ok(201)
    do("POST", f"{SERVERS}/{{id}}/renewal", item=csr)
    do("PUT", f"{SERVERS}/active", {"id": server_id}).ok()
    do("PUT", f"{SERVERS}/active", {"id": csr})
    do("PUT", f"{SERVERS}/active", {"id": "x"})
    do("PUT", f"{SERVERS}/active", {"id": "default"}, headers={"if-match": '"0"'})
    do("GET", f"{SERVERS}/active").ok()
    do("DELETE", f"{SERVERS}/{{id}}", item=server_id)
    do("DELETE", f"{SERVERS}/{{id}}", item=csr).ok(204)
    do("POST", "/authentication/preview", {"certificate": ROOT.pem}).ok()
    do("POST", "/authentication/preview", {"certificate": ROOT.key_pem})

    policy = {"default": "TLS Optional", "rules": [{"deviceType": "a", "level": "TLS Optional"}]}
    do("PUT", "/authorization/connectionpolicy", policy)
    do("PUT", "/authorization/connectionpolicy", policy, headers=any_version).ok()
    do("POST", "/authorization/connectionpolicy/dryrun", {"default": "TLS with Token Authentication"}).ok()
    do("GET", "/authorization/connectionpolicy").ok()
    do("PUT", "/authorization/settings", {"typeCertificates": True}, headers=any_version).ok()
    reserved = {"customDomains": {"enabled": True, "domains": ["example.com"]}}
    do("PUT", "/authorization/settings", reserved, headers=any_version)
    do("GET", "/authorization/settings").ok()
    entry = do("POST", "/authorization/denylist", {"kind": "identity", "value": "d:a:b"}).ok(201)["id"]
    do("POST", "/authorization/denylist", {"kind": "identity", "value": "a"})
    do("GET", "/authorization/denylist").ok()
    do("DELETE", "/authorization/denylist/{id}", item=entry).ok(204)
    do("DELETE", "/authorization/denylist/{id}", item=entry)

    asks = Checked(api, broker)
    for fields in (
        {"serverName": HOST, "certificate": certs.leaf("d:thermo:42", ROOT).pem, "explain": True},
        {"serverName": HOST},
        {"clientId": "x"},
        {"sni": "x"},
        {"certificateDer": "abcde"},
    ):
        asks("POST", "/authorization/verifyclient", fields)
    asks("GET", CAS)
    service.flush()
    do("GET", "/activity").ok()
    do("GET", "/session").ok()
    do("GET", "//signin").ok()
    do("GET", "//healthz").ok()
    do("GET", "//openapi.json").ok()

    edge = Checked(api, service.client("edge"))
    head = edge("GET", "//edge/v1/hosts").ok()["head"]
    edge("GET", "//edge/v1/hosts", query={"since": head}).ok()
    edge("GET", "//edge/v1/hosts", query={"since": "x"})
    edge("GET", "//edge/v1/withdrawals").ok()
    edge("GET", "//edge/v1/withdrawals", query={"since": "0"}).ok()
    edge("POST", "//edge/v1/served", {"edge": "e", "hosts": [{"serverName": HOST, "version": "x"}]}).ok()
    edge("POST", "//edge/v1/served", {"edge": "e"})
    edge("POST", "//v3/discovery:listeners", {}).ok()
    edge("POST", "//v3/discovery:secrets", {"resource_names": [f"server/{HOST}"]}).ok()
    Checked(api, operator)("GET", "//edge/v1/hosts")
    Checked(api, dataclasses.replace(service.client("edge"), scheme="http"))("GET", "//edge/v1/hosts")
    do("DELETE", f"{CAS}/{{id}}", item=ca).ok(204)
    Checked(api, service.anonymous)("GET", CAS)
    assert len(do.calls) > 50

"""THE table: which function answers which method and path, and who may call it.

The local server, the OpenAPI document and every deployment are made from it or checked against it. Handlers are named,
not imported, so that a function loads only its own module.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import msgspec

from shared import errors
from shared.records import Role

if TYPE_CHECKING:
    from functions.web.contract import Handler

PREFIX: Final = "/api/v0002"

OPERATOR: Final = frozenset((Role.OPERATOR,))
VIEWER: Final = frozenset((Role.VIEWER, Role.OPERATOR))
BROKER: Final = frozenset((Role.BROKER,))
EDGE: Final = frozenset((Role.EDGE,))
ASKER: Final = frozenset((Role.BROKER, Role.VIEWER, Role.OPERATOR))
ANYBODY: Final[frozenset[Role]] = frozenset()


class Route(msgspec.Struct, frozen=True, dict=True):
    """One line of the table.

    Args:
        function: the deployable function's name.
        path: a template; `{id}` stands for one segment, `{*rest}` for all that follows. Under PREFIX, unless *bare*.
        roles: who may call; empty: anybody.
        handler: `module:name` within `functions`.
        admits: whether the caller and its org are read before the handler runs. A handler that reads them in the same
            batch as the rest does so itself.
        bare: the path stands as it is, without PREFIX.
        alias: also reachable as a function of its own name, with and without PREFIX.
    """

    function: str
    method: str
    path: str
    roles: frozenset[Role]
    handler: str
    admits: bool = True
    bare: bool = False
    alias: bool = False

    @property
    def full_path(self) -> str:
        return self.path if self.bare else PREFIX + self.path

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        prefix = "" if self.bare else f"({PREFIX})?" if self.alias else PREFIX
        segments = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        return re.compile(prefix + re.sub(r"\\\{\\\*(\w+)\\\}", r"(?P<\1>.*)", segments))

    @property
    def load(self) -> "Handler":
        """The handler, imported at its first use."""
        return _handler(self.handler)


@cache
def _handler(name: str) -> "Handler":
    module, _, function = name.partition(":")
    found: Callable[..., object] = getattr(importlib.import_module(f"functions.{module}"), function)
    return found  # type: ignore[return-value]


CAS: Final = "/authentication/cacertificates"
SERVERS: Final = "/authentication/servercertificates"


def _asked(path: str, handler: str, *methods: str) -> tuple[Route, ...]:
    """A broker's question, in its own dialect. The handler reads the key in the same batch as the rest."""
    return tuple(
        Route("verifyClient", method, f"/verifyClient/{path}", BROKER, f"dialects.{handler}", admits=False, alias=True)
        for method in methods
    )


_DIALECTS: Final[tuple[Route, ...]] = (
    *_asked("emqx", "emqx:ask", "GET", "POST"),
    *_asked("rabbitmq/user", "rabbitmq:user", "GET", "POST"),
    *_asked("rabbitmq/vhost", "rabbitmq:vhost", "GET", "POST"),
    *_asked("rabbitmq/resource", "rabbitmq:resource", "GET", "POST"),
    *_asked("rabbitmq/topic", "rabbitmq:topic", "GET", "POST"),
    *_asked("vernemq", "vernemq:ask", "POST"),
    *_asked("mosquitto/getuser", "mosquitto:getuser", "GET", "POST", "PUT"),
    *_asked("mosquitto/superuser", "mosquitto:superuser", "GET", "POST", "PUT"),
    *_asked("mosquitto/aclcheck", "mosquitto:aclcheck", "GET", "POST", "PUT"),
    *_asked("envoy", "envoy:ask", "GET", "POST"),
    *_asked("envoy/{*rest}", "envoy:ask", "GET", "POST"),
    *_asked("nginx", "nginx:ask", "GET", "POST"),
    *_asked("aws-iot", "aws_iot:ask", "POST"),
)

ROUTES: Final[tuple[Route, ...]] = (
    Route("uploadCA", "POST", CAS, OPERATOR, "upload_ca:upload_ca"),
    Route("uploadCA", "POST", "/uploadCA", OPERATOR, "upload_ca:upload_ca", alias=True),
    Route("uploadServerCert", "POST", SERVERS, OPERATOR, "upload_server_cert:upload_server_cert"),
    Route(
        "uploadServerCert", "POST", "/uploadServerCert", OPERATOR, "upload_server_cert:upload_server_cert", alias=True
    ),
    Route("activateServerCert", "PUT", f"{SERVERS}/active", OPERATOR, "activate_server_cert:activate_server_cert"),
    Route("activateServerCert", "GET", f"{SERVERS}/active", VIEWER, "activate_server_cert:active_server_cert"),
    Route(
        "activateServerCert",
        "POST",
        "/activateServerCert",
        OPERATOR,
        "activate_server_cert:activate_server_cert",
        alias=True,
    ),
    Route("generateCSR", "POST", f"{SERVERS}/csr", OPERATOR, "generate_csr:generate_csr"),
    Route("generateCSR", "POST", "/generateCSR", OPERATOR, "generate_csr:generate_csr", alias=True),
    Route("fulfillCSR", "PUT", f"{SERVERS}/{{id}}/certificate", OPERATOR, "fulfill_csr:fulfill_csr"),
    Route("fulfillCSR", "POST", "/fulfillCSR", OPERATOR, "fulfill_csr:fulfill_csr", alias=True),
    Route("verifyClient", "POST", "/authorization/verifyclient", ASKER, "verify_client:verify_client", admits=False),
    Route("verifyClient", "POST", "/verifyClient", ASKER, "verify_client:verify_client", admits=False, alias=True),
    *_DIALECTS,
    Route("manageCertificates", "GET", CAS, VIEWER, "manage_certificates:list_cas"),
    Route("manageCertificates", "GET", f"{CAS}/{{id}}", VIEWER, "manage_certificates:get_ca"),
    Route("manageCertificates", "PUT", f"{CAS}/{{id}}", OPERATOR, "manage_certificates:change_ca"),
    Route("manageCertificates", "DELETE", f"{CAS}/{{id}}", OPERATOR, "manage_certificates:delete_ca"),
    Route("manageCertificates", "GET", f"{CAS}/{{id}}/pem", VIEWER, "manage_certificates:ca_pem"),
    Route("manageCertificates", "GET", SERVERS, VIEWER, "manage_certificates:list_servers"),
    Route("manageCertificates", "GET", f"{SERVERS}/{{id}}", VIEWER, "manage_certificates:get_server_cert"),
    Route("manageCertificates", "PUT", f"{SERVERS}/{{id}}", OPERATOR, "manage_certificates:change_server"),
    Route("manageCertificates", "DELETE", f"{SERVERS}/{{id}}", OPERATOR, "manage_certificates:delete_server"),
    Route("manageCertificates", "GET", f"{SERVERS}/{{id}}/pem", VIEWER, "manage_certificates:server_pem"),
    Route("manageCertificates", "GET", f"{SERVERS}/{{id}}/csr", VIEWER, "manage_certificates:server_csr"),
    Route("manageCertificates", "POST", f"{SERVERS}/{{id}}/renewal", OPERATOR, "manage_certificates:renew"),
    Route("manageCertificates", "POST", "/authentication/preview", VIEWER, "manage_certificates:preview"),
    Route("connectionPolicy", "GET", "/authorization/connectionpolicy", VIEWER, "connection_policy:get_policy"),
    Route("connectionPolicy", "PUT", "/authorization/connectionpolicy", OPERATOR, "connection_policy:put_policy"),
    Route(
        "connectionPolicy", "POST", "/authorization/connectionpolicy/dryrun", VIEWER, "connection_policy:dry_run_policy"
    ),
    Route("connectionPolicy", "GET", "/authorization/settings", VIEWER, "connection_policy:get_settings"),
    Route("connectionPolicy", "PUT", "/authorization/settings", OPERATOR, "connection_policy:put_settings"),
    Route("connectionPolicy", "GET", "/authorization/denylist", VIEWER, "connection_policy:list_denials"),
    Route("connectionPolicy", "POST", "/authorization/denylist", OPERATOR, "connection_policy:deny"),
    Route("connectionPolicy", "DELETE", "/authorization/denylist/{id}", OPERATOR, "connection_policy:lift"),
    Route("activityLog", "GET", "/activity", VIEWER, "activity_log:list_activity"),
    Route("activityLog", "GET", "/session", VIEWER, "activity_log:session"),
    Route("activityLog", "GET", "/signin", ANYBODY, "activity_log:sign_in", admits=False, bare=True),
    Route("edgeFeed", "GET", "/edge/v1/hosts", EDGE, "edge_feed:list_hosts", admits=False, bare=True),
    Route("edgeFeed", "GET", "/edge/v1/hosts/{serverName}", EDGE, "edge_feed:get_host", admits=False, bare=True),
    Route("edgeFeed", "GET", "/edge/v1/withdrawals", EDGE, "edge_feed:list_withdrawals", admits=False, bare=True),
    Route("edgeFeed", "POST", "/edge/v1/served", EDGE, "edge_feed:served", admits=False, bare=True),
    Route("edgeFeed", "POST", "/v3/discovery:listeners", EDGE, "envoy_discovery:listeners", admits=False, bare=True),
    Route("edgeFeed", "POST", "/v3/discovery:secrets", EDGE, "envoy_discovery:secrets", admits=False, bare=True),
    Route("health", "GET", "/healthz", ANYBODY, "health:health", admits=False, bare=True),
    Route("health", "GET", "/openapi.json", ANYBODY, "openapi:openapi", admits=False, bare=True),
)


# The console's files: a function of its own, with the addresses that every router before the functions must know. They
# are no part of the API, so the OpenAPI document does not tell of them. (`/console` is not among them: the Serverless
# Framework gives it the same name as `/console/`.)
CONSOLE: Final = "console"
PAGES: Final = tuple((method, path) for path in ("/", "/console/", "/console/{*file}") for method in ("GET", "HEAD"))


class Event(msgspec.Struct, frozen=True):
    """A function that the platform itself calls; never on the public router.

    Args:
        trigger: what calls it: "object" (the upload bucket's new objects), "queue" (TRUST_QUEUE) or "schedule" (daily).
        aws, gcp: `module:name` of its entry point in each cloud.
    """

    function: str
    trigger: str
    aws: str
    gcp: str


EVENTS: Final[tuple[Event, ...]] = (
    Event("onUpload", "object", "functions.hosts.aws_events:on_upload", "functions.hosts.gcp_events:on_upload"),
    Event(
        "recordSightings",
        "queue",
        "functions.hosts.aws_events:record_sightings",
        "functions.hosts.gcp_events:record_sightings",
    ),
    Event(
        "expiryReport",
        "schedule",
        "functions.hosts.aws_events:expiry_report",
        "functions.hosts.gcp_events:expiry_report",
    ),
)


def routes_of(function: str) -> Iterator[Route]:
    """The lines of one deployable function."""
    return (route for route in ROUTES if route.function == function)


def find(method: str, path: str) -> tuple[Route, Mapping[str, str]]:
    """The route for a request, and the parameters in its path, decoded.

    *path* is as it was sent: an encoded slash never splits a segment, and `..` is a name like any other.

    Raises: NotFound, MethodNotAllowed."""
    if len(path) > 1:
        path = path.removesuffix("/")
    params: Mapping[str, str] = {}
    allowed = dict(_literal().get(path, {}))
    if not allowed:  # an address of its own is no thing's (OpenAPI, "Path Templating Matching")
        for route in _templated():
            if found := route.pattern.fullmatch(path):
                allowed.setdefault(route.method, route)
                params = {name: unquote(value) for name, value in found.groupdict().items()}
    route_found = allowed.get("GET" if method == "HEAD" else method)
    if route_found is not None:
        return route_found, params
    if allowed:
        raise errors.MethodNotAllowed(method=method[:16], allowed=", ".join(sorted(allowed)))
    raise errors.NotFound(what="such address")


@lru_cache(maxsize=1)
def _literal() -> Mapping[str, Mapping[str, Route]]:
    table: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        if "{" not in route.path:
            table.setdefault(route.full_path, {})[route.method] = route
            if route.alias:
                table.setdefault(route.path, {})[route.method] = route
    return table


@lru_cache(maxsize=1)
def _templated() -> tuple[Route, ...]:
    return tuple(route for route in ROUTES if "{" in route.path)

"""THE list of the deployable functions: the modules of each, its trigger, memory and time limit.

The handlers on AWS, the targets on Google Cloud, the packages, the deployments in infra/ and the OpenAPI document are
all derived from this list. Modules are named as text, so that a process imports the modules of its own function only.
infra/package.py packages the modules that the text names.
"""

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Final

import msgspec

from functions.web.contract import Dialect, Route, declared_fallback, declared_routes
from functions.web.router import Router


class Trigger(StrEnum):
    """What calls a function."""

    HTTP = "http"
    OBJECT = "object"  # a new object in the upload bucket
    SCHEDULE = "schedule"  # once a day
    QUEUE = "queue"  # messages of the queue of connection events


class Function(msgspec.Struct, frozen=True):
    """A deployable function.

    Args:
        modules: what it loads besides its host. An HTTP function's endpoints are declared there.
        memory: MiB. On AWS Lambda the share of a CPU follows the memory; RSA and EC operations need it.
        timeout: seconds. An API Gateway HTTP API waits 30 s at most.
    """

    name: str
    modules: tuple[str, ...]
    memory: int
    timeout: int
    trigger: Trigger = Trigger.HTTP

    @property
    def handler(self) -> str:
        """The name in Python's style: `verify_client` for verifyClient."""
        return re.sub(r"(?<=[a-z])([A-Z]+)", r"_\1", self.name).lower()

    @property
    def needs_app(self) -> bool:
        """Whether the function works with an App: a store, keys, a queue. The console needs the settings only."""
        return PROCESS in self.modules and self.name != CONSOLE


PREFIX: Final = "/api/v0002"
PROCESS: Final = "functions.hosts.process"

DIALECTS: Final[Mapping[str, str]] = {
    "": "functions.dialects.native",
    "emqx": "functions.dialects.emqx",
    "rabbitmq": "functions.dialects.rabbitmq",
    "vernemq": "functions.dialects.vernemq",
    "mosquitto": "functions.dialects.mosquitto",
    "envoy": "functions.dialects.envoy",
    "nginx": "functions.dialects.nginx",
    "aws-iot": "functions.dialects.aws_iot",
}
"""The first segment after /verifyClient -> the module that answers there, loaded at the first request for its path."""

CAS: Final = "functions.api.cas"
SERVERS: Final = "functions.api.servers"

VERIFY_CLIENT: Final = "verifyClient"
CONSOLE: Final = "console"
EDGE_FEED: Final = "edgeFeed"

FUNCTIONS: Final = (
    Function("uploadCA", (CAS, PROCESS), memory=512, timeout=15),
    Function("uploadServerCert", (SERVERS, PROCESS), memory=512, timeout=20),
    Function("activateServerCert", (SERVERS, PROCESS), memory=512, timeout=15),
    Function("generateCSR", (SERVERS, PROCESS), memory=1024, timeout=25),  # makes an RSA key
    Function("fulfillCSR", (SERVERS, PROCESS), memory=512, timeout=15),
    Function(VERIFY_CLIENT, (*DIALECTS.values(), PROCESS), memory=1024, timeout=5),  # devices wait for it
    Function(
        "manageCertificates",
        (CAS, SERVERS, "functions.api.renewal", "functions.api.preview", PROCESS),
        memory=512,
        timeout=15,
    ),
    Function(
        "connectionPolicy",
        ("functions.api.devices", "functions.api.organization", "functions.api.deny_list", PROCESS),
        memory=512,
        timeout=15,
    ),
    Function(
        "activityLog",
        (
            "functions.api.activity",
            "functions.api.session",
            "functions.api.edge_contacts",
            "functions.api.callers",
            "functions.api.traffic",
            "functions.api.seen_devices",
            PROCESS,
        ),
        memory=512,
        timeout=15,
    ),
    Function(EDGE_FEED, ("functions.api.edges", "functions.api.envoy", PROCESS), memory=512, timeout=15),
    Function("health", ("functions.api.system",), memory=256, timeout=5),
    Function(CONSOLE, ("functions.hosts.static", PROCESS), memory=512, timeout=15),
    Function("onUpload", ("functions.events.uploads", PROCESS), memory=512, timeout=60, trigger=Trigger.OBJECT),
    Function("expiryReport", ("functions.events.expiry", PROCESS), memory=512, timeout=300, trigger=Trigger.SCHEDULE),
    Function("recordSightings", ("functions.events.sightings", PROCESS), memory=256, timeout=60, trigger=Trigger.QUEUE),
)

BY_NAME: Final = {function.name: function for function in FUNCTIONS}
BY_HANDLER: Final = {function.handler: function for function in FUNCTIONS}


def dialect_module(path: str) -> str | None:
    """Return the module of the dialect that answers at *path*; None if no dialect does.

    A path that is no endpoint has a dialect too: a broker must be refused in its own format.
    """
    path = path.removeprefix(PREFIX)
    if path.removesuffix("/") == "/authorization/verifyclient":
        return DIALECTS[""]
    if path != "/verifyClient" and not path.startswith("/verifyClient/"):
        return None
    return DIALECTS.get(path.removeprefix("/verifyClient").strip("/").partition("/")[0])


def dialect_name(path: str) -> str:
    """Return the name of the dialect that answers at *path*: `native`, `emqx`; "" if no dialect does."""
    return (dialect_module(path) or "").rpartition(".")[2]


def preload(function: Function) -> None:
    """Import what the first request needs, while the platform still initializes the process.

    The brokers' dialects are left out: a process is usually asked by a single kind of broker.
    """
    for module in function.modules:
        if module == DIALECTS[""] or module not in DIALECTS.values():
            importlib.import_module(module)


def _routes_in(module: str) -> Sequence[Route]:
    importlib.import_module(module)
    return declared_routes(module)


@cache
def dialect_at(module: str) -> Dialect:
    """Import a dialect and return it."""
    dialect: Dialect = importlib.import_module(module).DIALECT
    return dialect


@cache
def dialect_router(module: str) -> Router:
    """Import a dialect and return the router of its endpoints."""
    return Router(_routes_in(module))


@cache
def api_router(name: str | None) -> Router:
    """Import the endpoints of a function that are no dialect's, and return their router. None: of all functions.

    A module may hold endpoints of other functions too. The router knows them, so that an address of another function,
    `…/servercertificates/csr`, is never read as an id.
    """
    functions = FUNCTIONS if name is None else (BY_NAME[name],)
    modules = dict.fromkeys(module for function in functions for module in _endpoint_modules(function))
    routes = [route for module in modules if module not in DIALECTS.values() for route in _routes_in(module)]
    if name is None:
        return Router(routes)
    return Router(routes, refuse=next(filter(None, map(declared_fallback, modules)), None))


def _endpoint_modules(function: Function) -> Iterator[str]:
    """Return the modules that declare endpoints."""
    if function.trigger is Trigger.HTTP:
        yield from (module for module in function.modules if module != PROCESS)


def every_route() -> Iterator[Route]:
    """Import every endpoint and return all routes, in the order of FUNCTIONS."""
    for function in FUNCTIONS:
        for module in _endpoint_modules(function):
            yield from (route for route in _routes_in(module) if route.endpoint.function == function.name)

"""THE deployment table: each function's size, trigger and rights, for every cloud.

The routes come from functions/routes.py. `python -m infra.generate` writes what Terraform, the Serverless Framework and
Knative read; a test holds the files against this table, and this table against the routes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from functions.routes import CONSOLE, EVENTS, PAGES, ROUTES, Route, routes_of


class Trigger(StrEnum):
    HTTP = "http"
    UPLOAD = "object"  # an object was put into the upload bucket
    SCHEDULE = "schedule"  # once a day
    QUEUE = "queue"  # messages of the queue behind the answer


class Right(StrEnum):
    """What a function may do. Each cloud's files say what that is in its own words."""

    READ = "read"  # documents
    CHANGE = "change"  # documents; implies READ
    SEAL = "seal"  # private keys: encrypt a data key
    OPEN = "open"  # private keys: decrypt a data key
    TELL = "tell"  # send to the queue behind the answer
    HEAR = "hear"  # receive from it
    UPLOADS = "uploads"  # read and delete objects of the upload bucket
    WEBHOOK = "webhook"  # read the webhook's secret


R = Right


@dataclass(frozen=True)
class Function:
    """One deployable function.

    Args:
        memory: MiB. On Lambda also the share of a CPU: RSA and EC work is what needs it.
        timeout: seconds; an HTTP API waits 30 at most.
    """

    name: str
    memory: int
    timeout: int
    rights: frozenset[Right]
    trigger: Trigger = Trigger.HTTP

    @property
    def stem(self) -> str:
        """`verifyClient` -> `verify_client`, the module's name and the Lambda handler's."""
        return re.sub(r"(?<=[a-z])([A-Z]+)", r"_\1", self.name).lower()

    @property
    def slug(self) -> str:
        """`verifyClient` -> `verify-client`, for names that take no capitals."""
        return self.stem.replace("_", "-")

    @property
    def lambda_handler(self) -> str:
        """As Lambda wants it: `functions/aws.verify_client`."""
        own = {CONSOLE: "functions.hosts.aws_console:console", **{event.function: event.aws for event in EVENTS}}
        entry = own.get(self.name, f"functions.hosts.aws:{self.stem}")
        return entry.replace(".", "/").replace(":", ".")

    @property
    def routes(self) -> tuple[Route, ...]:
        return tuple(routes_of(self.name))


def _function(name: str, memory: int, timeout: int, *rights: Right, trigger: Trigger = Trigger.HTTP) -> Function:
    return Function(name, memory, timeout, frozenset(rights), trigger)


FUNCTIONS: Final[tuple[Function, ...]] = (
    _function("uploadCA", 512, 15, R.CHANGE),
    _function("uploadServerCert", 512, 20, R.CHANGE, R.SEAL),
    _function("activateServerCert", 512, 15, R.CHANGE),
    _function("generateCSR", 1024, 25, R.CHANGE, R.SEAL),  # makes an RSA key
    _function("fulfillCSR", 512, 15, R.CHANGE),
    _function("verifyClient", 1024, 5, R.READ, R.TELL),  # what devices wait for
    # A renewal signs with the key there is; who withdraws something tells the operator's broker.
    _function("manageCertificates", 512, 15, R.CHANGE, R.SEAL, R.OPEN, R.WEBHOOK),
    _function("connectionPolicy", 512, 15, R.CHANGE, R.WEBHOOK),
    _function("activityLog", 512, 15, R.READ),
    _function("edgeFeed", 512, 15, R.CHANGE, R.OPEN),  # hands keys out, and writes who got them
    _function("health", 256, 5),
    _function(CONSOLE, 512, 15),  # files; its one question is the OIDC issuer's description of itself
    _function("onUpload", 512, 60, R.CHANGE, R.SEAL, R.UPLOADS, trigger=Trigger.UPLOAD),
    _function("expiryReport", 512, 300, R.CHANGE, R.WEBHOOK, trigger=Trigger.SCHEDULE),
    _function("recordSightings", 256, 60, R.CHANGE, R.HEAR, trigger=Trigger.QUEUE),
)

BY_NAME: Final = {one.name: one for one in FUNCTIONS}


def http_routes() -> Iterator[tuple[str, str, str]]:
    """(function, method, path) of every address, aliases in both places, in the routes table's order.

    In a path, `{id}` stands for one segment and `{*rest}` for all that follows."""
    for route in ROUTES:
        yield route.function, route.method, route.full_path
        if route.alias:
            yield route.function, route.method, route.path
    for method, path in PAGES:
        yield CONSOLE, method, path


def on_api_gateway(path: str) -> str:
    """`/console/{*file}` as API Gateway writes it: `/console/{file+}`."""
    return re.sub(r"\{\*(\w+)\}", r"{\1+}", path)


def as_json() -> dict[str, Any]:
    """What the deployments read (infra/functions.json)."""
    return {
        one.name: {
            "slug": one.slug,
            "lambdaHandler": one.lambda_handler,
            "memory": one.memory,
            "timeout": one.timeout,
            "trigger": one.trigger.value,
            "rights": sorted(right.value for right in one.rights),
            "routes": [
                {"method": method, "path": path} for function, method, path in http_routes() if function == one.name
            ],
        }
        for one in FUNCTIONS
    }

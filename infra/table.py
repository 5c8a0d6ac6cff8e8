"""THE deployment table: the rights of each function, beside its size and trigger from functions/registry.py.

`python -m infra.generate` writes what Terraform, the Serverless Framework and Knative read; a test compares the files
with this table.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from functions import registry
from functions.hosts import static
from functions.registry import CONSOLE, Trigger, every_route
from infra.imports import reachable

AWS_HOST: Final = "functions.hosts.aws"

KEY_OPENERS: Final = frozenset(
    (
        "shared.usecases.edges.serve",
        "shared.usecases.servers.renew",
        "shared.usecases.jobs.reseal",
        "shared.usecases.jobs.export_file",
    )
)
"""The modules that open private keys. A function has the right to do so exactly if it can import one of them."""


class Right(StrEnum):
    """What a function may do. Each cloud's files express it in the cloud's own terms."""

    READ = "read"  # documents
    CHANGE = "change"  # documents; implies READ
    SEAL = "seal"  # private keys: encrypt a data key
    OPEN = "open"  # private keys: decrypt a data key; derived from KEY_OPENERS
    SEND = "tell"  # send to the queue of connection events
    RECEIVE = "hear"  # receive from that queue
    UPLOADS = "uploads"  # read and delete objects of the upload bucket
    WEBHOOK = "webhook"  # read the webhook's secret


R = Right

# A function with callers sends its counts of refused calls to the queue.
_RIGHTS: Final[Mapping[str, tuple[Right, ...]]] = {
    "uploadCA": (R.CHANGE, R.SEND),
    "uploadServerCert": (R.CHANGE, R.SEAL, R.SEND),
    "activateServerCert": (R.CHANGE, R.SEND),
    "generateCSR": (R.CHANGE, R.SEAL, R.SEND),
    "fulfillCSR": (R.CHANGE, R.SEND),
    "verifyClient": (R.READ, R.SEND),
    "manageCertificates": (R.CHANGE, R.SEAL, R.SEND, R.WEBHOOK),  # WEBHOOK: withdrawals go to the operator's broker
    "connectionPolicy": (R.CHANGE, R.SEND, R.WEBHOOK),
    "activityLog": (R.READ, R.SEND),
    "edgeFeed": (R.CHANGE, R.SEND),  # writes who exported which key
    "health": (),
    CONSOLE: (),
    "onUpload": (R.CHANGE, R.SEAL, R.UPLOADS),
    "expiryReport": (R.CHANGE, R.WEBHOOK),
    "recordSightings": (R.CHANGE, R.RECEIVE),
}


@dataclass(frozen=True)
class DeployedFunction:
    """A function as the clouds deploy it."""

    function: registry.Function

    @property
    def name(self) -> str:
        return self.function.name

    @property
    def memory(self) -> int:
        """MiB."""
        return self.function.memory

    @property
    def timeout(self) -> int:
        """Seconds."""
        return self.function.timeout

    @property
    def trigger(self) -> Trigger:
        return self.function.trigger

    @property
    def slug(self) -> str:
        """`verifyClient` -> `verify-client`, for names without capitals."""
        return self.function.handler.replace("_", "-")

    @property
    def lambda_handler(self) -> str:
        """The handler as Lambda names it: `functions/hosts/aws.verify_client`."""
        return f"{AWS_HOST.replace('.', '/')}.{self.function.handler}"

    @cached_property
    def modules(self) -> frozenset[str]:
        """The project's modules that the function can import on Lambda."""
        return reachable(frozenset((AWS_HOST, *self.function.modules)))

    @cached_property
    def rights(self) -> frozenset[Right]:
        opens_keys = not KEY_OPENERS.isdisjoint(self.modules)
        return frozenset(_RIGHTS[self.name]) | ({R.OPEN} if opens_keys else frozenset())


FUNCTIONS: Final = tuple(map(DeployedFunction, registry.FUNCTIONS))
BY_NAME: Final = {function.name: function for function in FUNCTIONS}


def http_routes() -> Iterator[tuple[str, str, str]]:
    """Return (function, method, path) of every address, in the order of the registry.

    In a path, `{id}` is one segment and `{*rest}` everything that follows.
    """
    for route in every_route():
        yield route.endpoint.function, route.method, route.path
    for path in static.PATHS:
        for method in static.METHODS:
            yield CONSOLE, method, path


def on_api_gateway(path: str) -> str:
    """Return a path as API Gateway writes it: `/console/{*file}` becomes `/console/{file+}`."""
    return re.sub(r"\{\*(\w+)\}", r"{\1+}", path)


def as_json() -> dict[str, Any]:
    """Return what the deployments read (infra/functions.json)."""
    return {
        function.name: {
            "slug": function.slug,
            "lambdaHandler": function.lambda_handler,
            "memory": function.memory,
            "timeout": function.timeout,
            "trigger": function.trigger.value,
            "rights": sorted(right.value for right in function.rights),
            "routes": [
                {"method": method, "path": path} for name, method, path in http_routes() if name == function.name
            ],
        }
        for function in FUNCTIONS
    }

"""edgeFeed for Envoy: its REST xDS (LDS and SDS), from the same records as every other edge's.

An answer whose version Envoy has already is 304, which opens no key; Envoy asks for each secret twice a second.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec

from functions import envoy_resources as envoy
from functions.edge_feed import edge_credentials
from functions.web.contract import Call, endpoint
from functions.web.http import JSON, Reply, typed
from shared import errors
from shared.usecases.edges.listing import every_host
from shared.usecases.edges.serve import export_keys

SECRETS_MAX: Final = 100  # in one question
_LISTENERS_MAX: Final = 10


class Node(msgspec.Struct, frozen=True):
    """Who asks. `metadata.listeners` in its bootstrap says which listeners it wants (`Listening`)."""

    metadata: dict[str, Any] = {}


class DiscoveryRequest(msgspec.Struct, frozen=True):
    """envoy.service.discovery.v3.DiscoveryRequest in JSON: names as in the protocol buffer, or in lowerCamelCase."""

    version_info: str = ""
    resource_names: tuple[str, ...] = ()
    version_info_: str = msgspec.field(name="versionInfo", default="")
    resource_names_: tuple[str, ...] = msgspec.field(name="resourceNames", default=())
    node: Node = Node()

    @property
    def version(self) -> str:
        return self.version_info or self.version_info_

    @property
    def names(self) -> tuple[str, ...]:
        return self.resource_names or self.resource_names_


class DiscoveryResponse(msgspec.Struct, frozen=True):
    """envoy.service.discovery.v3.DiscoveryResponse in JSON."""

    version_info: str
    type_url: str
    resources: tuple[dict[str, Any], ...]


@endpoint(
    "Envoy's listeners: one filter chain for each host",
    {200: DiscoveryResponse, 304: None},
    body=DiscoveryRequest,
    refusals=(errors.InsecureTransport, errors.TooManyHosts),
)
def listeners(call: Call) -> Reply:
    credentials = edge_credentials(call)
    asked = call.request.fields(DiscoveryRequest)
    wanted = typed(asked.node.metadata.get("listeners", [{}]), tuple[envoy.Listening, ...])
    if len(wanted) > _LISTENERS_MAX:
        raise errors.WrongValue(field="node", found=f"At most {_LISTENERS_MAX} listeners can be asked for")
    hosts = sorted(one.server_name for one in every_host(call.context, credentials))
    resources = tuple(envoy.listener(one, hosts) for one in wanted)
    return _answer(asked, envoy.LISTENER, resources, msgspec.json.encode(resources))


@endpoint(
    "The certificates and private keys that Envoy asks for by name",
    {200: DiscoveryResponse, 304: None},
    body=DiscoveryRequest,
    refusals=(errors.InsecureTransport,),
)
def secrets(call: Call) -> Reply:
    credentials = edge_credentials(call)
    asked = call.request.fields(DiscoveryRequest)
    if len(asked.names) > SECRETS_MAX:
        raise errors.WrongValue(field="resource_names", found=f"At most {SECRETS_MAX} secrets can be asked for at once")
    hosts = [host for name in asked.names if (host := envoy.host_of(name)) is not None]

    def known(versions: Sequence[str]) -> bool:
        return asked.version == _version("\n".join(versions).encode())

    found, had = export_keys(call.context, call.app.sealer, credentials, hosts, unless=known)
    if had:
        return Reply(304, headers=_NO_STORE)
    resources = tuple(envoy.secret(one.server_name, one.certificate, one.private_key) for one in found)
    basis = "\n".join(f"{one.server_name} {one.version}" for one in found).encode()
    return _answer(asked, envoy.SECRET, resources, basis)


_NO_STORE: Final = {"Cache-Control": "no-store"}


def _version(basis: bytes) -> str:
    return sha256(basis).hexdigest()[:16]


def _answer(asked: DiscoveryRequest, type_url: str, resources: tuple[dict[str, Any], ...], basis: bytes) -> Reply:
    version = _version(basis)
    if asked.version == version:
        return Reply(304, headers=_NO_STORE)
    body = msgspec.json.encode(DiscoveryResponse(version, type_url, resources))
    return Reply(200, body, JSON, _NO_STORE)

"""The feed of TLS edges for Envoy: its REST xDS (LDS and SDS), made from the same records as functions/api/edges.py.

Envoy asks for each secret twice a second. A reply whose version Envoy has already is 304, for which no key is opened.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from functions.api import envoy_resources
from functions.call import EDGES, Call, open_endpoint
from functions.web.body import convert, read_body
from functions.web.errors import InsecureTransport
from functions.web.message import JSON, NO_STORE, Reply
from shared.errors import WrongValue
from shared.usecases.edges.listing import list_every_host
from shared.usecases.edges.serve import export_keys

FUNCTION: Final = "edgeFeed"
SECRETS_MAX: Final = 100  # in one request
_LISTENERS_MAX: Final = 10
LEFT_OUT: Final = "X-Hosts-Left-Out"  # a header: how many hosts are not on the list of listeners
_NOT_MODIFIED: Final = Reply(304, headers=NO_STORE)


class Node(msgspec.Struct, frozen=True):
    """Who asks. In its bootstrap, `metadata.listeners` says which listeners it wants (`Listening`), and
    `metadata.organizations` names the organizations that it serves (without: all of its key)."""

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


class ControlPlane(msgspec.Struct, frozen=True):
    """envoy.config.core.v3.ControlPlane in JSON. Says how many hosts are not on the list."""

    identifier: str


class DiscoveryResponse(msgspec.Struct, frozen=True):
    """envoy.service.discovery.v3.DiscoveryResponse in JSON."""

    version_info: str
    type_url: str
    resources: tuple[dict[str, Any], ...]
    control_plane: ControlPlane | UnsetType = UNSET


@open_endpoint(
    "POST",
    "/v3/discovery:listeners",
    function=FUNCTION,
    roles=EDGES,
    operation_id="listeners",
    summary="Envoy's listeners: one filter chain for each host",
    body=DiscoveryRequest,
    answers={200: DiscoveryResponse, 304: None},
    refusals=(InsecureTransport,),
)
def discover_listeners(call: Call) -> Reply:
    credentials = call.private_credentials
    request = read_body(call.request, DiscoveryRequest)
    requested = convert(request.node.metadata.get("listeners", [{}]), tuple[envoy_resources.Listening, ...])
    if len(requested) > _LISTENERS_MAX:
        raise WrongValue(field="node", found=f"At most {_LISTENERS_MAX} listeners can be asked for")
    names = request.node.metadata.get("organizations")
    org_ids = None if names is None else convert(names, tuple[envoy_resources.OrgId, ...])
    listed, left_out = list_every_host(call.context, credentials, org_ids)
    hosts = [host.server_name for host in listed]
    # The listeners of one host contain everything but the hosts, also what another version of this module changes.
    samples = [envoy_resources.listener(listening, hosts[:1]) for listening in requested]
    version = _version(msgspec.json.encode((samples, hosts, left_out)))
    if request.version == version:
        reply = _NOT_MODIFIED
    else:
        resources = tuple(envoy_resources.listener(listening, hosts) for listening in requested)
        control_plane = ControlPlane(f"hosts that are not on this list: {left_out}") if left_out else UNSET
        reply = _json(DiscoveryResponse(version, envoy_resources.LISTENER, resources, control_plane))
    return replace(reply, headers={**reply.headers, LEFT_OUT: str(left_out)})


@open_endpoint(
    "POST",
    "/v3/discovery:secrets",
    function=FUNCTION,
    roles=EDGES,
    operation_id="secrets",
    summary="The certificates and private keys that Envoy asks for by name",
    body=DiscoveryRequest,
    answers={200: DiscoveryResponse, 304: None},
    refusals=(InsecureTransport,),
)
def discover_secrets(call: Call) -> Reply:
    credentials = call.exporting_credentials
    request = read_body(call.request, DiscoveryRequest)
    if len(request.names) > SECRETS_MAX:
        raise WrongValue(field="resource_names", found=f"At most {SECRETS_MAX} secrets can be asked for at once")
    hosts = [host for name in request.names if (host := envoy_resources.host_of(name)) is not None]

    def has_versions(versions: Sequence[str]) -> bool:
        return request.version == _version("\n".join(versions).encode())

    exported, is_current = export_keys(call.context, call.app.sealer, credentials, hosts, unless=has_versions)
    if is_current:
        return _NOT_MODIFIED
    resources = tuple(envoy_resources.secret(key.server_name, key.certificate, key.private_key) for key in exported)
    basis = "\n".join(f"{key.server_name} {key.version}" for key in exported).encode()
    return _json(DiscoveryResponse(_version(basis), envoy_resources.SECRET, resources))


def _version(basis: bytes) -> str:
    return sha256(basis).hexdigest()[:16]


def _json(response: DiscoveryResponse) -> Reply:
    return Reply(200, msgspec.json.encode(response), JSON, NO_STORE)

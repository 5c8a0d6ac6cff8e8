"""gRPC shim between Envoy and verifyClient: `python -m edge.envoy_shim`. Needs grpcio and xds-protos.

For MQTT over TLS, Envoy supports external authorization over gRPC only (envoy.service.auth.v3). Envoy calls after the
TLS handshake and before the first MQTT packet, so the request has the server name and the device's certificate, and no
client ID. The verdict therefore identifies the holder of the certificate (`bound: false`). The broker must check that
the client ID belongs to that device (docs/brokers/README.md).

Every decision except `allow` is a refusal. The gRPC API has no equivalent of `continue`.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
from envoy.service.auth.v3 import external_auth_pb2 as messages
from envoy.service.auth.v3 import external_auth_pb2_grpc as service
from google.rpc import code_pb2, status_pb2

from edge.api import ApiClient, Unavailable, WrongConfiguration, read_key
from edge.log import configure_log

log = logging.getLogger("edge.envoy_shim")

_TIMEOUT: Final = 2.2  # seconds; Envoy's timeout is 2.5 s, and the function's deadline is 2 s
_CERTIFICATE_MAX: Final = 64 * 1024  # characters of PEM


class Authorization(service.AuthorizationServicer):  # type: ignore[misc]
    """The Authorization service: decides whether Envoy forwards a connection to the broker."""

    def __init__(self, api: ApiClient) -> None:
        """Store the client of the functions."""
        self._api = api

    def Check(self, request: messages.CheckRequest, context: grpc.ServicerContext) -> messages.CheckResponse:  # noqa: N802
        """Return the verdict on a connection. Every failure is a refusal."""
        server_name, certificate = read_presented(request)
        try:
            verdict = self._request_verdict(server_name, certificate)
        except Unavailable as error:
            log.warning("refused a connection to %s: %s", server_name, error)
            return _make_response(False, "unavailable")
        except Exception:  # a defect must not let a device in
            log.exception("refused a connection to %s", server_name)
            return _make_response(False, "unavailable")
        is_allowed = verdict.get("decision") == "allow"
        log.info("%s %s for %s", verdict.get("decision"), verdict.get("code"), server_name)
        return _make_response(is_allowed, str(verdict.get("code")), read_client(verdict) if is_allowed else {})

    def _request_verdict(self, server_name: str, certificate: str) -> Mapping[str, Any]:
        if len(certificate) > _CERTIFICATE_MAX:
            return {"decision": "deny", "code": "certificate_malformed"}
        body: dict[str, Any] = {"tls": True}
        if server_name:
            body["serverName"] = server_name
        if certificate:
            body["certificate"] = certificate
        verdict = self._api.request_json("POST", "/api/v0002/verifyClient", body)
        if not isinstance(verdict, dict):
            raise Unavailable("verifyClient's response is not a verdict")
        return verdict


def read_presented(request: messages.CheckRequest) -> tuple[str, str]:
    """Return the server name and the device's certificate (PEM) of a connection; missing values are empty."""
    attributes = request.attributes
    return attributes.tls_session.sni, urllib.parse.unquote(attributes.source.certificate)


def read_client(verdict: Mapping[str, Any]) -> Mapping[str, str]:
    """Return whose device *verdict* is about: `client_id`, `d:orgId:typeId:deviceId`, and `org`. Empty if unknown."""
    org_id, identity = verdict.get("orgId"), verdict.get("identity")
    if not isinstance(org_id, str) or not isinstance(identity, dict):
        return {}
    client_id = f"{identity.get('class')}:{org_id}:{identity.get('typeId')}:{identity.get('deviceId')}"
    return {"client_id": client_id, "org": org_id}


def _make_response(is_allowed: bool, code: str, client: Mapping[str, str] | None = None) -> messages.CheckResponse:
    """Return Envoy's answer. Envoy keeps *client* as dynamic metadata, in the namespace of the filter."""
    status = code_pb2.OK if is_allowed else code_pb2.PERMISSION_DENIED
    response = messages.CheckResponse(status=status_pb2.Status(code=status, message="" if is_allowed else code))
    if client:
        response.dynamic_metadata.update(client)
    return response


def serve(api: ApiClient, address: str, *, threads: int = 32) -> tuple[grpc.Server, int]:
    """Start a server and return the server and its port.

    Raises: WrongConfiguration.
    """
    server = grpc.server(ThreadPoolExecutor(threads, thread_name_prefix="check"), options=[("grpc.so_reuseport", 0)])
    service.add_AuthorizationServicer_to_server(Authorization(api), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise WrongConfiguration(f"{address} cannot be listened on: {error}") from error
    server.start()
    return server, port


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the shim until SIGTERM or SIGINT, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m edge.envoy_shim", description=__doc__)
    env = os.environ

    def add(flag: str, variable: str, help_: str, default: str | None = None) -> None:
        value = env.get(variable) or default
        parser.add_argument(flag, default=value, required=value is None, help=f"{help_} ({variable})")

    add("--url", "TRUST_URL", "base URL of the functions, without a path")
    add("--key-file", "TRUST_BROKER_KEY_FILE", "file with one line, key:token of a broker key")
    add("--listen", "TRUST_SHIM_LISTEN", "address for Envoy, on this machine or in the same pod", "127.0.0.1:9191")
    add("--ca-file", "TRUST_CA_FILE", "CA certificates for the functions' certificate; default: the system's", "")
    options = parser.parse_args(arguments)
    configure_log()
    ca_file = Path(options.ca_file) if options.ca_file else None
    try:
        api = ApiClient(options.url, read_key(Path(options.key_file)), timeout=_TIMEOUT, ca_file=ca_file)
        server, _ = serve(api, options.listen)
    except WrongConfiguration as error:
        log.error("%s", error)
        return 2
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    stopping.wait()
    server.stop(grace=3).wait()
    api.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

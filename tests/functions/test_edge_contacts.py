"""Which TLS edges serve an organization, when each asked last, and the warning about one that has stopped asking."""

import logging
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from shared.errors import StoreUnavailable
from shared.heartbeats import Heartbeats
from shared.ports import Key, RunAtOnce
from shared.usecases.callers import label_key
from shared.usecases.orgs.api_keys import revoke_key
from shared.usecases.orgs.edges import warn_of_silent_edges
from tests.support.harness import Client, Service

WITHDRAWALS, HOSTS, EDGES = "//edge/v1/withdrawals", "//edge/v1/hosts", "/edges"


def ask(edge: Client, name: str = "", path: str = WITHDRAWALS) -> None:
    edge.get(path, query={"edge": name} if name else {}).ok()


def listed(service: Service) -> dict[str | None, Any]:
    return {edge["edge"]: edge for edge in service.client("viewer").get(EDGES).ok()["results"]}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [vars(record)["edge"] for record in caplog.records if "stopped asking" in record.message]
    caplog.clear()
    return found


def test_a_viewer_sees_which_edges_ask_and_when(service: Service) -> None:
    """The organization's own edge, a platform's edge for it and one that never asked; not the edge of others."""
    service.other_org("other1")
    own, platform = service.client("edge"), service.platform("edge")
    ask(own, "own-1")
    ask(platform, "hall-2", HOSTS)
    ask(service.platform("edge", orgs=["other1"]), "elsewhere")
    waiting = label_key(service.platform("edge", orgs=["mtxpd0"]).key)
    edges = listed(service)
    assert set(edges) == {"edge:own-1", "edge:hall-2", None}
    assert edges["edge:hall-2"] == {
        "edge": "edge:hall-2",
        "key": label_key(platform.key),
        "askedAt": "2026-06-01T12:00:00Z",
        "silent": False,
        "revoked": False,
    }
    assert (edges[None]["key"], edges[None]["askedAt"], edges[None]["silent"]) == (waiting, None, False)


def test_an_edge_without_a_name_is_listed_by_its_key(service: Service) -> None:
    """The agent of version 0.1.0 gives no name."""
    edge = service.platform("edge")
    ask(edge)
    assert listed(service)[None]["key"] == label_key(edge.key)
    assert listed(service)[None]["askedAt"] == "2026-06-01T12:00:00Z"


def test_a_silent_edge_is_shown_and_logged(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The next caller notices: another edge, the API's reader, a sweep. One warning an hour, for a day."""
    caplog.set_level(logging.WARNING)
    dead, other = service.platform("edge"), service.platform("edge")
    ask(dead, "dead")
    service.clock.now += timedelta(seconds=60)
    ask(other, "other")
    assert (warnings(caplog), listed(service)["edge:dead"]["silent"]) == ([], False)
    service.clock.now += timedelta(seconds=1)
    assert listed(service)["edge:dead"]["silent"]
    assert warnings(caplog) == ["edge:dead"]
    for _ in range(20):
        service.clock.now += timedelta(seconds=31)
        ask(other, "other")
    assert warnings(caplog) == [], "once an hour"
    service.clock.now += timedelta(hours=1)
    ask(other, "other")
    assert warnings(caplog) == ["edge:dead"]
    ask(dead, "dead")
    assert not listed(service)["edge:dead"]["silent"]
    service.clock.now += timedelta(seconds=61)
    assert warn_of_silent_edges(service.app.context) == 2
    assert sorted(warnings(caplog)) == ["edge:dead", "edge:other"]
    service.clock.now += timedelta(days=1)
    assert warn_of_silent_edges(service.app.context) == 0, "an edge that was taken away"
    service.clock.now += timedelta(days=30)
    assert set(listed(service)) == {None}


def test_another_edge_notices_by_its_next_question(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    dead, other = service.platform("edge"), service.platform("edge")
    ask(dead, "dead")
    ask(other, "other")
    service.clock.now += timedelta(seconds=61)
    ask(other, "other")
    assert warnings(caplog) == ["edge:dead"]


def test_an_edge_whose_key_is_revoked_becomes_silent(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    edge = service.platform("edge")
    ask(edge, "refused")
    revoke_key(service.app.context, edge.key)
    service.clock.now += timedelta(seconds=61)
    assert edge.get(WITHDRAWALS).status == 401
    shown = listed(service)["edge:refused"]
    assert (shown["silent"], shown["revoked"]) == (True, True)
    assert warnings(caplog) == ["edge:refused"]


def test_an_edge_that_gets_a_name_is_not_taken_for_a_silent_one(service: Service) -> None:
    """An agent is upgraded and gives its name from then on."""
    edge = service.platform("edge")
    ask(edge)
    service.clock.now += timedelta(seconds=61)
    ask(edge, "hall-2")
    assert warn_of_silent_edges(service.app.context) == 0


def test_an_edge_is_written_at_most_every_thirty_seconds(service: Service) -> None:
    """Also where several processes answer the edge."""
    edge = service.platform("edge")
    context = service.app.context
    other_process = Heartbeats(context.repository, context.clock, RunAtOnce())
    ask(edge, "hall-2")
    before = service.store.calls["put"]
    for _ in range(59):
        service.clock.now += timedelta(seconds=0.5)
        ask(edge, "hall-2")
        other_process.note(None, edge.key, "hall-2")
    assert service.store.calls["put"] == before
    service.clock.now += timedelta(seconds=0.5)
    ask(edge, "hall-2")
    other_process.note(None, edge.key, "hall-2")
    assert service.store.calls["put"] == before + 1


def test_an_edge_is_answered_while_its_time_cannot_be_stored(service: Service) -> None:
    def refuse(name: str, key: Key | None, call: Any) -> Any:
        if key is not None and key.partition.startswith("edge/"):
            raise StoreUnavailable
        return call()

    service.store.between = refuse
    ask(service.platform("edge"), "hall-2")


@pytest.mark.stores("sqlite")  # the limit is counted in the process and in a list (tests/conformance)
def test_an_edge_can_choose_only_so_many_names(service: Service) -> None:
    edge = service.platform("edge")
    for number in range(250):
        ask(edge, f"n{number}")
    service.clock.now += timedelta(seconds=31)
    ask(edge, "n3")
    edges = listed(service)
    assert len(edges) == 200
    assert edges["edge:n3"]["askedAt"] == "2026-06-01T12:00:31Z"


def test_an_edge_of_many_names_takes_no_place_of_others_in_the_background(service: Service) -> None:
    """Where the background is full, the time of another edge would be lost, and that edge would seem silent."""
    work: list[Any] = []
    heartbeats = Heartbeats(service.app.context.repository, service.clock, SimpleNamespace(run=work.append))
    for number in range(1000):
        heartbeats.note("mtxpd0", "a-mtxpd0-0123456789", f"n{number}")
    assert len(work) == 200
    heartbeats.note(None, "p-0123456789", "hall-2")
    assert len(work) == 201
    service.clock.now += timedelta(seconds=31)
    heartbeats.note("mtxpd0", "a-mtxpd0-0123456789", "n999")
    assert len(work) == 202


@pytest.mark.parametrize("name", ["-x", "a b", "a" * 65, "ädge", "a|b"])
@pytest.mark.parametrize("path", [HOSTS, WITHDRAWALS])
def test_a_name_that_is_no_edges_is_refused(service: Service, path: str, name: str) -> None:
    assert service.platform("edge").get(path, query={"edge": name}).code == "wrong_value"


def test_an_edge_that_calls_itself_admin_is_shown_as_an_edge(service: Service, operator: Client) -> None:
    """`served` writes the edge's own word into the activity list."""
    from tests.functions.test_edge_feed import HOST, activate, own

    activate(operator, own())
    edge = service.platform("edge")
    version = {host["serverName"]: host["version"] for host in edge.get(HOSTS).ok()["hosts"]}[HOST]
    report = {"edge": "admin", "hosts": [{"serverName": HOST, "version": version}]}
    assert edge.post("//edge/v1/served", report).ok()["taken"] == 1
    entries = operator.get("/activity?kind=edge").ok()["results"]
    assert [entry["who"] for entry in entries if entry["what"] == "served"] == ["edge:admin"]

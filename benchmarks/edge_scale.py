"""Measure the HAProxy edge with many hosts: real functions, agent and HAProxy on this machine.

Some of the hosts have a certificate of their own, the others have the platform's default. `make bench` measures a tenth
of the size that the edge is designed for. The full size: `python -m benchmarks.edge_scale --hosts 10000 --own 1000`.
"""

import argparse
import datetime as dt
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.table import Figure, Row, format_table
from demo.device import fetch_fingerprint
from demo.processes import free_port, until
from demo.stack import DOMAIN, Functions, HAProxyEdge, Org
from shared.composition import build
from shared.config import Settings
from shared.records import Role
from shared.usecases.orgs import api_keys
from shared.usecases.orgs import organizations as orgs
from tests.support import certs

PATIENCE = 900.0


def measure(quick: bool) -> list[Row]:
    return measure_scale(50, 10) if quick else measure_scale(1_000, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--own", type=int, default=1_000)
    chosen = parser.parse_args()
    print(format_table(measure_scale(chosen.hosts, chosen.own)))


def measure_scale(hosts: int, own: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="edge-scale-") as folder:
        return Scale(hosts).run(Path(folder), own)


class Scale:
    """One run with *hosts* organizations."""

    def __init__(self, hosts: int) -> None:
        self._hosts = hosts
        self._rows: list[Row] = []

    def _report(self, what: str, figure: Figure) -> None:
        self._rows.append(Row(f"edge with {self._hosts:,} hosts: {what}", value=figure))
        print(f"{what:<72} {figure}", file=sys.stderr, flush=True)

    @contextmanager
    def _time(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._report(what, Figure(time.monotonic() - start, "s"))

    def run(self, folder: Path, own: int) -> list[Row]:
        functions = Functions(folder, settings={"TRUST_LOG": "ERROR"})
        names = [f"h{number:05}" for number in range(self._hosts)]
        with self._time(f"(making them, {own:,} with a certificate of their own)"):
            keys = make_orgs(functions, names, own)
            functions.start()
            for name, key in zip(names, keys, strict=False):
                activate_own(Org(functions, name, key))
        edge_key, broker_key = functions.key_file(Role.EDGE), functions.key_file(Role.BROKER)
        edge = HAProxyEdge(folder, functions.url, edge_key, broker_key, free_port(), free_port())
        last = f"{names[-1]}.messaging.{DOMAIN}"
        first = Org(functions, names[0], keys[0])
        try:
            with self._time("first synchronization, before HAProxy runs (--once)"):
                edge.sync_once()
            with self._time("HAProxy's start with all of them"):
                edge.start_haproxy(PATIENCE)
            with self._time("agent's start until it has compared HAProxy with its disk and reported"):
                edge.start_agent()
                wait_until_reported(edge, self._hosts)
            self._measure_change(edge, first)
            self._report("HAProxy's memory", Figure(measure_resident(edge), "MiB"))
            functions.stop()
            edge.stop()
            with self._time("restart of HAProxy and agent while the functions are away, until shown"):
                edge.sync_once()
                edge.start_haproxy(PATIENCE)
                until("the last host", lambda: fetch_fingerprint(edge.port, last), PATIENCE)
            functions.start()
            edge.stop()
            other = folder / "other"
            other.mkdir()
            edge = HAProxyEdge(other, functions.url, edge_key, broker_key, free_port(), free_port())
            edge.state.mkdir()
            (edge.state / "crt-list.txt").write_text("")
            edge.start_haproxy()
            with self._time("first synchronization into a running, empty HAProxy"):
                edge.start_agent()
                wait_until_reported(edge, self._hosts)
            self._measure_change(edge, first)
        finally:
            edge.stop()
            functions.stop()
        return self._rows

    def _measure_change(self, edge: HAProxyEdge, org: Org) -> None:
        times = []
        for _ in range(5):
            issued = activate_own(org)
            start = time.monotonic()
            until("the change", partial(is_served, edge, org.host, issued.fingerprint), PATIENCE, every=0.01)
            times.append(time.monotonic() - start)
        self._report("one change among them, from the API's answer until it is shown", Figure.of(times, "s"))


def make_orgs(functions: Functions, names: list[str], own: int) -> list[str]:
    """Create organizations. Return the operators' keys of the first *own*."""
    app = build(Settings.from_env(functions.env))
    keys = []
    for number, name in enumerate(names):
        orgs.create_org(app.context, name)
        if number < own:
            key, token = api_keys.create_key(app.context, org_id=name, role=Role.OPERATOR)
            keys.append(f"{key.key}:{token}")
    app.close()
    return keys


def activate_own(org: Org) -> certs.Issued:
    now = dt.datetime.now(dt.UTC)
    issued = certs.server(org.host, not_before=now - certs.DAY, not_after=now + certs.YEAR)
    org.activate(org.upload_server(issued.pem, issued.key_pem))
    return issued


def is_served(edge: HAProxyEdge, host: str, fingerprint: str) -> bool:
    return fetch_fingerprint(edge.port, host) == fingerprint


def wait_until_reported(edge: HAProxyEdge, hosts: int) -> None:
    """Wait until the agent has reported to edgeFeed that HAProxy serves all hosts."""
    state = edge.state / "hosts.json"

    def is_reported() -> bool:
        return state.exists() and state.read_text().count('"reported": true') >= hosts

    until("the agent's report", is_reported, PATIENCE, every=0.2)


def measure_resident(edge: HAProxyEdge) -> float:
    """Return HAProxy's resident memory, in MiB."""
    assert edge.haproxy is not None
    status = Path(f"/proc/{edge.haproxy.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()

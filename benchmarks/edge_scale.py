"""How the HAProxy edge bears many hosts: `python -m benchmarks.edge_scale --hosts 10000 --own 1000`.

Real functions, agent and HAProxy on this machine. *own* of the hosts have a certificate of their own, the others the
platform's default. Prints each figure in a line; docs/operations.md has those of one run.
"""

import argparse
import datetime as dt
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from demo.device import shown_certificate
from demo.processes import free_port, until
from demo.stack import DOMAIN, Functions, HAProxyEdge, Org
from shared.composition import build
from shared.config import Settings
from shared.records import Role
from shared.usecases import orgs
from tests import certs

PATIENCE = 900.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--own", type=int, default=1_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-scale-") as folder:
        run(Path(folder), chosen.hosts, chosen.own)


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"{what:<72} {time.monotonic() - start:8.2f} s", flush=True)


def run(folder: Path, hosts: int, own: int) -> None:
    functions = Functions(folder, settings={"TRUST_LOG": "ERROR"})
    names = [f"h{number:05}" for number in range(hosts)]
    with timed(f"(making {hosts} organizations, {own} with a certificate of their own)"):
        keys = make_orgs(functions, names, own)
        functions.start()
        for name, key in zip(names, keys, strict=False):
            activate_own(Org(functions, name, key))
    edge_key, broker_key = functions.key_file(Role.EDGE), functions.key_file(Role.BROKER)
    edge = HAProxyEdge(folder, functions.url, edge_key, broker_key, free_port(), free_port())
    last = f"{names[-1]}.messaging.{DOMAIN}"
    first = Org(functions, names[0], keys[0])
    try:
        with timed("first synchronization, before HAProxy runs (--once)"):
            edge.sync_once()
        with timed("HAProxy's start with all of them"):
            edge.start_haproxy(PATIENCE)
        with timed("agent's start until it has compared HAProxy with its disk and reported"):
            edge.start_agent()
            wait_reported(edge, hosts)
        one_change(edge, first)
        print(f"{'HAProxy’s memory':<72} {resident(edge):8.0f} MiB")
        functions.stop()
        edge.stop()
        with timed("restart of HAProxy and agent while the functions are away, until shown"):
            edge.sync_once()
            edge.start_haproxy(PATIENCE)
            until("the last host", lambda: shown_certificate(edge.port, last), PATIENCE)
        functions.start()
        edge.stop()
        other = folder / "other"
        other.mkdir()
        second = HAProxyEdge(other, functions.url, edge_key, broker_key, free_port(), free_port())
        second.state.mkdir()
        (second.state / "crt-list.txt").write_text("")
        second.start_haproxy()
        edge = second
        with timed("first synchronization into a running, empty HAProxy"):
            second.start_agent()
            wait_reported(second, hosts)
        one_change(second, first)
    finally:
        edge.stop()
        functions.stop()


def make_orgs(functions: Functions, names: list[str], own: int) -> list[str]:
    """Returns the operators' keys of the first *own*."""
    app = build(Settings.from_env(functions.env))
    keys = []
    for number, name in enumerate(names):
        orgs.create_org(app.tools, name)
        if number < own:
            key, token = orgs.create_key(app.tools, org_id=name, role=Role.OPERATOR)
            keys.append(f"{key.key}:{token}")
    app.close()
    return keys


def activate_own(org: Org) -> certs.Issued:
    now = dt.datetime.now(dt.UTC)
    issued = certs.server(org.host, not_before=now - certs.DAY, not_after=now + certs.YEAR)
    org.activate(org.upload_server(issued.pem, issued.key_pem))
    return issued


def one_change(edge: HAProxyEdge, org: Org) -> None:
    times = []
    for _ in range(5):
        issued = activate_own(org)
        start = time.monotonic()
        until("the change", partial(shows, edge, org.host, issued.fingerprint), PATIENCE, every=0.01)
        times.append(time.monotonic() - start)
    print(f"{'one change among them: API answer -> shown (median of 5)':<72} {sorted(times)[2]:8.2f} s", flush=True)


def shows(edge: HAProxyEdge, host: str, fingerprint: str) -> bool:
    return shown_certificate(edge.port, host) == fingerprint


def wait_reported(edge: HAProxyEdge, hosts: int) -> None:
    """Until the agent has told edgeFeed that HAProxy serves them all."""
    state = edge.state / "hosts.json"

    def done() -> bool:
        return state.exists() and state.read_text().count('"reported": true') >= hosts

    until("the agent's report", done, PATIENCE, every=0.2)


def resident(edge: HAProxyEdge) -> float:
    assert edge.haproxy is not None
    status = Path(f"/proc/{edge.haproxy.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()

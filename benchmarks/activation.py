"""Measure the time from the answer to `activate` to the first handshake with the new certificate (HAProxy, Envoy).

AWS IoT documents up to 60 minutes for a change of a custom domain's certificate, EMQX 120 s for its cache of one.
"""

import datetime as dt
import tempfile
import time
from pathlib import Path

from benchmarks.table import Figure, Row, Target
from demo.device import fetch_fingerprint
from demo.envoy import EnvoyEdge
from demo.processes import Missing, until
from demo.stack import Org, Stack
from tests.support import certs

_ORG = "alpha1"


def measure(quick: bool) -> list[Row]:
    times = 2 if quick else 15
    with tempfile.TemporaryDirectory(prefix="bench-activation-") as name:
        folder = Path(name)
        stack = Stack.start(folder)
        try:
            org = Org.create(stack.functions, _ORG)
            stack.wait_until_served(org.host)
            rows = [_row("HAProxy", [_seconds(org, stack.edge.port) for _ in range(times)])]
            rows.append(_measure_envoy(folder, stack, org, times))
        finally:
            stack.stop()
    return rows


def _measure_envoy(folder: Path, stack: Stack, org: Org, times: int) -> Row:
    edge = EnvoyEdge(folder, stack.functions, stack.broker.trusting, stack.broker.websockets)
    try:
        edge.start()
        edge.wait_until_served(org.host)
        return _row("Envoy", [_seconds(org, edge.port) for _ in range(times)])
    except Missing as missing:
        return Row("certificate activated until shown, Envoy", note=str(missing))
    finally:
        edge.stop()


def _seconds(org: Org, port: int) -> float:
    now = dt.datetime.now(dt.UTC)
    issued = certs.server(org.host, not_before=now - certs.DAY, not_after=now + certs.YEAR)
    server_id = org.upload_server(issued.pem, issued.key_pem)
    org.activate(server_id)
    start = time.monotonic()
    until("the new certificate", lambda: fetch_fingerprint(port, org.host) == issued.fingerprint, every=0.01)
    return time.monotonic() - start


def _row(edge: str, took: list[float]) -> Row:
    worst = {"worst": Figure(max(took), "s")}
    return Row(
        f"certificate activated until shown, {edge}", value=Figure.of(took, "s"), target=Target(below=1), figures=worst
    )

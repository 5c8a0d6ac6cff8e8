"""Row 1: an organization whose devices send chains that are costly to judge must not keep other devices out.

The chains are those of `tests.support.costly`: CAs of one name with name constraints, below registered CAs of one name,
above a device that expired and has many names. All of it is within the limits of every version.
"""

import base64
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from demo.device import Device, context
from demo.processes import until
from demo.stack import Org, Stack
from shared.records import Role
from tests.attacks.rig import Attacked, attacked
from tests.e2e.pki import Files, Pki
from tests.support import costly
from tests.support.costly import Costly

pytestmark = pytest.mark.slow

CPU_PROMISED: Final = 0.1  # seconds of CPU of one decision
CALLOUTS: Final = 5
ATTACKERS: Final = 16
CONNECTIONS: Final = 30
SHAPE: Final = (2, 2, 2, 1, 1, 1)
CONNECT: Final = b"\x10\x1e\x00\x04MQTT\x04\x02\x00\x3c\x00\x12d:evil01:thermo:42"


def costly_chain(kind: str, limits: int) -> Costly:
    return costly.paths(SHAPE, roots=10, limits=limits, named=128, kind=kind, at=datetime.now(UTC))


def register(functions: Attacked, chain: Costly) -> Org:
    """Create the attacker's organization with its CAs."""
    evil = Org.create(functions, "evil01")
    for ca in chain.registered:
        evil.upload_ca(ca.pem)
    return evil


def cpu_seconds(process_id: int) -> float:
    """Return the CPU time of a process so far (proc(5), /proc/pid/stat: utime and stime)."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(("kind", "limits"), [("long uri", 60), ("uri", 128), ("directory", 100)])
def test_one_decision_costs_little(tmp_path: Path, kind: str, limits: int) -> None:
    """The CPU time of the functions for one callout of the attacker's own broker."""
    chain = costly_chain(kind, limits)
    with attacked(tmp_path) as functions:
        evil = register(functions, chain)
        broker = functions.key(Role.BROKER, "evil01")
        question = {
            "serverName": evil.host,
            "clientId": "d:evil01:thermo:42",
            "certificateDer": base64.b64encode(chain.leaf.der).decode(),
            "chainDer": base64.b64encode(chain.chain).decode(),
        }
        assert functions.process is not None
        process_id = functions.process.pid
        before = cpu_seconds(process_id)
        for _ in range(CALLOUTS):
            answer = functions.call(broker, "POST", "/authorization/verifyclient", question)
        until("the end of the work", lambda: is_idle(process_id), 60)  # which may be after the answer
        cost = (cpu_seconds(process_id) - before) / CALLOUTS
        sent = len(chain.leaf.der) + len(chain.chain)
        sys.stdout.write(f"{kind}: {sent} bytes, {answer['code']}, {cost:.3f} s of CPU for each decision\n")
        assert answer["decision"] == "deny"
        assert cost <= CPU_PROMISED


def is_idle(process_id: int) -> bool:
    """Whether the process takes no CPU for a second: on a busy machine, work may have to wait for so long."""
    before = cpu_seconds(process_id)
    time.sleep(1)
    return cpu_seconds(process_id) - before <= 0.01


@contextmanager
def attackers(stack: Stack, connect: Callable[[], None]) -> Iterator[list[int]]:
    """Call *connect* in ATTACKERS threads, over and over, within the block. Yield how often each has called."""
    stop, made = threading.Event(), [0] * ATTACKERS

    def attack(number: int) -> None:
        while not stop.is_set():
            with suppress(OSError):
                connect()
            made[number] += 1

    with ThreadPoolExecutor(ATTACKERS) as pool:
        futures = [pool.submit(attack, number) for number in range(ATTACKERS)]
        try:
            yield made
        finally:
            stop.set()
            for future in futures:
                future.result(60)


def present(port: int, host: str, files: Files) -> None:
    """Connect as a device with *files*, and wait for the end of the connection, or for 30 s."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context(host, files).wrap_socket(plain) as secure,
    ):
        secure.sendall(CONNECT)
        secure.recv(16)


@pytest.mark.parametrize(("kind", "limits"), [("long uri", 60)])
def test_devices_of_another_organization_get_in(stack: Stack, tmp_path: Path, kind: str, limits: int) -> None:
    """16 devices of one organization connect as fast as they can, with costly chains. Another's all get in."""
    functions = stack.functions
    assert isinstance(functions, Attacked)
    chain = costly_chain(kind, limits)
    evil, pki = register(functions, chain), Pki(tmp_path / "evil", "evil")
    costly_files = pki.files(chain.leaf, *chain.sent)
    good = Org.create(functions, "good01")
    good_pki = Pki(tmp_path / "good", "good")
    good.upload_ca(good_pki.root.pem)
    _, files = good_pki.leaf("d:thermo:1")
    for org in (evil, good):
        stack.wait_until_served(org.host)
    outcomes, seconds = [], []
    with attackers(stack, lambda: present(stack.edge.port, evil.host, costly_files)) as made:
        until("the first costly connections", lambda: sum(made) >= ATTACKERS, 120)
        for _ in range(CONNECTIONS):
            began = time.monotonic()
            device = Device(stack.edge.port, "d:good01:thermo:1", context(good.host, files))
            device.connect(seconds=30)
            seconds.append(time.monotonic() - began)
            outcomes.append(device.outcome)
            device.close()
        refused = sum(made)
    slowest = sorted(seconds)[-1]
    sys.stdout.write(
        f"{outcomes.count('connected')} of {CONNECTIONS} got in, median {statistics.median(seconds):.2f} s, "
        f"slowest {slowest:.2f} s, beside {refused} costly connections\n"
    )
    assert outcomes == ["connected"] * CONNECTIONS

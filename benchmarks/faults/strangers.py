"""Strangers on the network: clients without a key that take as much of an HTTP server as it gives.

python -m benchmarks.faults.strangers PORT KIND SECONDS   prints what they saw as JSON

`meet` runs them in a process of its own, and measures another caller's requests and the server's memory meanwhile.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.faults.load import CAS, KeepAliveCaller
from benchmarks.faults.rig import DOMAIN
from shared.usecases.orgs.first_start import DEMO_ORG
from shared.validation.names import messaging_host
from tests.support import certs, server

ROOT: Final = Path(__file__).parents[2]
_READ: Final = 64 * 1024

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


class _Seen(Counter[str]):
    """What strangers saw: `opened`, `closed` and `refused` connections, `requests`, and statuses of answers."""

    def note(self, answer: bytes) -> None:
        for line in answer.split(b"\r\n"):
            if line.startswith(b"HTTP/1.1 "):
                self[line[9:12].decode()] += 1


async def _drip(reader: Reader, writer: Writer, seen: _Seen) -> None:
    """Send a byte each second until the server answers or closes the connection."""
    await writer.drain()
    async with asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(reader.read(_READ))
        while not (await asyncio.wait([answer], timeout=1))[0]:
            writer.write(b"a")
            await writer.drain()
    seen.note(answer.result())


async def _half_request(reader: Reader, writer: Writer, seen: _Seen) -> None:
    """Send a header that never ends, a byte each second: the connection is never idle for long."""
    writer.write(b"POST /verifyClient HTTP/1.1\r\nHost: trust\r\nX-Slow: ")
    await _drip(reader, writer, seen)


async def _half_body(reader: Reader, writer: Writer, seen: _Seen) -> None:
    """Announce a body, and send a byte of it each second."""
    writer.write(b"POST /verifyClient HTTP/1.1\r\nHost: trust\r\nContent-Length: 250000\r\n\r\n" + b"x" * 200_000)
    await _drip(reader, writer, seen)


async def _endless_header(reader: Reader, writer: Writer, seen: _Seen) -> None:
    """Send one header line without an end, as fast as the server takes it."""
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: trust\r\nX-Long: ")
    async with asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(reader.read(_READ))
        while not answer.done():
            writer.write(b"a" * 65536)
            await writer.drain()
            await asyncio.sleep(0)
    seen.note(answer.result())


async def _pipelining(reader: Reader, writer: Writer, seen: _Seen) -> None:
    """Send requests without waiting for the answers, which are not read."""
    requests = b"GET /healthz HTTP/1.1\r\nHost: trust\r\n\r\n" * 1000
    while not reader.at_eof():
        writer.write(requests)
        await writer.drain()
        seen["requests"] += 1000
        await asyncio.sleep(0.02)


_PART: Final = b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n\r\n'
_FORM: Final = _PART * 3800 + b"--b--\r\n"


async def _multipart(reader: Reader, writer: Writer, seen: _Seen) -> None:
    """Send forms of many parts with a key that does not exist, one after the other."""
    head = (
        "POST /api/v0002/authorization/verifyclient HTTP/1.1\r\nHost: trust\r\n"
        "Authorization: Basic YS1tdHhwZDAtMTIzNDU2Nzg5MDp4\r\n"  # a-mtxpd0-1234567890:x
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(_FORM)}\r\n\r\n"
    )
    while not reader.at_eof():
        writer.write(head.encode() + _FORM)
        await writer.drain()
        answer = await reader.readuntil(b"\r\n\r\n")
        seen.note(answer)
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))


async def _slow_reader(reader: Reader, writer: Writer, seen: _Seen) -> None:
    """Ask for the largest public answer again and again, and read nothing of it."""
    reader._transport.pause_reading()  # type: ignore[attr-defined] # asyncio would read on its own
    while not writer.is_closing():
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: trust\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.2)


Behaviour = Callable[[Reader, Writer, _Seen], Awaitable[None]]
KINDS: Final[dict[str, tuple[int, Behaviour]]] = {
    "1,100 half requests": (1100, _half_request),
    "300 half bodies": (300, _half_body),
    "an endless header": (1, _endless_header),
    "120 pipelining connections": (120, _pipelining),
    "16 multipart strangers": (16, _multipart),
    "100 slow readers": (100, _slow_reader),
}
"""What strangers do -> how many connections do it, and how."""


async def _repeat(port: int, behaviour: Behaviour, seen: _Seen, end: float) -> None:
    """Behave so on one connection, and on another when that one is closed, until *end*."""
    while (left := end - time.monotonic()) > 0:
        # A task group whose task fails at the moment of the time-out raises that failure, and the time-out is lost.
        # Each connection therefore has a time-out of its own.
        try:
            async with asyncio.timeout(left):
                await _behave_once(port, behaviour, seen)
        except (OSError, EOFError, ExceptionGroup):  # TimeoutError is an OSError
            await asyncio.sleep(0.01)


async def _behave_once(port: int, behaviour: Behaviour, seen: _Seen) -> None:
    """Behave so on one connection, until the server closes it. Raises: OSError, EOFError, ExceptionGroup."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        seen["refused"] += 1
        raise
    seen["opened"] += 1
    try:
        await behaviour(reader, writer, seen)
    finally:
        writer.transport.abort()
        seen["closed"] += 1


async def _attack(port: int, kind: str, seconds: float) -> _Seen:
    count, behaviour = KINDS[kind]
    seen = _Seen()
    end = time.monotonic() + seconds
    await asyncio.gather(*(_repeat(port, behaviour, seen, end) for _ in range(count)))
    return seen


# ------------------------------------------------------------------------------------- the other caller, and memory

MEMORY_MAX: Final = 200  # MiB of a process, whatever strangers do
_P99_MAX: Final = 1.0  # seconds of another caller's request


def is_allowed(caller: KeepAliveCaller, question: Mapping[str, str]) -> bool:
    """Ask for a verdict, on a new connection. Return whether the device may connect."""
    result = caller("POST", "/verifyClient", question)
    caller.close()
    return isinstance(result.body, dict) and result.body.get("decision") == "allow"


@dataclass(frozen=True)
class Met:
    """What a server did while strangers were there.

    Args:
        seen: what the strangers saw.
        seconds: of each request of the other caller.
        failed: requests of the other caller that were not answered as they should be.
        memory: the largest resident set of a process of the server, in MiB.
    """

    kind: str
    seen: dict[str, int]
    seconds: list[float]
    failed: int
    memory: float

    @property
    def good(self) -> bool:
        return not self.failed and self.p99 < _P99_MAX and self.memory < MEMORY_MAX

    @property
    def p50(self) -> float:
        return sorted(self.seconds)[len(self.seconds) // 2]

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]

    def __str__(self) -> str:
        return (
            f"{self.kind}: another caller's {len(self.seconds)} requests: median {self.p50 * 1000:.0f} ms, "
            f"p99 {self.p99 * 1000:.0f} ms, slowest {max(self.seconds) * 1000:.0f} ms, {self.failed} failed; "
            f"memory {self.memory:.0f} MiB; strangers saw {self.seen}"
        )


def meet(kind: str, port: int, pid: int, ask: Callable[[], bool], *, seconds: float) -> Met:
    """Let strangers of *kind* at the server for *seconds*, and measure another caller meanwhile.

    Args:
        pid: the server's process, whose children count too.
        ask: makes a request of the other caller; returns whether the answer is right.
    """
    command = [sys.executable, "-m", "benchmarks.faults.strangers", str(port), kind, str(seconds)]
    took: list[float] = []
    failed, memory = 0, resident(pid)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as strangers:
        try:
            while strangers.poll() is None:
                began = time.monotonic()
                failed += not ask()
                took.append(time.monotonic() - began)
                memory = max(memory, resident(pid))
                time.sleep(0.02)
            assert strangers.stdout is not None
            seen = json.loads(strangers.stdout.read())
        finally:
            strangers.kill()  # Popen waits for the end of the process, also after a failure
    return Met(kind, seen, took, failed, memory)


def resident(pid: int) -> float:
    """Return the largest resident set among a process and its children, in MiB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return max(_resident(int(each)) for each in [str(pid), *children])


def _resident(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


def meet_every_kind(folder: Path, seconds: float) -> list[Met]:
    """Start the local server in *folder*, and let each kind of strangers at it for *seconds*."""
    running = server.start(folder, TRUST_DOMAIN=DOMAIN)
    address = f"127.0.0.1:{running.port}"
    try:
        root = certs.ca("Root")
        with closing(KeepAliveCaller(lambda: address, running.keys["operator"])) as operator:
            operator("POST", CAS, {"certificate": root.pem})
        question = {
            "serverName": messaging_host(DEMO_ORG, DOMAIN),
            "clientId": f"d:{DEMO_ORG}:thermo:1",
            "certificate": certs.leaf("d:thermo:1", root).pem,
        }
        with closing(KeepAliveCaller(lambda: address, running.keys["broker"])) as broker:
            ask = partial(is_allowed, broker, question)
            return [meet(kind, running.port, running.process.pid, ask, seconds=seconds) for kind in KINDS]
    finally:
        running.stop()


if __name__ == "__main__":
    os.nice(10)  # strangers have machines of their own: the server's processors are not theirs to take
    print(json.dumps(asyncio.run(_attack(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))))

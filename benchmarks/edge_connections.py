"""Measure device connections through HAProxy: TLS handshake with a client certificate, CONNECT, CONNACK, close.

    callout       edge/haproxy with its callout to verifyClient (functions.local, the embedded store); once where each
                  device was seen before, and once with TRUST_VERDICT_MEMORY=0
    empty         the same, with a callout to a function that allows everything, on the same server
    mutual TLS    the same HAProxy without a callout; HAProxy verifies against the CA itself

All of them use one broker and the same clients. All keys are P-256: handshakes are cheap, so the share of the callout
is as large as it can be. Clients and servers share the processors of this machine.
"""

import multiprocessing
import re
import socket
import ssl
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Final

from benchmarks.fleet import ORG, Fleet, make_fleet
from benchmarks.table import Figure, Row, Spread, Target
from demo.device import connect_packet
from demo.processes import Process, free_port, program
from demo.stack import EDGE, ROOT, Broker, Functions, HAProxyEdge, Org
from shared.records import Role

SEEN, NEVER = "callout, seen", "callout, never seen"
EMPTY, MUTUAL = "empty callout", "mutual TLS, no callout"
_PROCESSES: Final = 2
_THREADS: Final = 8  # per process
_CONNACK: Final = b"\x20\x02\x00\x00"  # accepted (MQTT 3.1.1, 3.2)


# --------------------------------------------------------------------------------------------------------------- edges


class MutualTLS(HAProxyEdge):
    """edge/haproxy/haproxy.cfg without the callout: every device with a certificate of the CA is admitted."""

    @property
    def config(self) -> Path:
        text = (EDGE / "haproxy" / "haproxy.cfg").read_text()
        text = re.sub(r"^ *(lua-load|tcp-request|acl|use_backend) .*\n", "", text, flags=re.M)
        text = re.sub(r"verify optional .*$", f'verify required ca-file "{self.folder}/root.pem"', text, flags=re.M)
        path = self.folder / "mutual.cfg"
        path.write_text(text.replace("default_backend broker_asking", "default_backend broker_trusting"))
        return path

    def start_haproxy(self, seconds: float = 60) -> None:
        command = [program("haproxy", "haproxy"), "-db", "-f", str(self.config)]
        self.haproxy = Process("haproxy", command, self.folder / "haproxy.log", env=self.env)
        self.haproxy.wait_for_port(self.port, seconds)


@contextmanager
def edges(folder: Path, devices: Fleet) -> Iterator[tuple[dict[str, int], str]]:
    """Start all edges. Yield the port of each edge, and the host that all of them serve."""
    with ExitStack() as stack:
        functions = Functions(folder)
        stack.callback(functions.stop)
        functions.start()
        settings = {"TRUST_DATA": str(folder / "data"), "TRUST_VERDICT_MEMORY": "0"}
        forgetful = Functions(folder / "forgetful", settings=settings)
        forgetful.folder.mkdir()
        stack.callback(forgetful.stop)
        forgetful.start()
        broker = Broker(folder)
        stack.callback(broker.stop)
        broker.start({})
        org = Org.create(functions, ORG)
        org.upload_ca(devices.root.pem)
        keys = functions.key_file(Role.EDGE), functions.key_file(Role.BROKER)
        empty = free_port()
        command = [sys.executable, "-m", "uvicorn", "benchmarks.empty.callout:app", f"--port={empty}"]
        server = Process("empty", [*command, "--no-access-log"], folder / "empty.log", cwd=ROOT)
        stack.callback(server.stop)
        server.wait_for_port(empty)
        ports = {}
        kinds: Mapping[str, tuple[type[HAProxyEdge], str]] = {
            SEEN: (HAProxyEdge, functions.url),
            NEVER: (HAProxyEdge, forgetful.url),
            EMPTY: (HAProxyEdge, f"http://127.0.0.1:{empty}"),
            MUTUAL: (MutualTLS, functions.url),
        }
        for number, (name, (kind, url)) in enumerate(kinds.items()):
            own = folder / str(number)
            own.mkdir()
            (own / "root.pem").write_text(devices.root.pem)
            # No agent runs beside these edges.
            settings = {"TRUST_EDGE_STALE_AFTER": "0"}
            edge = kind(own, functions.url, *keys, broker.trusting, broker.asking, settings=settings)
            stack.callback(edge.stop)
            edge.sync_once()
            edge.url = url
            edge.start_haproxy()
            ports[name] = edge.port
        yield ports, org.host


# ------------------------------------------------------------------------------------------------------------- clients


@dataclass(frozen=True)
class ConnectionLoad:
    """Connections per second, and the duration of each connection in seconds."""

    rate: float
    took: Sequence[float]


class LoadDevice:
    """Connect repeatedly, each time with a full handshake."""

    def __init__(self, port: int, host: str, client_id: str, files: tuple[Path, Path]) -> None:
        self._port, self._host = port, host
        self._packet = connect_packet(client_id)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname, self._tls.verify_mode = (
            False,
            ssl.CERT_NONE,
        )  # the server's certificate is not verified
        self._tls.load_cert_chain(*files)

    def connect(self) -> float:
        """Return the seconds until the broker's CONNACK. Raises: OSError, if the broker does not accept."""
        start = time.perf_counter()
        with socket.create_connection(("127.0.0.1", self._port), timeout=20) as plain:
            # With linger 0 the kernel drops the connection at once; else thousands in TIME_WAIT would use up the ports.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with self._tls.wrap_socket(plain, server_hostname=self._host) as secure:
                secure.sendall(self._packet)
                answer = secure.recv(4)
                took = time.perf_counter() - start
        if answer != _CONNACK:
            raise OSError(f"the broker answered {answer!r}")
        return took


def run_load(port: int, host: str, files: Sequence[tuple[Path, Path]], seconds: float, rate: float) -> ConnectionLoad:
    """Run all clients for *seconds*: *rate* connections per second in total, or as fast as possible if *rate* is 0."""
    forks = multiprocessing.get_context("fork")
    results: SimpleQueue[list[float]] = forks.SimpleQueue()
    running = []
    for number in range(_PROCESSES):
        clients = [
            LoadDevice(port, host, f"d:{ORG}:thermo:{at:06}", files[at])
            for at in range(number * _THREADS, (number + 1) * _THREADS)
        ]
        running.append(forks.Process(target=_connect, args=(clients, seconds, rate / _PROCESSES, results.put)))
    start = time.perf_counter()
    for process in running:
        process.start()
    took = [duration for _ in running for duration in results.get()]
    whole = time.perf_counter() - start
    for process in running:
        process.join()
    if not took:
        raise RuntimeError("no device was admitted")
    return ConnectionLoad(len(took) / whole, took)


def _connect(devices: Sequence[LoadDevice], seconds: float, rate: float, report: Callable[[list[float]], None]) -> None:
    took: list[float] = []
    start = time.perf_counter()
    lock, turns = threading.Lock(), iter(range(1 << 30))

    def run(device: LoadDevice) -> None:
        while True:
            if rate:
                with lock:
                    at = start + next(turns) / rate
                time.sleep(max(at - time.perf_counter(), 0))
            if time.perf_counter() - start > seconds:
                return
            took.append(device.connect())

    threads = [threading.Thread(target=run, args=(device,)) for device in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report(took)


def _write_files(folder: Path, devices: Fleet) -> list[tuple[Path, Path]]:
    files = []
    for number, (issued, sent) in enumerate(zip(devices.devices, devices.sent, strict=True)):
        pem, key = folder / f"device-{number}.pem", folder / f"device-{number}.key"
        pem.write_bytes(sent)
        key.write_text(issued.key_pem)
        files.append((pem, key))
    return files


# ---------------------------------------------------------------------------------------------------------------- rows


def measure(quick: bool) -> list[Row]:
    rounds, seconds = (1, 1.0) if quick else (5, 2.5)
    devices = make_fleet("P-256", _PROCESSES * _THREADS)
    with tempfile.TemporaryDirectory(prefix="bench-edge-") as name:
        folder = Path(name)
        files = _write_files(folder, devices)
        with edges(folder, devices) as (ports, host):
            for port in ports.values():
                run_load(port, host, files, 1, 0)
            full = _run_rounds(ports, rounds, lambda port: run_load(port, host, files, seconds, 0))
            half = statistics.median(load.rate for load in full[EMPTY]) / 2
            with_callout = {name: ports[name] for name in (SEEN, NEVER, EMPTY)}
            paced = _run_rounds(with_callout, rounds, lambda port: run_load(port, host, files, seconds, half))
    rates = {name: [load.rate for load in loads] for name, loads in full.items()}
    figures = {name: Figure.of(samples, "connections/s") for name, samples in rates.items()}
    medians = {name: [statistics.median(load.took) for load in loads] for name, loads in paced.items()}
    added = {
        way: [mine - other for mine, other in zip(medians[way], medians[EMPTY], strict=True)] for way in (SEEN, NEVER)
    }
    what = "device connections through HAProxy"
    return [
        Row(f"{what}, saturated, seen", EMPTY, _ratio(rates, SEEN, EMPTY), Target(at_least=0.9), figures=figures),
        Row(f"{what}, saturated, never seen", EMPTY, _ratio(rates, NEVER, EMPTY)),
        *(Row(f"{what}, saturated, {way.partition(', ')[2]}", MUTUAL, _ratio(rates, way, MUTUAL)) for way in added),
        *(
            Row(
                f"{what}, half load ({half:.0f}/s), {way.partition(', ')[2]}: added at the median",
                EMPTY,
                value=Figure.of(samples, "ms", scale=1e3),
                target=Target(at_most=10),
                figures={name: Figure.of(medians[name], "ms", scale=1e3) for name in (way, EMPTY)},
            )
            for way, samples in added.items()
        ),
    ]


def _ratio(rates: Mapping[str, Sequence[float]], subject: str, against: str) -> Spread:
    return Spread.of([mine / other for mine, other in zip(rates[subject], rates[against], strict=True)])


def _run_rounds(
    ports: Mapping[str, int], rounds: int, run: Callable[[int], ConnectionLoad]
) -> dict[str, list[ConnectionLoad]]:
    loads: dict[str, list[ConnectionLoad]] = {name: [] for name in ports}
    for turn in range(rounds):
        for name in list(ports)[:: 1 if turn % 2 else -1]:
            loads[name].append(run(ports[name]))
    return loads

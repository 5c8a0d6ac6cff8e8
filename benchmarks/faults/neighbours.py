"""What one organization's costly work costs the others: verdicts, and withdrawals on their way to the edges.

Everything is HTTP, so that any version of the service can be measured.
"""

import base64
import http.client
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from demo.pki import OpensslPki
from demo.processes import program
from demo.stack import ApiRefused, Functions, Org
from shared.records import Role
from shared.x509.key_costs import ROUNDS_MAX
from tests.support import costly

_SERVERS: Final = "/authentication/servercertificates"
_GIVE_UP: Final = 30.0  # seconds to wait for an answer after the measurement
_EDGE_POLL: Final = 0.5  # seconds between two questions of an edge, as the agent asks


PROMISED: Final = 2.0  # seconds: of a verdict, and of an edge's question
HEADS: Final = (
    "the busy organization", "sent", "answered", "verdicts", "median ms", "p99 ms", "slowest ms", "wrong",
    "edge's question, slowest s", "withdrawal, slowest s",
)  # fmt: skip


@dataclass
class Costs:
    """What the neighbour of a busy organization saw.

    Args:
        verdicts: seconds of each verdict.
        refused: codes of the verdicts that were not the right "allow".
        changes: seconds of each change that the neighbour made.
        polls: seconds of each question of the edge.
        withdrawn: seconds from the answer to each change to its withdrawal at the edge.
        sent: how many requests the busy organization sent.
        answers: statuses of those requests that were answered.
    """

    verdicts: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    polls: list[float] = field(default_factory=list)
    withdrawn: list[float] = field(default_factory=list)
    sent: int = 0
    answers: dict[int, int] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.verdicts)

    @property
    def p99(self) -> float:
        return sorted(self.verdicts)[int(len(self.verdicts) * 0.99)]

    @property
    def good(self) -> bool:
        """Whether the neighbour had what is promised."""
        seen = (self.verdicts, self.polls, self.withdrawn)
        return not self.refused and all(seconds and max(seconds) < PROMISED for seconds in seen)

    def cells(self, name: str) -> list[str]:
        """Return a row of the table under HEADS."""
        answers = ", ".join(f"{count} × {status or 'none'}" for status, count in sorted(self.answers.items()))
        times = [f"{seconds * 1000:.0f}" for seconds in (self.median, self.p99, max(self.verdicts))]
        edge = [f"{max(seconds, default=0):.2f}" for seconds in (self.polls, self.withdrawn)]
        return [name, str(self.sent), answers, str(len(self.verdicts)), *times, str(len(self.refused)), *edge]

    def __str__(self) -> str:
        parts = [
            f"{len(self.verdicts)} verdicts: median {self.median * 1000:.1f} ms, p99 {self.p99 * 1000:.0f} ms, "
            f"slowest {max(self.verdicts) * 1000:.0f} ms, {len(self.refused)} wrong {sorted(set(self.refused))}"
        ]
        for name, seconds in (("changes", self.changes), ("polls", self.polls), ("withdrawals", self.withdrawn)):
            if seconds:
                parts.append(f"{name}: median {statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s")
        parts.append(f"the busy organization sent {self.sent}, answered: {dict(sorted(self.answers.items()))}")
        return "; ".join(parts)


class Neighbour:
    """An organization with a device, a broker that asks about the device, and an edge that follows withdrawals."""

    def __init__(self, functions: Functions, folder: Path, org_id: str) -> None:
        self._functions = functions
        self._org = Org.create(functions, org_id)
        pki = OpensslPki(folder / org_id, f"Root of {org_id}")
        self._org.upload_ca(pki.ca.read_text())
        self._question = {
            "serverName": self._org.host,
            "clientId": f"d:{org_id}:thermo:1",
            "certificate": pki.device("d:thermo:1")[0].read_text(),
        }
        self._broker = functions.key(Role.BROKER, org_id)
        self._edge = functions.key(Role.EDGE)

    def ask(self, costs: Costs) -> None:
        """Ask for one verdict, which must be "allow"."""
        began = time.monotonic()
        try:
            answer = self._functions.call(self._broker, "POST", "/verifyClient", self._question)
            if answer["decision"] != "allow":
                costs.refused.append(answer["code"])
        except (ApiRefused, OSError, http.client.HTTPException) as error:
            costs.refused.append(type(error).__name__)
        costs.verdicts.append(time.monotonic() - began)

    def follow(self, costs: Costs, head: str, stop: threading.Event) -> None:
        """Change the deny list again and again, and poll as an edge, until *stop* is set and all changes are seen."""
        made: dict[str, float] = {}  # identity -> when its change was answered
        changer = threading.Thread(target=self._change, args=(costs, made, stop), daemon=True)
        changer.start()
        seen: dict[str, float] = {}
        give_up = None
        while changer.is_alive() or not made.keys() <= seen.keys():
            began = time.monotonic()
            if stop.is_set():
                give_up = give_up or began + _GIVE_UP
                if began > give_up:
                    break
            try:
                page = self._functions.call(self._edge, "GET", f"//edge/v1/withdrawals?since={head}")
            except (ApiRefused, OSError, http.client.HTTPException):
                costs.polls.append(time.monotonic() - began)
                continue
            arrived, head = time.monotonic(), page["head"]
            costs.polls.append(arrived - began)
            seen |= {line["value"]: arrived for line in page["withdrawals"] if line["org"] == self._org.id}
            time.sleep(_EDGE_POLL)
        changer.join(_GIVE_UP)
        costs.withdrawn += [max(0.0, seen.get(value, time.monotonic()) - at) for value, at in list(made.items())]

    def head(self) -> str:
        """Return the present head of the feed of withdrawals."""
        head: str = self._functions.call(self._edge, "GET", "//edge/v1/withdrawals")["head"]
        return head

    def _change(self, costs: Costs, made: dict[str, float], stop: threading.Event) -> None:
        while not stop.wait(0.2):
            began = time.monotonic()
            identity = f"d:thermo:w{len(made)}"
            try:
                self._org.deny(kind="identity", value=identity)
            except (ApiRefused, OSError, http.client.HTTPException):
                costs.refused.append("a change")
                continue
            made[identity] = time.monotonic()
            costs.changes.append(made[identity] - began)


class Busy:
    """An organization that sends costly requests from many callers at the same time."""

    def __init__(self, functions: Functions, folder: Path, org_id: str) -> None:
        self._functions = functions
        self._org = Org.create(functions, org_id)
        self._key_file = costly_key_file(folder)
        self._broker = functions.key(Role.BROKER, org_id)
        chain = costly.paths((2, 2, 2, 1, 1, 1), roots=10, limits=60, named=128, kind="long uri", at=datetime.now(UTC))
        for ca in chain.registered:
            self._org.upload_ca(ca.pem)
        self._question = {
            "serverName": self._org.host,
            "clientId": f"d:{org_id}:thermo:42",
            "certificateDer": base64.b64encode(chain.leaf.der).decode(),
            "chainDer": base64.b64encode(chain.chain).decode(),
        }
        self._lock = threading.Lock()

    def try_passphrase(self) -> None:
        """Upload a key file at the rounds limit with a wrong passphrase."""
        body = {"certificate": "-", "privateKey": self._key_file, "passphrase": "wrong"}
        self._org.call("POST", _SERVERS, body)

    def make_rsa_key(self) -> None:
        """Request a certificate for a new RSA-4096 key; delete the request, so that the next one has room."""
        made = self._org.call("POST", f"{_SERVERS}/csr", {"keyAlgorithm": "RSA-4096"})["id"]
        self._org.call("DELETE", f"{_SERVERS}/{made}")

    def present_costly_chain(self) -> None:
        """Ask for a verdict on a device whose chain is costly to judge."""
        self._functions.call(self._broker, "POST", "/verifyClient", self._question)

    @contextmanager
    def working(self, callers: int, work: Callable[[], None], costs: Costs) -> Iterator[None]:
        """Let *callers* repeat *work* within the block."""
        stop = threading.Event()

        def repeat() -> None:
            while not stop.is_set():
                status = 200
                with self._lock:
                    costs.sent += 1
                try:
                    work()
                except ApiRefused as refused:
                    status = refused.status
                except (OSError, http.client.HTTPException):
                    status = 0
                with self._lock:
                    costs.answers[status] = costs.answers.get(status, 0) + 1
                if status == 429:
                    stop.wait(0.05)

        threads = [threading.Thread(target=repeat, daemon=True) for _ in range(callers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:  # requests that wait end with the server
                thread.join(0.1)


def measure(neighbour: Neighbour, busy: Busy, callers: int, work: Callable[[], Any], *, seconds: float) -> Costs:
    """Return what *neighbour* sees while *callers* of *busy* repeat *work* for *seconds*."""
    costs, stop, head = Costs(), threading.Event(), neighbour.head()
    with busy.working(callers, work, costs):
        time.sleep(1)  # the callers have begun
        edge = threading.Thread(target=neighbour.follow, args=(costs, head, stop), daemon=True)
        edge.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            neighbour.ask(costs)
            time.sleep(0.01)
        stop.set()
        edge.join(_GIVE_UP * 2)
    return costs


def measure_each(folder: Path, *, seconds: float) -> dict[str, Costs]:
    """Return what a neighbour sees beside each kind of costly work, each on a server of its own."""
    rows: dict[str, Costs] = {}
    works = {
        "wrong passphrases": Busy.try_passphrase,
        "RSA-4096 requests": Busy.make_rsa_key,
        "costly chains": Busy.present_costly_chain,
    }
    for name, work in works.items():
        for callers in (8, 32):
            place = folder / f"{name}-{callers}".replace(" ", "-")
            place.mkdir(parents=True)
            functions = Functions(place)
            try:
                functions.start()
                neighbour, busy = Neighbour(functions, place, "good01"), Busy(functions, place, "evil01")
                rows[f"{name}, {callers} callers"] = measure(
                    neighbour, busy, callers, partial(work, busy), seconds=seconds
                )
            finally:
                functions.stop()
    return rows


def costly_key_file(folder: Path) -> str:
    """Return an encrypted private key whose key derivation has as many rounds as the service accepts."""
    openssl = program("openssl", "openssl")
    plain, encrypted = folder / "costly.key", folder / "costly.pem"
    new = ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(plain))
    shut = (
        "pkcs8",
        "-topk8",
        "-in",
        str(plain),
        "-v1",
        "PBE-SHA1-3DES",
        "-iter",
        str(ROUNDS_MAX),
        "-passout",
        "pass:x",
    )
    for words in (new, (*shut, "-out", str(encrypted))):
        subprocess.run([openssl, *words], check=True, capture_output=True)
    return encrypted.read_text()

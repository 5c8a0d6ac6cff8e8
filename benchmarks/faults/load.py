"""Mixed load on one organization over HTTP, and a record of the answer to every call.

Each changer owns the certificates that it makes. So the possible states of each of them are known: the result of the
last acknowledged change, and the result of every later change whose answer was lost. For what all changers share (the
active certificate, the policy) a history of changes is recorded, with their times.

    load = Load.on(url, org)     # registers a CA and a device that must be admitted
    load.employ().begin()
    load.end()
    load.history                 # for check.py
"""

import base64
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from shared.validation.ca import ca_id
from tests.support import certs

API: Final = "/api/v0002"
CAS: Final = f"{API}/authentication/cacertificates"
SERVERS: Final = f"{API}/authentication/servercertificates"
POLICY: Final = f"{API}/authorization/connectionpolicy"
DENIALS: Final = f"{API}/authorization/denylist"

VERDICT_SECONDS: Final = 2.0  # the promised time for a verdict, in any state of the store
ABSENT: Final = "absent"
_ANSWER_SECONDS: Final = 40.0  # a change without an answer in this time counts as unanswered
_OWN_MAX: Final = 8  # server certificates per changer; an org may have 50


@dataclass(frozen=True)
class Access:
    """An organization to load: its keys (key:token) and its messaging host."""

    org_id: str
    operator: str
    broker: str
    host: str


@dataclass(frozen=True)
class CallResult:
    """The answer to one call. *status* 0: no answer, because the connection ended."""

    status: int
    body: Any
    began: float
    ended: float

    @property
    def done(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""

    @property
    def unknown(self) -> bool:
        """Whether it is unknown if the change was made."""
        return self.status == 0 or self.status >= 500 or self.code == "too_busy"


class KeepAliveCaller:
    """One keep-alive connection to *address* (host:port); the address is asked for at every new connection."""

    def __init__(self, address: Callable[[], str], auth: str) -> None:
        self._address = address
        self._headers = {
            "Content-Type": "application/json",
            "Authorization": "Basic " + base64.b64encode(auth.encode()).decode(),
            "If-Match": "*",
        }
        self._connection: http.client.HTTPConnection | None = None

    def __call__(self, method: str, path: str, body: Any = None) -> CallResult:
        data = None if body is None else json.dumps(body).encode()
        began = time.monotonic()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self._address(), timeout=_ANSWER_SECONDS)
            self._connection.request(method, path, data, self._headers)
            with self._connection.getresponse() as answer:
                text = answer.read()
                return CallResult(answer.status, _json(text), began, time.monotonic())
        except (OSError, http.client.HTTPException):
            self.close()
            return CallResult(0, None, began, time.monotonic())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _json(text: bytes) -> Any:
    try:
        return json.loads(text or b"null")
    except ValueError:
        return text.decode(errors="replace")


@dataclass(frozen=True)
class SharedChange:
    """One change of a value that several callers change."""

    value: str
    began: float
    ended: float
    acknowledged: bool


@dataclass
class Thing:
    """An entry that one changer owns.

    Args:
        id: None if no answer named the id.
        may_be: the possible states in the store: ABSENT, or a status.
        leaf: DER of a server certificate, to find the entry if its id is unknown.
    """

    kind: str  # "ca", "server", "csr" or "denial"
    id: str | None
    may_be: set[str]
    leaf: bytes | None = None
    activated: bool = False

    def record(self, result: CallResult, becomes: str) -> None:
        """Record the state that a change made, or may have made."""
        if result.done:
            self.may_be = {becomes}
        elif result.unknown:
            self.may_be.add(becomes)


@dataclass
class History:
    """All calls and answers. Many threads write; every list and counter is guarded by *lock*."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    things: list[Thing] = field(default_factory=list)
    activations: list[SharedChange] = field(default_factory=list)
    policies: list[SharedChange] = field(default_factory=list)
    entries: list[tuple[str, str]] = field(default_factory=list)  # (what, id): expected entries of the activity list
    withdrawn: list[tuple[str, str]] = field(
        default_factory=list
    )  # (kind, value): expected entries of the withdrawal feed
    operations: Counter[str] = field(default_factory=Counter)  # "done", "refused", "unavailable", "dropped"
    verdicts: Counter[str] = field(default_factory=Counter)  # "allowed", "denied", "not known"
    reads: int = 0
    slowest: float = 0.0  # slowest verdict, in seconds
    late: int = 0  # verdicts later than VERDICT_SECONDS
    wrong: list[str] = field(default_factory=list)  # answers that must not occur

    def note(self, result: CallResult, what: str) -> None:
        with self.lock:
            if result.done:
                self.operations["done"] += 1
            elif result.status == 0:
                self.operations["dropped"] += 1
            elif result.unknown:
                self.operations["unavailable"] += 1
            else:
                self.operations["refused"] += 1
            if result.status >= 500 and result.status != 503:
                self.wrong.append(f"{what}: {result.status} {result.body}")

    def note_wrong(self, what: str) -> None:
        with self.lock:
            self.wrong.append(what)


@dataclass(frozen=True)
class Span:
    """The dates of all certificates: valid during the whole run."""

    before: datetime
    after: datetime

    @classmethod
    def around(cls, now: datetime) -> "Span":
        return cls(now - timedelta(days=2), now + timedelta(days=300))

    def ca(self, name: str, private: certs.PrivateKey | None = None) -> certs.Issued:
        return certs.ca(name, private=private, not_before=self.before, not_after=self.after)

    def leaf(self, name: str, signer: certs.Issued) -> certs.Issued:
        return certs.leaf(name, signer, not_before=self.before, not_after=self.after)

    def server(self, host: str, private: certs.PrivateKey) -> certs.Issued:
        return certs.server(host, private=private, not_before=self.before, not_after=self.after)


@dataclass
class Load:
    """The load on one organization; see the module."""

    address: str
    access: Access
    history: History
    span: "Span"
    root: certs.Issued  # a CA that stays, and whose device must be admitted
    device: certs.Issued
    stranger: certs.Issued
    denied: certs.Issued  # a device of the CA that stays, on the deny list
    stop: threading.Event = field(default_factory=threading.Event)
    workers: list["_Changer | _Asker | _Reader"] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    @classmethod
    def on(cls, address: str, access: Access) -> "Load":
        """Prepare the organization through *address* (host:port), without faults. Raises: AssertionError."""
        span = Span.around(datetime.now(UTC))
        root, other = span.ca(f"Root of {access.org_id}"), span.ca("Somebody else's")
        load = cls(
            address,
            access,
            History(),
            span,
            root,
            device=span.leaf("d:thermo:1", root),
            stranger=span.leaf("d:thermo:1", other),
            denied=span.leaf("d:thermo:2", root),
        )
        operator = KeepAliveCaller(lambda: address, access.operator)
        _must(operator("POST", CAS, {"certificate": root.pem}), 201)
        _must(operator("POST", DENIALS, {"certificate": load.denied.pem}), 201)
        operator.close()
        load.history.activations.append(SharedChange("default", 0, 0, acknowledged=True))
        load.history.policies.append(SharedChange("", 0, 0, acknowledged=True))
        return load

    def employ(self, *, changers: int = 3, askers: int = 2, readers: int = 1, seed: int = 6) -> "Load":
        """Create the workers. What the changers make stays theirs from one `begin` to the next."""
        self.workers = [
            *(_Changer(self, seed * 1000 + number) for number in range(changers)),
            *(_Asker(self, seed * 1000 + number) for number in range(askers)),
            *(_Reader(self, seed * 1000 + number) for number in range(readers)),
        ]
        return self

    def begin(self, address: str | None = None) -> None:
        """Start the load on the server at *address* (default: the address before), until `end`."""
        self.address = address or self.address
        self.stop.clear()
        self.threads = [threading.Thread(target=worker.run, daemon=True) for worker in self.workers]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        """Stop the load. Return when all calls are answered."""
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a call was never answered"


def _must(result: CallResult, status: int) -> Any:
    assert result.status == status, result
    return result.body


# ---------------------------------------------------------------------------------------------------- verdicts


class _Asker:
    """Ask verifyClient about devices that must be admitted, and about devices that must be refused."""

    def __init__(self, load: Load, seed: int) -> None:
        self._load = load
        self._draw = random.Random(seed)
        self._ask = Verdicts(load)

    def run(self) -> None:
        load = self._load
        while not load.stop.is_set():
            who = self._draw.choice(("device", "device", "stranger", "denied"))
            issued: certs.Issued = getattr(load, who)
            device_id = "2" if who == "denied" else "1"
            self._ask(issued, device_id, may_enter=who == "device", must_enter=who == "device", about=f"the {who}")
        self._ask.close()


class Verdicts:
    """Ask for verdicts, and record whether each answer is a permitted one."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._call = KeepAliveCaller(lambda: load.address, load.access.broker)

    def __call__(
        self, issued: certs.Issued, number: str, *, may_enter: bool, must_enter: bool, about: str
    ) -> CallResult:
        """Ask about one device. *may_enter* without *must_enter*: the answer to the last change was lost."""
        access, history = self._load.access, self._load.history
        question = {
            "serverName": access.host,
            "clientId": f"d:{access.org_id}:thermo:{number}",
            "certificate": issued.pem,
        }
        result = self._call("POST", f"{API}/verifyClient", question)
        if result.status == 0:
            self._load.stop.wait(0.02)
            return result  # the server is down: a broker refuses on its own
        seconds = result.ended - result.began
        decision = result.body.get("decision") if isinstance(result.body, dict) else None
        with history.lock:
            history.slowest = max(history.slowest, seconds)
            if seconds > VERDICT_SECONDS:
                history.late += 1
            if result.status != 200 or decision not in ("allow", "deny"):
                history.wrong.append(f"verdict on {about}: {result.status} {result.body}")
            elif decision == "allow":
                history.verdicts["allowed"] += 1
                if not may_enter:
                    history.wrong.append(f"verdict on {about}: allowed")
            elif result.code == "unavailable":
                history.verdicts["not known"] += 1
            else:
                history.verdicts["denied"] += 1
                if must_enter:
                    history.wrong.append(f"verdict on {about}: denied, {result.code}")
        return result

    def close(self) -> None:
        self._call.close()


class _Reader:
    """Read lists, as consoles do."""

    def __init__(self, load: Load, seed: int) -> None:
        self._load = load
        self._draw = random.Random(seed)
        self._call = KeepAliveCaller(lambda: load.address, load.access.operator)

    def run(self) -> None:
        pages = (CAS, SERVERS, POLICY, DENIALS, f"{SERVERS}/active", f"{API}/activity", "/healthz", "/console/")
        while not self._load.stop.is_set():
            path = self._draw.choice(pages)
            result = self._call("GET", path)
            with self._load.history.lock:
                self._load.history.reads += 1
            if result.status not in (0, 200, 503):
                self._load.history.note_wrong(f"GET {path}: {result.status} {result.body}")
            if result.status == 0:
                self._load.stop.wait(0.02)
        self._call.close()


# ------------------------------------------------------------------------------------------------------ changes


class _Changer:
    """Make, activate, fulfil, change and delete entries of its own."""

    def __init__(self, load: Load, seed: int) -> None:
        self._load = load
        self._history = load.history
        self._seed = seed
        self._draw = random.Random(seed)
        self._count = 0
        self._operator = KeepAliveCaller(lambda: load.address, load.access.operator)
        self._ask = Verdicts(load)
        self._cas: list[tuple[Thing, certs.Issued]] = []
        self._servers: list[Thing] = []

    def run(self) -> None:
        ways: Sequence[Callable[[], None]] = (
            self._add_ca,
            self._change_ca,
            self._delete_ca,
            self._add_server,
            self._request,
            self._activate,
            self._delete_server,
            self._put_policy,
            self._deny_and_lift,
        )
        while not self._load.stop.is_set():
            self._draw.choice(ways)()
        self._operator.close()
        self._ask.close()

    def _call(self, method: str, path: str, body: Any = None) -> CallResult:
        result = self._operator(method, path, body)
        self._history.note(result, f"{method} {path.removeprefix(API)}")
        if result.status == 0:
            self._load.stop.wait(0.02)  # the server is down at the moment
        return result

    def _own(self, thing: Thing) -> Thing:
        with self._history.lock:
            self._history.things.append(thing)
        return thing

    def _must_withdraw(self, result: CallResult, kind: str, value: str | None) -> None:
        """Expect an acknowledged withdrawal in the feed of the edges."""
        if result.done and value is not None:
            with self._history.lock:
                self._history.withdrawn.append((kind, value))

    def _must_list(self, result: CallResult, what: str, about: str | None) -> None:
        """Expect an acknowledged change in the activity list."""
        if result.done and about is not None:
            with self._history.lock:
                self._history.entries.append((what, about))

    def _number(self) -> int:
        self._count += 1
        return self._count

    # ---------------------------------------------------------------------------------------------------- CAs

    def _add_ca(self) -> None:
        if len(self._cas) >= _OWN_MAX:
            return self._delete_ca()
        load = self._load
        private = certs.key("P-256", 3000 + self._seed % 1000)
        issued = load.span.ca(f"CA {self._seed} {self._number()}", private)
        thing = self._own(Thing("ca", ca_id(issued.certificate), {ABSENT}))
        result = self._call("POST", CAS, {"certificate": issued.pem})
        thing.record(result, "active")
        self._must_list(result, "uploadCA", thing.id)
        if thing.may_be != {ABSENT}:
            self._cas.append((thing, issued))
            self._look_at(thing, issued)
        return None

    def _change_ca(self) -> None:
        if not self._cas:
            return None
        thing, issued = self._draw.choice(self._cas)
        if ABSENT in thing.may_be:
            return self._delete_ca()
        status = self._draw.choice(("active", "inactive"))
        result = self._call("PUT", f"{CAS}/{thing.id}", {"status": status})
        self._must_withdraw(result, "ca", thing.id if status == "inactive" else None)
        self._settle(thing, result, status)
        self._look_at(thing, issued)
        return None

    def _delete_ca(self) -> None:
        if not self._cas:
            return
        thing, issued = self._draw.choice(self._cas)
        was_there = ABSENT not in thing.may_be  # otherwise the index entry alone may be deleted
        result = self._call("DELETE", f"{CAS}/{thing.id}")
        self._must_list(result, "deleteCA", thing.id if was_there else None)
        self._must_withdraw(result, "ca", thing.id if was_there else None)
        self._settle(thing, result, ABSENT)
        if result.unknown:
            thing.may_be.add("inactive")  # deleting deactivates first; repeating the call completes it
        else:
            self._cas.remove((thing, issued))
        self._look_at(thing, issued)

    def _look_at(self, thing: Thing, issued: certs.Issued) -> None:
        """Check that a change is in force at the next connection."""
        device = self._load.span.leaf("d:thermo:7", issued)
        may_enter, must_enter = "active" in thing.may_be, thing.may_be == {"active"}
        about = f"a device of a CA that is {' or '.join(sorted(thing.may_be))}"
        self._ask(device, "7", may_enter=may_enter, must_enter=must_enter, about=about)

    def _settle(self, thing: Thing, result: CallResult, becomes: str) -> None:
        if result.status == 404:
            if ABSENT not in thing.may_be:
                self._history.note_wrong(
                    f"{thing.kind} {thing.id} was acknowledged as {thing.may_be}, and is not there"
                )
            thing.may_be = {ABSENT}
        thing.record(result, becomes)

    # -------------------------------------------------------------------------------------- server certificates

    def _add_server(self) -> None:
        if len(self._servers) >= _OWN_MAX:
            return self._delete_server()
        private = certs.key("P-256", 4000 + self._seed % 1000)
        issued = self._load.span.server(self._load.access.host, private)
        thing = self._own(Thing("server", None, {ABSENT}, leaf=issued.der))
        result = self._call("POST", SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem})
        thing.record(result, "certificate")
        if result.done:
            thing.id = result.body["id"]
            self._must_list(result, "uploadServerCert", thing.id)
            self._servers.append(thing)
            if self._draw.random() < 0.7:
                self._activate(thing)
        elif result.code == "too_many_server_certificates":
            self._make_room()
        return None

    def _request(self) -> None:
        if len(self._servers) >= _OWN_MAX:
            return self._delete_server()
        result = self._call("POST", f"{SERVERS}/csr", {"keyAlgorithm": "P-256"})
        if result.code == "too_many_server_certificates":
            self._make_room()
        if not result.done:
            return None  # the id is unknown; the checker accepts a whole request or none
        thing = self._own(Thing("csr", result.body["id"], {"csr"}))
        self._must_list(result, "generateCSR", thing.id)
        self._servers.append(thing)
        signed = self._sign(result.body["csr"])
        result = self._call("PUT", f"{SERVERS}/{thing.id}/certificate", {"certificate": signed})
        self._settle(thing, result, "certificate")
        self._must_list(result, "fulfillCSR", thing.id)
        return None

    def _sign(self, csr: str) -> str:
        """Sign a request as an external CA. Return the certificate, PEM."""
        request = x509.load_pem_x509_csr(csr.encode())
        root = self._load.root
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(root.cert.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._load.span.before)
            .not_valid_after(self._load.span.after)
            .add_extension(names.value, critical=False)
        )
        return builder.sign(root.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def _activate(self, thing: Thing | None = None) -> None:
        if thing is None:
            ready = [server.id for server in self._servers if server.may_be == {"certificate"}]
            chosen = self._draw.choice(["default", *ready])
        else:
            chosen = thing.id
        result = self._call("PUT", f"{SERVERS}/active", {"id": chosen})
        if result.status in (404, 409, 422):
            self._history.note_wrong(
                f"activation of {chosen}, which is the caller's own: {result.status} {result.code}"
            )
        self._record_change(self._history.activations, str(chosen), result)

    def _delete_server(self) -> None:
        if not self._servers:
            return
        thing = self._draw.choice(self._servers)
        result = self._call("DELETE", f"{SERVERS}/{thing.id}")
        if result.code == "active_certificate":
            return
        self._must_list(result, "deleteServerCert", thing.id)
        self._settle(thing, result, ABSENT)
        if not result.unknown:  # otherwise repeating the call completes it
            self._servers.remove(thing)

    def _make_room(self) -> None:
        """Delete server certificates without an owner: lost answers leave requests that fill the organization."""
        result = self._call("GET", f"{SERVERS}?limit=200")
        if not result.done:
            return
        with self._history.lock:
            owned = {thing.id for thing in self._history.things}
        for entry in result.body["results"]:
            if entry["id"] not in owned and entry["id"] != "default" and not entry["active"]:
                self._call("DELETE", f"{SERVERS}/{entry['id']}")

    # ----------------------------------------------------------------------------------------- policy, deny list

    def _put_policy(self) -> None:
        value = f"t{self._seed}-{self._number()}"
        rules = [{"deviceType": value, "level": "TLS Optional"}]
        body = {"default": "TLS with Client Certificate Authentication", "rules": rules}
        self._record_change(self._history.policies, value, self._call("PUT", POLICY, body))

    def _record_change(self, history: list[SharedChange], value: str, result: CallResult) -> None:
        if result.done or result.unknown:
            with self._history.lock:
                history.append(SharedChange(value, result.began, result.ended, acknowledged=result.done))

    def _deny_and_lift(self) -> None:
        """Check that a denied device is refused from the answer on, and admitted again after the lift."""
        load, number = self._load, f"{self._seed}-{self._number()}"
        device = load.span.leaf(f"d:thermo:{number}", load.root)
        result = self._call("POST", DENIALS, {"kind": "identity", "value": f"d:thermo:{number}"})
        self._must_withdraw(result, "identity", f"d:thermo:{number}")
        thing = self._own(Thing("denial", result.body["id"] if result.done else None, {ABSENT}))
        thing.record(result, "denied")
        sure = thing.may_be == {"denied"}
        self._ask(device, number, may_enter=not sure, must_enter=False, about="a device that was put on the deny list")
        if thing.id is None:
            return
        result = self._call("DELETE", f"{DENIALS}/{thing.id}")
        self._settle(thing, result, ABSENT)
        if thing.may_be == {ABSENT}:
            self._ask(
                device, number, may_enter=True, must_enter=True, about="a device that was taken off the deny list"
            )

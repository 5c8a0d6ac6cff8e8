"""Mixed load on one organization over HTTP, and a record of what every caller was told.

Each changer owns the certificates it makes, so for each it is known what may stand in the store: what the last
acknowledged change made of it, and what every change since then may have made whose answer was lost. What all changers
share (which certificate is active, the policy) is kept as a history of changes with their times.

    load = Load.on(url, org)     # registers a CA and a device that must be let in
    load.employ().begin()
    load.end()
    load.history                 # for tests.faults.check
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
from tests import certs

API: Final = "/api/v0002"
CAS: Final = f"{API}/authentication/cacertificates"
SERVERS: Final = f"{API}/authentication/servercertificates"
POLICY: Final = f"{API}/authorization/connectionpolicy"
DENIALS: Final = f"{API}/authorization/denylist"

VERDICT_SECONDS: Final = 2.0  # within which a device is told, whatever the store does
ABSENT: Final = "absent"
_ANSWER_SECONDS: Final = 40.0  # beyond which a change counts as never answered
_OWN_MAX: Final = 8  # server certificates that one changer keeps; an org has room for 50


@dataclass(frozen=True)
class Access:
    """An organization to load: its keys (key:token) and its messaging host."""

    org_id: str
    operator: str
    broker: str
    host: str


@dataclass(frozen=True)
class DeliveredMessage:
    """What a caller was told. *status* 0: nothing, the connection ended."""

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
        """Whether the change may or may not have been made."""
        return self.status == 0 or self.status >= 500 or self.code == "too_busy"


class Caller:
    """One keep-alive connection to *address* (host:port), wherever that is by now."""

    def __init__(self, address: Callable[[], str], auth: str) -> None:
        self._address = address
        self._headers = {
            "Content-Type": "application/json",
            "Authorization": "Basic " + base64.b64encode(auth.encode()).decode(),
            "If-Match": "*",
        }
        self._connection: http.client.HTTPConnection | None = None

    def __call__(self, method: str, path: str, body: Any = None) -> DeliveredMessage:
        data = None if body is None else json.dumps(body).encode()
        began = time.monotonic()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self._address(), timeout=_ANSWER_SECONDS)
            self._connection.request(method, path, data, self._headers)
            with self._connection.getresponse() as answer:
                text = answer.read()
                return DeliveredMessage(answer.status, _json(text), began, time.monotonic())
        except (OSError, http.client.HTTPException):
            self.close()
            return DeliveredMessage(0, None, began, time.monotonic())

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
class Change:
    """One change of something that several callers change."""

    value: str
    began: float
    ended: float
    acknowledged: bool


@dataclass
class Thing:
    """Something that one changer owns.

    Args:
        id: None where it was never told.
        may_be: what may stand in the store: ABSENT, or a status.
        leaf: DER of a server certificate, by which it is found where its id was never told.
    """

    kind: str  # "ca", "server", "csr" or "denial"
    id: str | None
    may_be: set[str]
    leaf: bytes | None = None
    activated: bool = False

    def was(self, told: DeliveredMessage, becomes: str) -> None:
        """Note what a change made of it, or may have made."""
        if told.done:
            self.may_be = {becomes}
        elif told.unknown:
            self.may_be.add(becomes)


@dataclass
class History:
    """What was asked and answered. Written by many threads; each list and counter under *lock*."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    things: list[Thing] = field(default_factory=list)
    activations: list[Change] = field(default_factory=list)
    policies: list[Change] = field(default_factory=list)
    entries: list[tuple[str, str]] = field(default_factory=list)  # (what, id) that the activity list must tell
    withdrawn: list[tuple[str, str]] = field(default_factory=list)  # (kind, value) that the edges must be told
    operations: Counter[str] = field(default_factory=Counter)  # "done", "refused", "unavailable", "dropped"
    verdicts: Counter[str] = field(default_factory=Counter)  # "allowed", "denied", "not known"
    reads: int = 0
    slowest: float = 0.0  # verdict, seconds
    late: int = 0  # verdicts beyond what is promised
    wrong: list[str] = field(default_factory=list)  # answers that must not be

    def note(self, told: DeliveredMessage, what: str) -> None:
        with self.lock:
            if told.done:
                self.operations["done"] += 1
            elif told.status == 0:
                self.operations["dropped"] += 1
            elif told.unknown:
                self.operations["unavailable"] += 1
            else:
                self.operations["refused"] += 1
            if told.status >= 500 and told.status != 503:
                self.wrong.append(f"{what}: {told.status} {told.body}")

    def wrongly(self, what: str) -> None:
        with self.lock:
            self.wrong.append(what)


@dataclass(frozen=True)
class Span:
    """Makes certificates that are valid while this runs."""

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
    """See the module."""

    address: str
    access: Access
    history: History
    span: "Span"
    root: certs.Issued  # a CA that stays, and whose device must be let in
    device: certs.Issued
    stranger: certs.Issued
    denied: certs.Issued  # a device of the CA that stays, on the deny list
    stop: threading.Event = field(default_factory=threading.Event)
    workers: list["_Changer | _Asker | _Reader"] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    @classmethod
    def on(cls, address: str, access: Access) -> "Load":
        """Prepare *access*'s org, through *address* (host:port), while all is well. Raises: AssertionError."""
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
        operator = Caller(lambda: address, access.operator)
        _must(operator("POST", CAS, {"certificate": root.pem}), 201)
        _must(operator("POST", DENIALS, {"certificate": load.denied.pem}), 201)
        operator.close()
        load.history.activations.append(Change("default", 0, 0, acknowledged=True))
        load.history.policies.append(Change("", 0, 0, acknowledged=True))
        return load

    def employ(self, *, changers: int = 3, askers: int = 2, readers: int = 1, seed: int = 6) -> "Load":
        """Choose how many do what; what changers make stays theirs from one `begin` to the next."""
        self.workers = [
            *(_Changer(self, seed * 1000 + number) for number in range(changers)),
            *(_Asker(self, seed * 1000 + number) for number in range(askers)),
            *(_Reader(self, seed * 1000 + number) for number in range(readers)),
        ]
        return self

    def begin(self, address: str | None = None) -> None:
        """Load the server at *address* (where it was, if not given), until `end`."""
        self.address = address or self.address
        self.stop.clear()
        self.threads = [threading.Thread(target=one.run, daemon=True) for one in self.workers]
        for one in self.threads:
            one.start()

    def end(self) -> None:
        """No more questions; returns when all that were asked are answered."""
        self.stop.set()
        for one in self.threads:
            one.join(60)
            assert not one.is_alive(), "a call was never answered"


def _must(told: DeliveredMessage, status: int) -> Any:
    assert told.status == status, told
    return told.body


# ---------------------------------------------------------------------------------------------------- who asks


class _Asker:
    """Asks verifyClient about devices that must be let in, and such that must not."""

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
    """Asks, and notes whether the answer is one that may be."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._call = Caller(lambda: load.address, load.access.broker)

    def __call__(
        self, issued: certs.Issued, number: str, *, may_enter: bool, must_enter: bool, about: str
    ) -> DeliveredMessage:
        """*must_enter* False and *may_enter* True: a change whose answer was lost leaves it open."""
        access, history = self._load.access, self._load.history
        question = {
            "serverName": access.host,
            "clientId": f"d:{access.org_id}:thermo:{number}",
            "certificate": issued.pem,
        }
        told = self._call("POST", f"{API}/verifyClient", question)
        if told.status == 0:
            self._load.stop.wait(0.02)
            return told  # the server itself is gone: the broker refuses by itself
        seconds = told.ended - told.began
        decision = told.body.get("decision") if isinstance(told.body, dict) else None
        with history.lock:
            history.slowest = max(history.slowest, seconds)
            if seconds > VERDICT_SECONDS:
                history.late += 1
            if told.status != 200 or decision not in ("allow", "deny"):
                history.wrong.append(f"verdict on {about}: {told.status} {told.body}")
            elif decision == "allow":
                history.verdicts["allowed"] += 1
                if not may_enter:
                    history.wrong.append(f"verdict on {about}: allowed")
            elif told.code == "unavailable":
                history.verdicts["not known"] += 1
            else:
                history.verdicts["denied"] += 1
                if must_enter:
                    history.wrong.append(f"verdict on {about}: denied, {told.code}")
        return told

    def close(self) -> None:
        self._call.close()


class _Reader:
    """Looks at lists, as consoles do."""

    def __init__(self, load: Load, seed: int) -> None:
        self._load = load
        self._draw = random.Random(seed)
        self._call = Caller(lambda: load.address, load.access.operator)

    def run(self) -> None:
        pages = (CAS, SERVERS, POLICY, DENIALS, f"{SERVERS}/active", f"{API}/activity", "/healthz", "/console/")
        while not self._load.stop.is_set():
            path = self._draw.choice(pages)
            told = self._call("GET", path)
            with self._load.history.lock:
                self._load.history.reads += 1
            if told.status not in (0, 200, 503):
                self._load.history.wrongly(f"GET {path}: {told.status} {told.body}")
            if told.status == 0:
                self._load.stop.wait(0.02)
        self._call.close()


# ------------------------------------------------------------------------------------------------- who changes


class _Changer:
    """Makes, activates, fulfils, changes and deletes things of its own."""

    def __init__(self, load: Load, seed: int) -> None:
        self._load = load
        self._history = load.history
        self._seed = seed
        self._draw = random.Random(seed)
        self._count = 0
        self._operator = Caller(lambda: load.address, load.access.operator)
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

    def _call(self, method: str, path: str, body: Any = None) -> DeliveredMessage:
        told = self._operator(method, path, body)
        self._history.note(told, f"{method} {path.removeprefix(API)}")
        if told.status == 0:
            self._load.stop.wait(0.02)  # nobody is there just now
        return told

    def _own(self, thing: Thing) -> Thing:
        with self._history.lock:
            self._history.things.append(thing)
        return thing

    def _must_withdraw(self, told: DeliveredMessage, kind: str, value: str | None) -> None:
        """The edges must be told to end sessions."""
        if told.done and value is not None:
            with self._history.lock:
                self._history.withdrawn.append((kind, value))

    def _must_tell(self, told: DeliveredMessage, what: str, about: str | None) -> None:
        """The activity list must tell an acknowledged change."""
        if told.done and about is not None:
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
        told = self._call("POST", CAS, {"certificate": issued.pem})
        thing.was(told, "active")
        self._must_tell(told, "uploadCA", thing.id)
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
        told = self._call("PUT", f"{CAS}/{thing.id}", {"status": status})
        self._must_withdraw(told, "ca", thing.id if status == "inactive" else None)
        self._settle(thing, told, status)
        self._look_at(thing, issued)
        return None

    def _delete_ca(self) -> None:
        if not self._cas:
            return
        thing, issued = self._draw.choice(self._cas)
        was_there = ABSENT not in thing.may_be  # else what is deleted may be its place in the index alone
        told = self._call("DELETE", f"{CAS}/{thing.id}")
        self._must_tell(told, "deleteCA", thing.id if was_there else None)
        self._must_withdraw(told, "ca", thing.id if was_there else None)
        self._settle(thing, told, ABSENT)
        if told.unknown:
            thing.may_be.add("inactive")  # it is deactivated first; the same call again finishes it
        else:
            self._cas.remove((thing, issued))
        self._look_at(thing, issued)

    def _look_at(self, thing: Thing, issued: certs.Issued) -> None:
        """A change is in force at the next connection."""
        device = self._load.span.leaf("d:thermo:7", issued)
        may_enter, must_enter = "active" in thing.may_be, thing.may_be == {"active"}
        about = f"a device of a CA that is {' or '.join(sorted(thing.may_be))}"
        self._ask(device, "7", may_enter=may_enter, must_enter=must_enter, about=about)

    def _settle(self, thing: Thing, told: DeliveredMessage, becomes: str) -> None:
        if told.status == 404:
            if ABSENT not in thing.may_be:
                self._history.wrongly(f"{thing.kind} {thing.id} was acknowledged as {thing.may_be}, and is not there")
            thing.may_be = {ABSENT}
        thing.was(told, becomes)

    # -------------------------------------------------------------------------------------- server certificates

    def _add_server(self) -> None:
        if len(self._servers) >= _OWN_MAX:
            return self._delete_server()
        private = certs.key("P-256", 4000 + self._seed % 1000)
        issued = self._load.span.server(self._load.access.host, private)
        thing = self._own(Thing("server", None, {ABSENT}, leaf=issued.der))
        told = self._call("POST", SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem})
        thing.was(told, "certificate")
        if told.done:
            thing.id = told.body["id"]
            self._must_tell(told, "uploadServerCert", thing.id)
            self._servers.append(thing)
            if self._draw.random() < 0.7:
                self._activate(thing)
        elif told.code == "too_many_server_certificates":
            self._make_room()
        return None

    def _request(self) -> None:
        if len(self._servers) >= _OWN_MAX:
            return self._delete_server()
        told = self._call("POST", f"{SERVERS}/csr", {"keyAlgorithm": "P-256"})
        if told.code == "too_many_server_certificates":
            self._make_room()
        if not told.done:
            return None  # its id is not known; the checker finds a whole request, or none
        thing = self._own(Thing("csr", told.body["id"], {"csr"}))
        self._must_tell(told, "generateCSR", thing.id)
        self._servers.append(thing)
        signed = self._signed(told.body["csr"])
        told = self._call("PUT", f"{SERVERS}/{thing.id}/certificate", {"certificate": signed})
        self._settle(thing, told, "certificate")
        self._must_tell(told, "fulfillCSR", thing.id)
        return None

    def _signed(self, csr: str) -> str:
        """The certificate that a CA outside makes of a request, as PEM."""
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
            ready = [one.id for one in self._servers if one.may_be == {"certificate"}]
            chosen = self._draw.choice(["default", *ready])
        else:
            chosen = thing.id
        told = self._call("PUT", f"{SERVERS}/active", {"id": chosen})
        if told.status in (404, 409, 422):
            self._history.wrongly(f"activation of {chosen}, which is the caller's own: {told.status} {told.code}")
        self._changed(self._history.activations, str(chosen), told)

    def _delete_server(self) -> None:
        if not self._servers:
            return
        thing = self._draw.choice(self._servers)
        told = self._call("DELETE", f"{SERVERS}/{thing.id}")
        if told.code == "active_certificate":
            return
        self._must_tell(told, "deleteServerCert", thing.id)
        self._settle(thing, told, ABSENT)
        if not told.unknown:  # else the same call again finishes it
            self._servers.remove(thing)

    def _make_room(self) -> None:
        """Requests whose answers were lost fill the org: remove those that nobody owns."""
        told = self._call("GET", f"{SERVERS}?limit=200")
        if not told.done:
            return
        with self._history.lock:
            owned = {one.id for one in self._history.things}
        for one in told.body["results"]:
            if one["id"] not in owned and one["id"] != "default" and not one["active"]:
                self._call("DELETE", f"{SERVERS}/{one['id']}")

    # ----------------------------------------------------------------------------------------- policy, deny list

    def _put_policy(self) -> None:
        value = f"t{self._seed}-{self._number()}"
        rules = [{"deviceType": value, "level": "TLS Optional"}]
        body = {"default": "TLS with Client Certificate Authentication", "rules": rules}
        self._changed(self._history.policies, value, self._call("PUT", POLICY, body))

    def _changed(self, history: list[Change], value: str, told: DeliveredMessage) -> None:
        if told.done or told.unknown:
            with self._history.lock:
                history.append(Change(value, told.began, told.ended, acknowledged=told.done))

    def _deny_and_lift(self) -> None:
        """A device of the CA that stays is refused from the answer on, and let in again after it was lifted."""
        load, number = self._load, f"{self._seed}-{self._number()}"
        device = load.span.leaf(f"d:thermo:{number}", load.root)
        told = self._call("POST", DENIALS, {"kind": "identity", "value": f"d:thermo:{number}"})
        self._must_withdraw(told, "identity", f"d:thermo:{number}")
        thing = self._own(Thing("denial", told.body["id"] if told.done else None, {ABSENT}))
        thing.was(told, "denied")
        sure = thing.may_be == {"denied"}
        self._ask(device, number, may_enter=not sure, must_enter=False, about="a device that was put on the deny list")
        if thing.id is None:
            return
        told = self._call("DELETE", f"{DENIALS}/{thing.id}")
        self._settle(thing, told, ABSENT)
        if thing.may_be == {ABSENT}:
            self._ask(
                device, number, may_enter=True, must_enter=True, about="a device that was taken off the deny list"
            )

"""An organization, its devices and their brokers, asked about through two Apps: one remembers verdicts, one does not.

Each question is a whole request. Both Apps read one store and one clock, and the two replies must be the same octets. A
third App makes the changes, with connections of its own, as another process has.
"""

import asyncio
import datetime as dt
import random
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from functions.dispatch import Dispatcher
from functions.registry import PREFIX
from functions.web.body import body_too_large
from functions.web.message import Reply, Request
from shared.composition import build
from shared.config import Settings
from shared.errors import TrustError
from shared.ports import DocumentStore, RunAtOnce
from shared.records import Proof, Role
from shared.usecases.orgs.api_keys import create_key, revoke_key
from shared.usecases.orgs.default_certificate import ensure_default
from shared.usecases.orgs.deletion import delete_org
from shared.usecases.orgs.organizations import create_org, set_suspended
from tests.support import certs
from tests.support.certs import DAY, NOON, Issued
from tests.support.harness import DOMAIN, Client, Clock, CountingStore, basic
from tests.support.stores import Place

ORG: Final = "mtxpd0"
HOST: Final = f"{ORG}.messaging.{DOMAIN}"
CUSTOM_HOST: Final = f"{ORG}.messaging.fleet.example.org"
HOUR: Final = dt.timedelta(hours=1)
OFFSETS: Final = [dt.timedelta(seconds=seconds) for seconds in (-1, -0.5, 0, 0.5, 0.999999, 1, 1.5)]
CAS: Final = "/authentication/cacertificates"
DENY_LIST: Final = "/authorization/denylist"
LEVELS: Final = (
    "TLS Optional",
    "TLS with Token Authentication",
    "TLS with Client Certificate Authentication",
    "TLS with Token and Client Certificate Authentication",
    "TLS with Client Certificate or Token",
)


class Device(NamedTuple):
    """What a client presents."""

    name: str
    client_id: str | None
    leaf: Issued | None
    sent: tuple[Issued, ...] = ()
    server_name: str | None = HOST


class Fleet:
    """Certificates whose dates all differ, so that each date decides about some device."""

    def __init__(self) -> None:
        self.root = certs.ca("Root", not_before=NOON - 9 * DAY, not_after=NOON + 9 * DAY)
        # The same name and key with other dates, and the same name with another key
        self.renewed = certs.ca("Root", private=self.root.key, not_before=NOON - 2 * DAY, not_after=NOON + 20 * DAY)
        self.namesake = certs.ca("Root", private=certs.key("P-256", 31), not_after=NOON + 12 * HOUR)
        self.inter = certs.ca("Devices", self.root, not_before=NOON - 8 * DAY, not_after=NOON + 8 * DAY)
        self.other_root = certs.ca("Other Root", private=certs.key("RSA-2048", 32), not_after=NOON + 5 * DAY)
        self.crossed = certs.ca(
            "Devices", self.other_root, private=self.inter.key, not_before=NOON - DAY, not_after=NOON + 4 * DAY
        )
        self.cas = (self.root, self.renewed, self.namesake, self.inter, self.other_root)
        below = self._leaf("d:thermo:below", self.inter, 1)
        self.devices = (
            Device("below an intermediate", f"d:{ORG}:thermo:below", below, (self.inter,)),
            Device("cross-signed", f"d:{ORG}:thermo:below", below, (self.crossed, self.inter)),
            Device("without the intermediate", f"d:{ORG}:thermo:below", below),
            Device("below the root", f"d:{ORG}:thermo:root", self._leaf("d:thermo:root", self.root, 2)),
            Device("below the RSA root", f"d:{ORG}:pump:rsa", self._leaf("d:pump:rsa", self.other_root, 3)),
            Device("RSA key", f"d:{ORG}:pump:key", self._leaf("d:pump:key", self.root, 4, kind="RSA-2048")),
            Device("gateway", f"g:{ORG}:hub:1", self._leaf("g:hub:1", self.inter, 5), (self.inter,)),
            Device("by type", f"d:{ORG}:lamp:7", self._leaf("d:lamp:", self.root, 6)),
            Device("unnamed", f"d:{ORG}:lamp:8", self._leaf("pump 7", self.root, 7)),
            Device("of another name", f"d:{ORG}:thermo:43", below, (self.inter,)),
            Device("without a client ID", None, below, (self.inter,)),
            Device(
                "without a server name", f"d:{ORG}:thermo:root", self._leaf("d:thermo:root", self.root, 8), (), None
            ),
            Device("at a custom domain", f"d:{ORG}:thermo:below", below, (self.inter,), CUSTOM_HOST),
            Device("without a certificate", f"d:{ORG}:thermo:none", None),
            Device("application", f"a:{ORG}:billing", None),
            Device("stranger", f"d:{ORG}:thermo:x", certs.leaf("d:thermo:x", certs.ca("Stranger Root"))),
            Device("for servers", f"d:{ORG}:thermo:s", self._leaf("d:thermo:s", self.root, 9, servers=True)),
        )

    def _leaf(self, name: str, signer: Issued, number: int, *, kind: str = "P-256", servers: bool = False) -> Issued:
        return certs.leaf(
            name,
            signer,
            private=certs.key(kind, 40 + number),
            extended_key_usage=[certs.SERVER_AUTH if servers else certs.CLIENT_AUTH],
            not_before=NOON - number * HOUR,
            not_after=NOON + number * HOUR,
        )

    @property
    def issued(self) -> list[Issued]:
        """Every certificate that a decision may look at."""
        leaves = [device.leaf for device in self.devices if device.leaf is not None]
        return [*leaves, *self.cas, self.crossed]

    @property
    def dates(self) -> list[dt.datetime]:
        """Every date of these certificates, in order."""
        found = {date for item in self.issued for date in (item.certificate.not_before, item.certificate.not_after)}
        return sorted(found)


class Broker(NamedTuple):
    """A caller: its key and token, as it sends them."""

    key: str
    token: str

    @property
    def authorization(self) -> str:
        return basic(self.key, self.token)


class World:
    """The two Apps that answer, and the third that changes.

    Args:
        place: the store of all three.
    """

    def __init__(self, folder: Path, place: Place, *, fleet: Fleet | None = None, seed: int = 0) -> None:
        self.fleet = fleet or Fleet()
        self.clock = Clock()
        self.random = random.Random(seed)
        settings = Settings(data=folder, store=place, domain=DOMAIN, metrics="off", rate_per_minute=1_000_000)
        self.remembering = build(settings, clock=self.clock, verdict_seconds=60)
        self.fresh = build(replace(settings, verdict_memory=0), clock=self.clock, verdict_seconds=60)
        self.changed: Counter[str] = Counter()  # changes that wrote something, by kind
        stores: list[CountingStore] = []

        def wrap(store: DocumentStore) -> DocumentStore:
            stores.append(CountingStore(store))
            return stores[0]

        self.changing = build(settings, clock=Clock(), background=RunAtOnce(), wrap=wrap)
        self._calls = stores[0].calls
        ensure_default(self.changing.context, self.changing.sealer)
        create_org(self.changing.context, ORG)
        self._pool = ThreadPoolExecutor(1)
        self._loop = asyncio.new_event_loop()
        self._dispatchers = {id(app): Dispatcher(lambda app=app: app) for app in (self.remembering, self.fresh)}  # type: ignore[misc]
        self.answers = 0
        self.codes: Counter[str] = Counter()
        self.allowed = 0
        self.brokers: list[Broker] = []
        self.operator = Client(self.changing)
        self.renew_keys()
        for ca in (self.fleet.root, self.fleet.inter):
            self.operator.post(CAS, {"certificate": ca.pem}).ok(201)
        self.put_policy(LEVELS[2])

    def close(self) -> None:
        for app in (self.remembering, self.fresh, self.changing):
            app.close()
        self._pool.shutdown()
        self._loop.close()

    @property
    def memory(self) -> Any:
        return self.remembering.verifier.memory

    # ------------------------------------------------------------------------------------------------- questions

    def renew_keys(self) -> None:
        """Make the keys of the operator and of every kind of broker."""
        context = self.changing.context
        kinds: list[dict[str, Any]] = [
            {"org_id": ORG},
            {"org_id": ORG, "no_sni": True},
            {"org_id": None},
            {"org_id": None, "orgs": (ORG,)},
        ]
        made = [create_key(context, role=Role.BROKER, **kind) for kind in kinds]
        made.append(create_key(context, org_id=ORG, role=Role.BROKER, proof=Proof.BROKER, listener="tls"))
        self.brokers = [Broker(key.key, token) for key, token in made]
        key, token = create_key(context, org_id=ORG, role=Role.OPERATOR)
        self.operator = Client(self.changing, key.key, token)

    def questions(self, broker: Broker | None = None) -> Iterator[Request]:
        """Yield the questions about every device by one broker, half of them in the native form: these come again."""
        draw = self.random
        broker = broker or draw.choice([self.brokers[0], draw.choice(self.brokers)])
        for device in self.fleet.devices:
            make = native if draw.random() < 0.5 else draw.choice(_FORMATS)
            yield make(device, broker)

    def ask(self, request: Request) -> tuple[Reply, Reply]:
        """Return the reply of the App that remembers, on its event loop, and the fresh reply.

        The request arrives now: a test may ask for longer than a verdict may take.
        """
        request = replace(request, arrived=time.monotonic())
        dispatcher = self._dispatchers[id(self.remembering)]
        remembered = self._loop.run_until_complete(dispatcher.dispatch_async(request, self._pool))
        return remembered, self._dispatchers[id(self.fresh)].dispatch(request)

    def compare(self, request: Request) -> None:
        """Ask both Apps. Raises: AssertionError, where the replies differ."""
        remembered, fresh = self.ask(request)
        self.answers += 1
        self.allowed += _is_allow(request, fresh)
        self.codes[_code_of(fresh)] += 1
        if remembered != fresh:
            raise Difference(f"at {self.clock.now}, {request.path}: {remembered} instead of {fresh}")

    # --------------------------------------------------------------------------------------------------- changes

    def put_policy(self, level: str, *, unnamed: str = "deny", rules: tuple[tuple[str, str], ...] = ()) -> None:
        body = {
            "default": level,
            "rules": [{"deviceType": kind, "level": of} for kind, of in rules],
            "unnamedCertificates": unnamed,
        }
        self.operator.put("/authorization/connectionpolicy", body)

    def cas(self) -> list[dict[str, Any]]:
        page: list[dict[str, Any]] = self.operator.get(CAS).ok()["results"]
        return page

    def denials(self) -> list[dict[str, Any]]:
        page: list[dict[str, Any]] = self.operator.get(DENY_LIST).ok()["results"]
        return page

    def change(self, kind: str | None = None) -> None:
        """Make one change, of that *kind* or a random one, in the App of its own."""
        if kind is None:
            kind = self.random.choices(list(_CHANGES), weights=[weight for _, weight in _CHANGES.values()])[0]
        before = self._calls["put"] + self._calls["delete"]
        try:
            _CHANGES[kind][0](self)
            if self._calls["put"] + self._calls["delete"] > before:
                self.changed[kind] += 1
        except (TrustError, AssertionError, IndexError):  # the organization is suspended, or has no CA
            set_suspended(self.changing.context, ORG, False)

    def move_clock(self) -> None:
        """Set the clock to a date, or beside it, or to some time of these days."""
        draw = self.random
        if draw.random() < 0.5:
            self.clock.now = NOON + draw.uniform(-8, 8) * HOUR / 10
        else:
            self.clock.now = draw.choice(self.fleet.dates) + draw.choice(OFFSETS)

    def walk(self, answers: int) -> None:
        """Change, move the clock and compare, until *answers* were compared."""
        end = self.answers + answers
        while self.answers < end:
            chance = self.random.random()
            if chance < 0.2:
                self.change()
            elif chance < 0.3:
                self.move_clock()
            elif chance < 0.5:
                self.clock.now = NOON
            requests = list(self.questions())
            for request in requests * 2:
                self.compare(request)


class Difference(AssertionError):
    """A remembered reply is not the fresh reply."""


@contextmanager
def opened(folder: Path, place: Place, **more: Any) -> Iterator[World]:
    world = World(folder, place, **more)
    try:
        yield world
    finally:
        world.close()


def _is_allow(request: Request, reply: Reply) -> bool:
    if request.path.endswith(("/nginx", "/envoy")):
        return reply.status < 300
    try:
        body = msgspec.json.decode(reply.body or b"{}")
    except msgspec.DecodeError:
        return False
    return body.get("decision") == "allow" or body.get("result") == "allow" or bool(body.get("isAuthenticated"))


def _code_of(reply: Reply) -> str:
    try:
        return str(msgspec.json.decode(reply.body).get("code", "-"))
    except msgspec.DecodeError:
        return "-"


# ---------------------------------------------------------------------------------------------------------- formats


def _request(path: str, broker: Broker, body: bytes = b"", /, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"authorization": broker.authorization, "content-type": "application/json", **named}
    return Request("POST", PREFIX + path, headers=sent, body=body, scheme="https", peer="192.0.2.7")


def _json(fields: dict[str, Any]) -> bytes:
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})


def native(device: Device, broker: Broker, **more: Any) -> Request:
    """Return the question in the native form, with the certificates as PEM."""
    certificate = certs.bundle(device.leaf, *device.sent) if device.leaf else None
    fields = {"serverName": device.server_name, "clientId": device.client_id, "certificate": certificate, **more}
    return _request("/authorization/verifyclient", broker, _json(fields))


def native_der(device: Device, broker: Broker) -> Request:
    leaf = msgspec.json.decode(msgspec.json.encode(device.leaf.der)) if device.leaf else None
    chain = msgspec.json.decode(msgspec.json.encode(b"".join(item.der for item in device.sent))) or None
    fields = {
        "serverName": device.server_name,
        "clientId": device.client_id,
        "certificateDer": leaf,
        "chainDer": chain if leaf else None,
    }
    return _request("/authorization/verifyclient", broker, _json(fields))


def explained(device: Device, broker: Broker) -> Request:
    return native(device, broker, explain=True)


def without_tls(device: Device, broker: Broker) -> Request:
    return native(device, broker, tls=False)


def wrong_token(device: Device, broker: Broker) -> Request:
    return native(device, Broker(broker.key, broker.token[:-1] + ("a" if broker.token[-1] != "a" else "b")))


def garbage(device: Device, broker: Broker) -> Request:
    return native(device, broker, certificate="-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")


def emqx(device: Device, broker: Broker) -> Request:
    fields = {
        "serverName": device.server_name,
        "clientid": device.client_id,
        "cert_pem": device.leaf.pem if device.leaf else None,
    }
    return _request("/verifyClient/emqx", broker, _json(fields))


def nginx(device: Device, broker: Broker) -> Request:
    headers = {"x_sni": device.server_name, "x_client_id": device.client_id}
    if device.leaf:
        headers["x_client_cert"] = urllib.parse.quote(device.leaf.pem)
    return _request("/verifyClient/nginx", broker, b"", **{name: text for name, text in headers.items() if text})


def envoy(device: Device, broker: Broker) -> Request:
    headers = {"x_sni": device.server_name or ""}
    if device.leaf:
        cert = urllib.parse.quote(device.leaf.pem)
        chain = urllib.parse.quote(certs.bundle(device.leaf, *device.sent))
        headers["x_forwarded_client_cert"] = f'Cert="{cert}";Chain="{chain}"'
    return _request("/verifyClient/envoy", broker, b"", **headers)


def too_large(device: Device, broker: Broker) -> Request:
    """Return nginx's question, which is in the headers, with a body that the server has refused."""
    return replace(nginx(device, broker), refusal=body_too_large())


def aws_iot(device: Device, broker: Broker) -> Request:
    tls = {"serverName": device.server_name, "x509CertificatePem": device.leaf.pem if device.leaf else None}
    mqtt = {"clientId": device.client_id}
    data = {
        "tls": {name: text for name, text in tls.items() if text},
        "mqtt": {name: text for name, text in mqtt.items() if text},
    }
    return _request("/verifyClient/aws-iot", broker, _json({"protocolData": data}))


def by_name(device: Device, broker: Broker) -> Request:
    fields = {
        "username": device.client_id or "",
        "clientid": device.client_id or "",
        "cert_common_name": "d:thermo:root",
    }
    return _request("/verifyClient/emqx", broker, _json(fields))


Format = Callable[[Device, Broker], Request]
_FORMATS: Final[tuple[Format, ...]] = (
    native_der,
    emqx,
    nginx,
    envoy,
    aws_iot,
    by_name,
    explained,
    without_tls,
    wrong_token,
    garbage,
    too_large,
)


# ---------------------------------------------------------------------------------------------------------- changes


def _deny(world: World) -> None:
    draw = world.random
    item = draw.choice(world.fleet.issued)
    devices = [device for device in world.fleet.devices if device.client_id and device.client_id[0] in "dg"]
    kind = draw.choice(("fingerprint", "certificate", "key", "identity", "serial"))
    if kind == "fingerprint":
        body = {"kind": "fingerprint", "value": item.fingerprint}
    elif kind == "certificate":
        body = {"certificate": item.pem}
    elif kind == "key":
        body = {"kind": "key", "certificate": item.pem}
    elif kind == "identity":
        letter, _, type_id, device_id = (draw.choice(devices).client_id or "").split(":")
        body = {"kind": "identity", "value": f"{letter}:{type_id}:{device_id}"}
    else:
        ca = draw.choice(world.cas())
        body = {"kind": "serial", "value": f"{ca['id']}:{item.certificate.serial_number:x}"}
    world.operator.post(DENY_LIST, body)


def _lift(world: World) -> None:
    for entry in world.denials():
        if world.random.random() < 0.7:
            world.operator.delete(f"{DENY_LIST}/{urllib.parse.quote(entry['id'], safe='')}")


def _upload(world: World) -> None:
    world.operator.post(CAS, {"certificate": world.random.choice(world.fleet.cas).pem})


def _delete(world: World) -> None:
    world.operator.delete(f"{CAS}/{world.random.choice(world.cas())['id']}")


def _switch(world: World) -> None:
    ca = world.random.choice(world.cas())
    world.operator.put(f"{CAS}/{ca['id']}", {"status": "active" if ca["status"] == "inactive" else "inactive"})


def _restore(world: World) -> None:
    """Make the usual devices pass again, so that the walk does not end where all is refused."""
    set_suspended(world.changing.context, ORG, False)
    for entry in world.denials():
        world.operator.delete(f"{DENY_LIST}/{urllib.parse.quote(entry['id'], safe='')}")
    for ca in (world.fleet.root, world.fleet.inter):
        world.operator.post(CAS, {"certificate": ca.pem})
    for line in world.cas():
        world.operator.put(f"{CAS}/{line['id']}", {"status": "active"})
    world.put_policy(LEVELS[2])


def _suspend(world: World) -> None:
    set_suspended(world.changing.context, ORG, world.random.random() < 0.5)


def _policy(world: World) -> None:
    draw = world.random
    rules = (("pump", draw.choice(LEVELS)),) if draw.random() < 0.5 else ()
    world.put_policy(draw.choice(LEVELS), unnamed=draw.choice(("deny", "token")), rules=rules)


def _settings(world: World) -> None:
    draw = world.random
    custom = {"enabled": draw.random() < 0.7, "domains": ["fleet.example.org"]}
    world.operator.put("/authorization/settings", {"customDomains": custom, "typeCertificates": draw.random() < 0.5})


def _revoke(world: World) -> None:
    revoke_key(world.changing.context, world.random.choice(world.brokers).key)
    if world.random.random() < 0.7:
        world.renew_keys()


def _recreate(world: World) -> None:
    delete_org(world.changing.context, ORG)
    create_org(world.changing.context, ORG, now=True)
    world.renew_keys()
    _restore(world)


_CHANGES: Final[dict[str, tuple[Callable[[World], None], float]]] = {
    "deny": (_deny, 4),
    "lift": (_lift, 2),
    "upload": (_upload, 2),
    "delete": (_delete, 1),
    "switch": (_switch, 3),
    "restore": (_restore, 8),
    "suspend": (_suspend, 1),
    "policy": (_policy, 1),
    "settings": (_settings, 2),
    "revoke": (_revoke, 1),
    "recreate": (_recreate, 0.5),
}
KINDS_OF_CHANGES: Final = tuple(_CHANGES)

"""A process sends the certificate of a connection once a day and way: what it skips is what it would not send."""

import random
from datetime import timedelta
from hashlib import sha256

import pytest
from msgspec.structs import replace

from shared.connection_records import ConnectionEvent, ShownChain
from shared.usecases.devices.shown import ShownMemory
from shared.validation.policy import Presence
from tests.support import certs
from tests.support.certs import NOON

ORG = "mtxpd0"
ROOT = certs.ca("Root")
DEVICES = [certs.leaf(f"d:thermo:{number}", ROOT) for number in range(3)]


def make_event(draw: random.Random, second: int) -> ConnectionEvent:
    """Return a connection of a random device in a random way, a few of which come again and again."""
    device = draw.choice(DEVICES)
    decision, reached = draw.choice([("allow", True), ("allow", True), ("deny", True), ("deny", False)])
    client_id = draw.choice(["d:mtxpd0:thermo:1", "d:mtxpd0:thermo:2"])
    event = ConnectionEvent(
        org_id=ORG,
        at=NOON + timedelta(seconds=second) + timedelta(days=second // 300),
        decision=decision,
        code="",
        tls=True,
        presence=Presence.VALID,
        client_id=client_id,
        identity="d:thermo:1" if decision == "allow" else None,
        ca_id="ca" if decision == "allow" else None,
        fingerprint=device.fingerprint,
        chain=(device.der,),
        reached_ca=reached,
    )
    way = sha256(f"{device.fingerprint}{client_id}".encode()).digest()
    return replace(event, way=way, chain=() if draw.random() < 0.1 else event.chain)  # a full buffer drops the chain


def text_of(shown: ShownChain) -> tuple[object, ...]:
    return shown.fingerprint, shown.kind, shown.group, shown.client_id, shown.chain


@pytest.mark.parametrize("seed", range(20))
def test_what_is_skipped_by_its_way_would_not_have_been_sent(seed: int) -> None:
    draw = random.Random(seed)
    by_way, by_content = ShownMemory(), ShownMemory()
    sent = 0
    for batch in range(60):
        events = [make_event(draw, batch * 10 + number) for number in range(draw.randint(1, 5))]
        skipping = by_way.take_new(ORG, events)
        whole = by_content.take_new(ORG, [replace(event, way=b"") for event in events])
        assert set(map(text_of, skipping)) == set(map(text_of, whole)), batch
        sent += len(whole)
    assert sent > 10


def test_an_event_from_the_memory_has_the_certificates_that_were_sent() -> None:
    """Nothing read them for the verdict. They are split when the ring needs them."""
    event = make_event(random.Random(1), 0)
    computed = replace(event, chain=(DEVICES[0].der, ROOT.der), decision="allow")
    remembered = replace(computed, chain=(), unread=(certs.bundle(DEVICES[0], ROOT).encode(), b""))
    [shown] = ShownMemory().take_new(ORG, [remembered])
    assert [shown] == list(ShownMemory().take_new(ORG, [computed]))

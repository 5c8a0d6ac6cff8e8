"""What a process remembers of verdicts: bounded in bytes, fair to organizations, and only for the same question."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from shared.usecases.devices.memory import Common, Own, Remembered, VerdictMemory, find_level
from shared.validation.deny_list import CertificateIds
from shared.validation.names import ClientClass, DeviceName
from shared.validation.policy import Decision, Presence
from shared.validation.presented import ConnectingClient
from shared.validation.verdict import TrustedCA

CLIENT = ConnectingClient("mtxpd0.messaging.example.com", "d:mtxpd0:thermo:42", b"leaf", b"chain")


def remembered(number: int = 0, org_id: str = "mtxpd0", *, intermediate: int = 0) -> Remembered:
    """What is remembered of a device whose P-256 certificate was sent with an intermediate."""
    device = DeviceName(ClientClass.DEVICE, "thermo", f"{number:06}")
    own = Own(
        begin=0,
        end=1 << 40,
        device=device,
        identity=device,
        reason=f"{device} is allowed.",
        expires_at=datetime(2027, 1, 1, tzinfo=UTC),
        leaf=ids_of(number),
        key_digest=f"{number:012x}",
        serial_digest=f"{number:012x}",
    )
    common = Common(
        versions=("0" * 16, "b" * 16, "c" * 16, *[None] * 10),
        token_hash="d" * 64,
        org_id=org_id,
        incarnation="",
        no_sni=False,
        decision=Decision.ALLOW,
        code="allowed",
        bound=True,
        presence=Presence.VALID,
        ca=TrustedCA("e" * 40, "CN=Fleet Root, O=Fleet Maker"),
        above=(ids_of(intermediate),),
        key_digests=(f"{intermediate:012x}", "f" * 12),
        serial_digests=(f"{intermediate:012x}", "a" * 12),
        basis="allow",
    )
    return Remembered(own, common)


def ids_of(number: int) -> CertificateIds:
    seed = number.to_bytes(8)
    return CertificateIds(seed * 2, f"{number:032x}", seed * 4, (seed * 4, seed[::-1] * 4))


@contextmanager
def measuring() -> Iterator[Callable[[], int]]:
    """Measure what Python allocates within the block, and keeps. Yield what returns the bytes after the block."""
    sizes: list[int] = []
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: sizes[0]
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()


def fill(memory: VerdictMemory, count: int, org_id: str = "mtxpd0", *, start: int = 0) -> list[bytes]:
    digests = [number.to_bytes(16) for number in range(start, start + count)]
    for number, digest in enumerate(digests, start):
        memory.keep(digest, remembered(number, org_id))
    return digests


def test_what_is_kept_comes_back_unchanged() -> None:
    memory = VerdictMemory(1 << 20)
    entry = remembered(7)
    memory.keep(b"digest", entry)
    assert memory.find("mtxpd0", b"digest") == entry
    assert memory.find("mtxpd0", b"other") is None
    assert memory.find("other1", b"digest") is None


@pytest.mark.parametrize(
    "other",
    [
        replace(CLIENT, server_name=None),
        replace(CLIENT, server_name="mtxpd0.messaging.example.org"),
        replace(CLIENT, client_id="d:mtxpd0:thermo:43"),
        replace(CLIENT, certificate=b"leafc", chain=b"hain"),
        replace(CLIENT, certificate=b"leafchain", chain=b""),
        replace(CLIENT, tls=False),
        replace(CLIENT, leaf_only=True),
    ],
)
def test_another_question_has_another_digest(other: ConnectingClient) -> None:
    memory = VerdictMemory(1 << 20)
    assert memory.digest("a-mtxpd0-key", "emqx", other) != memory.digest("a-mtxpd0-key", "emqx", CLIENT)


def test_another_key_format_or_process_has_another_digest() -> None:
    memory = VerdictMemory(1 << 20)
    digest = memory.digest("a-mtxpd0-key", "emqx", CLIENT)
    assert digest == memory.digest("a-mtxpd0-key", "emqx", replace(CLIENT))
    assert digest != memory.digest("a-mtxpd0-yek", "emqx", CLIENT)
    assert digest != memory.digest("a-mtxpd0-key", "nginx", CLIENT)
    assert digest != VerdictMemory(1 << 20).digest("a-mtxpd0-key", "emqx", CLIENT)


def test_a_verdict_holds_for_its_token_documents_and_window_only() -> None:
    whole = remembered()
    entry = replace(whole, own=replace(whole.own, begin=100, end=200))
    token, versions = entry.common.token_hash, entry.common.versions
    assert entry.holds(token, versions, 100)
    assert entry.holds(token, versions, 199)
    assert not entry.holds(token, versions, 99)
    assert not entry.holds(token, versions, 200)
    assert not entry.holds("e" * 64, versions, 150)
    assert not entry.holds(token, (*versions[:-1], "new"), 150)  # a document that was absent exists now
    assert not entry.holds(token, (None, *versions[1:]), 150)  # a document is deleted
    assert not entry.holds(token, versions[:-1], 150)


def test_the_memory_stays_within_its_size() -> None:
    """What Python allocates is measured, keys and tables included."""
    size = 1 << 20
    memory = VerdictMemory(size)
    with measuring() as allocated:
        fill(memory, 3_000)
    assert memory.used <= size
    assert allocated() <= size
    assert memory.used > size * 0.9


def test_devices_with_intermediates_of_their_own_stay_within_the_size() -> None:
    """Nothing is common to them. What was common to entries that were dropped is dropped, too."""
    size = 1 << 20
    memory = VerdictMemory(size)
    with measuring() as allocated:
        for number in range(1_000):
            memory.keep(number.to_bytes(16), remembered(number, intermediate=number))
    assert memory.used <= size
    assert allocated() <= size
    assert memory.used > size * 0.9


def test_what_is_common_is_counted_once_and_leaves_with_its_last_entry() -> None:
    memory = VerdictMemory(1 << 20)
    used = []
    for number in range(3):
        memory.keep(number.to_bytes(16), remembered(number))
        used.append(memory.used)
    assert used[2] - used[1] == used[1] - used[0] < 600
    for number in range(3):  # the intermediate was renewed: each entry is replaced
        memory.keep(number.to_bytes(16), remembered(number, intermediate=9))
    assert memory.used == used[2]
    assert memory.find("mtxpd0", (1).to_bytes(16)) == remembered(1, intermediate=9)


def test_organizations_that_fill_the_memory_in_turn_stay_within_the_size() -> None:
    """A table of Python keeps its largest size when its entries are deleted; that would not be counted."""
    size = 1 << 19
    memory = VerdictMemory(size)
    with measuring() as allocated:
        for number in range(12):
            fill(memory, 1_000, f"o{number:05}", start=number * 1_000)
    assert memory.used <= size
    assert allocated() <= size


def test_what_was_used_last_stays() -> None:
    memory = VerdictMemory(1 << 18)
    first, second, *_ = fill(memory, 2)
    number = 2
    while memory.find("mtxpd0", first) is not None and number < 1_500:
        fill(memory, 1, start=number)
        number += 1
    assert number == 1_500, "an entry that is used all the time was dropped"
    assert memory.find("mtxpd0", second) is None


def test_an_organization_uses_what_no_other_needs() -> None:
    memory = VerdictMemory(1 << 18)
    fill(memory, 1_500)
    assert memory.used > (1 << 18) * 0.9


def test_the_organization_that_holds_most_makes_room() -> None:
    """A small organization keeps all of its entries while a large one connects ever more devices."""
    memory = VerdictMemory(1 << 18)
    small = fill(memory, 50, "small1")
    fill(memory, 1_500, "large1", start=1_000)
    assert all(memory.find("small1", digest) is not None for digest in small)


def test_organizations_of_one_size_share_the_memory() -> None:
    memory = VerdictMemory(1 << 18)
    kept: dict[str, list[bytes]] = {org_id: [] for org_id in ("aaaaaa", "bbbbbb", "cccccc")}
    for number in range(800):
        for place, (org_id, digests) in enumerate(kept.items()):
            digests += fill(memory, 1, org_id, start=number * 3 + place)
    counts = [sum(memory.find(org_id, digest) is not None for digest in digests) for org_id, digests in kept.items()]
    assert min(counts) > max(counts) * 0.8


def test_many_organizations_with_one_entry_each_stay_within_the_size() -> None:
    """A full memory gives up a part, and not the entry of every organization."""
    size = 1 << 20
    memory = VerdictMemory(size)
    with measuring() as allocated:
        for number in range(1_500):
            memory.keep(number.to_bytes(16), remembered(number, f"o{number:05}"))
    assert memory.used <= size
    assert allocated() <= size
    assert memory.used > size * 0.9
    assert memory.find("o01499", (1_499).to_bytes(16)) is not None


@pytest.mark.parametrize(
    ("sizes", "total", "level"),
    [
        ([10, 20, 30], 60, 30),
        ([10, 20, 30], 45, 17),
        ([10, 20, 30], 30, 10),
        ([5, 100], 50, 45),
        ([], 0, 0),
        ([9], 4, 4),
    ],
)
def test_the_largest_are_cut_to_one_size(sizes: list[int], total: int, level: int) -> None:
    assert find_level(sizes, total) == level
    assert sum(min(size, level) for size in sizes) <= total


def test_an_entry_that_would_fill_the_memory_is_not_kept() -> None:
    memory = VerdictMemory(4_096)
    memory.keep(b"digest", remembered())
    assert memory.find("mtxpd0", b"digest") is None
    assert memory.used == 0


def test_a_memory_of_no_size_is_off(tmp_path: Path) -> None:
    assert not VerdictMemory(0).is_on
    assert VerdictMemory(1).is_on


def test_a_new_verdict_replaces_the_earlier() -> None:
    memory = VerdictMemory(1 << 20)
    memory.keep(b"digest", remembered(1))
    used = memory.used
    memory.keep(b"digest", remembered(2))
    assert memory.find("mtxpd0", b"digest") == remembered(2)
    assert memory.used == used


def test_the_memory_can_be_cleared() -> None:
    memory = VerdictMemory(1 << 20)
    fill(memory, 10)
    memory.clear()
    assert memory.used == 0
    assert memory.find("mtxpd0", (1).to_bytes(16)) is None

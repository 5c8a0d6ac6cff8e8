"""The verdicts that a process remembers, so that a client that connects again costs one read and no computing.

A verdict follows from what was presented, the caller's key, the documents that were read, the weak keys of the
settings, and the time. So a verdict is given again where all of these are the same:

* What was presented, and the caller's key and format: the digest under which the verdict is kept.
* The documents: they are read at each connection, and their versions are compared. A document that was absent must be
  absent. So a denial, a deactivation, a suspension or a revoked key is in force at the next connection, in every
  process and on every store.
* The time: it lies in the window in which no comparison of the decision changes (`shared.x509.moment`).
* The caller's token: it is compared at each request.

Only verdicts that accept a certificate are kept: refusals, and clients without a certificate, are what strangers cause,
who would fill the memory. Answers to sign-in tokens and explained verdicts are not kept.

The memory is bounded in bytes. An organization may use what no other organization needs; where the memory is full, the
organizations that hold most lose their oldest entries.
"""

import hmac
import secrets
import sys
import threading
from collections import Counter
from datetime import datetime
from hashlib import blake2b
from typing import Final

import msgspec

from shared.validation.deny_list import CertificateIds, Questions, questions
from shared.validation.names import DeviceName
from shared.validation.policy import Decision, Presence
from shared.validation.presented import ConnectingClient, Presented
from shared.validation.verdict import TrustedCA, Verdict

_DIGEST_SIZE: Final = 16
_NUMBER_SIZE: Final = 6  # bytes
_ENTRY_BYTES: Final = 240  # of Python's objects for one entry, beside its content
_TABLE_BYTES: Final = 120  # of these at most in the table of a dict that has grown and not shrunk
_SHARE_BYTES: Final = 1_600  # of Python's objects for an organization
_COMMON_BYTES: Final = 1_600  # of Python's objects for a common part, beside its content
_OF_A_BYTE: Final = 4  # bytes of memory for each byte of an encoded common part
_ROOM: Final = 16  # a memory that is full gives up one part of this many


class Common(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The part of a remembered verdict that is the same for most devices of a fleet.

    Args:
        versions: of each document that was read, in the order of the keys; None for an absent document.
        token_hash: of the caller's token, SHA-256 in hexadecimal digits.
        incarnation: of the organization.
        no_sni: whether the server name meant nothing, because the caller's key is marked so.
        above: what each certificate that was sent after the leaf is looked up by.
        key_digests, serial_digests: of the accepted path above the leaf.
    """

    versions: tuple[str | None, ...]
    token_hash: str
    org_id: str
    incarnation: str
    no_sni: bool
    decision: Decision
    code: str
    bound: bool
    presence: Presence
    ca: TrustedCA | None
    above: tuple[CertificateIds, ...]
    key_digests: tuple[str, ...]
    serial_digests: tuple[str, ...]
    basis: str


class Own(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The part of a remembered verdict that each device has for itself.

    Args:
        begin, end: the window: seconds since 1970, *end* excluded.
        device: the device in question (`Presented.device`).
        leaf: what the leaf is looked up by.
        key_digest, serial_digest: of the leaf.
    """

    begin: int
    end: int
    device: DeviceName | None
    identity: DeviceName | None
    reason: str
    expires_at: datetime | None
    leaf: CertificateIds
    key_digest: str
    serial_digest: str


class Remembered(msgspec.Struct, frozen=True):
    """A verdict that accepted a certificate, and everything that it depended on."""

    own: Own
    common: Common

    @classmethod
    def of(
        cls,
        verdict: Verdict,
        *,
        window: range,
        device: DeviceName | None,
        versions: tuple[str | None, ...],
        token_hash: str,
        org_id: str,
        incarnation: str,
        no_sni: bool,
    ) -> "Remembered":
        """Return *verdict* as it is remembered. Arguments: see `Own` and `Common`."""
        leaf, *above = verdict.certificates
        own = Own(
            begin=window.start,
            end=window.stop,
            device=device,
            identity=verdict.identity,
            reason=verdict.reason,
            expires_at=verdict.expires_at,
            leaf=leaf,
            key_digest=verdict.key_digests[0],
            serial_digest=verdict.serial_digests[0],
        )
        common = Common(
            versions=versions,
            token_hash=token_hash,
            org_id=org_id,
            incarnation=incarnation,
            no_sni=no_sni,
            decision=verdict.decision,
            code=verdict.code,
            bound=verdict.bound,
            presence=verdict.presence,
            ca=verdict.ca,
            above=tuple(above),
            key_digests=verdict.key_digests[1:],
            serial_digests=verdict.serial_digests[1:],
            basis=verdict.basis,
        )
        return cls(own, common)

    @property
    def org_id(self) -> str:
        return self.common.org_id

    @property
    def questions(self) -> Questions:
        """What was looked up."""
        return questions((self.own.leaf, *self.common.above), self.own.device)

    @property
    def verdict(self) -> Verdict:
        own, common = self.own, self.common
        return Verdict(
            common.decision,
            common.code,
            own.reason,
            org_id=common.org_id,
            identity=own.identity,
            bound=common.bound,
            ca=common.ca,
            expires_at=own.expires_at,
            presence=common.presence,
            certificates=(own.leaf, *common.above),
            key_digests=(own.key_digest, *common.key_digests),
            serial_digests=(own.serial_digest, *common.serial_digests),
            basis=common.basis,
        )

    def holds(self, token_hash: str, versions: tuple[str | None, ...], second: int) -> bool:
        """Return whether the verdict is the answer to the same question now.

        Args:
            token_hash: of the token that the caller sent now.
            versions: of the documents as they were read now.
            second: the time in seconds since 1970.
        """
        is_token = hmac.compare_digest(self.common.token_hash, token_hash)
        return is_token and self.common.versions == versions and self.own.begin <= second < self.own.end


def is_worth_remembering(presented: Presented, verdict: Verdict) -> bool:
    """Return whether *verdict* accepted a certificate, and everything presented was read.

    Strangers cause no such verdict."""
    return verdict.decision is not Decision.DENY and bool(verdict.key_digests) and not presented.unread


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Own)


class VerdictMemory:
    """The verdicts that a process remembers. Safe for threads.

    Args:
        size: bytes at most, of entries and the objects that hold them; 0 remembers nothing.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._key = secrets.token_bytes(32)  # so that no client can prepare two questions with one digest
        self._lock = threading.Lock()
        self._shares: dict[str, _Share] = {}
        self._used = 0
        self.answers = 0  # that came from the memory

    @property
    def is_on(self) -> bool:
        """Whether anything is remembered."""
        return self._size > 0

    @property
    def used(self) -> int:
        """How many bytes are in use."""
        return self._used

    def digest(self, caller: str, dialect: str, client: ConnectingClient) -> bytes:
        """Return the digest of a question.

        Args:
            caller: the id of the API key.
            dialect: the format in which the broker asks.
            client: everything that the broker passed."""
        return blake2b(_ENCODER.encode((caller, dialect, client)), digest_size=_DIGEST_SIZE, key=self._key).digest()

    def find(self, org_id: str, digest: bytes) -> Remembered | None:
        """Return what is remembered of a question about a client of *org_id*. Whether it holds is not checked."""
        with self._lock:
            share = self._shares.pop(org_id, None)
            if share is not None:
                self._shares[org_id] = share  # the last to lose entries among shares of one size
            entry = share.take(digest) if share is not None else None
        if entry is None:
            return None
        own, common = entry
        return Remembered(_DECODER.decode(own), common)

    def keep(self, digest: bytes, remembered: Remembered) -> None:
        """Remember a verdict in place of an earlier one on the same question."""
        own, common = _ENCODER.encode(remembered.own), _ENCODER.encode(remembered.common)
        if (len(own) + len(common) + _ENTRY_BYTES + _COMMON_BYTES) * _ROOM > self._size:
            return
        with self._lock:
            share = self._shares.get(remembered.org_id)
            if share is None:
                share = self._shares[remembered.org_id] = _Share()
                self._used += share.used
            before = share.used
            share.put(digest, own, common, remembered.common)
            self._used += share.used - before
            if self._used > self._size:
                self._make_room()

    def note_answer(self) -> None:
        """Count an answer from the memory."""
        self.answers += 1

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._shares.clear()
            self._used = 0

    def _make_room(self) -> None:
        """Cut the largest shares to one size, so that one part of the memory is free. The caller holds the lock.

        The work is done for many entries at a time, because the shares are sorted for it. Of many shares with an entry
        each, those lose it that were used longest ago."""
        wanted = self._size - self._size // _ROOM
        level = find_level([share.used for share in self._shares.values()], wanted)
        for org_id, share in list(self._shares.items()):
            if self._used <= wanted:
                return
            if share.used > level:
                before = share.used
                share.drop_oldest(level)
                self._used -= before - share.used
                if not share:
                    self._used -= share.used
                    del self._shares[org_id]


def find_level(sizes: list[int], total: int) -> int:
    """Return the size to which the largest of *sizes* must be cut so that their sum is *total* at most."""
    remaining = total
    for count, size in zip(range(len(sizes), 0, -1), sorted(sizes), strict=True):
        if size * count > remaining:
            return remaining // count
        remaining -= size
    return max(sizes, default=0)


class _Share:
    """The entries of one organization, the one that was used longest ago first. Not safe for threads.

    The devices of a fleet have the same common part. It is kept once, for as long as an entry needs it."""

    __slots__ = ("_commons", "_entries", "_next", "_numbers", "_users", "used")

    def __init__(self) -> None:
        self._entries: dict[bytes, bytes] = {}  # digest -> the number of the common part, and the own part
        self._next = 0  # the number of the next common part
        self._numbers: dict[bytes, int] = {}  # of each common part, by its encoded form
        self._commons: dict[int, tuple[bytes, Common]] = {}
        self._users: Counter[int] = Counter()  # entries with each common part
        self.used = _SHARE_BYTES

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, digest: bytes) -> tuple[bytes, Common] | None:
        """Return an entry, which is then the last to be dropped."""
        entry = self._entries.pop(digest, None)
        if entry is None:
            return None
        self._entries[digest] = entry
        return entry[_NUMBER_SIZE:], self._commons[_number_of(entry)][1]

    def put(self, digest: bytes, own: bytes, encoded: bytes, common: Common) -> None:
        """Store an entry: its own part, and the common part, *encoded* and as it is."""
        number = self._numbers.get(encoded)
        if number is None:
            number = self._numbers[encoded] = self._next
            self._next += 1
            self._commons[number] = encoded, common
            self.used += _size_of(encoded)
        self._users[number] += 1
        self._drop(digest)
        entry = number.to_bytes(_NUMBER_SIZE) + own
        self._entries[digest] = entry
        self.used += len(entry) + _ENTRY_BYTES

    def drop_oldest(self, level: int) -> None:
        """Drop entries until the share has *level* bytes at most, or no entry."""
        digests = iter(list(self._entries))
        while self.used > level and self._entries:
            self._drop(next(digests))
        if sys.getsizeof(self._entries) > _TABLE_BYTES * len(self._entries):  # a dict keeps its largest table
            self._entries = dict(self._entries.items())

    def _drop(self, digest: bytes) -> None:
        entry = self._entries.pop(digest, None)
        if entry is None:
            return
        self.used -= len(entry) + _ENTRY_BYTES
        number = _number_of(entry)
        self._users[number] -= 1
        if not self._users[number]:
            del self._users[number]
            encoded, _ = self._commons.pop(number)
            del self._numbers[encoded]
            self.used -= _size_of(encoded)


def _number_of(entry: bytes) -> int:
    return int.from_bytes(entry[:_NUMBER_SIZE])


def _size_of(encoded: bytes) -> int:
    """Return the bytes that a common part takes: encoded, and as Python's objects."""
    return _COMMON_BYTES + _OF_A_BYTE * len(encoded)

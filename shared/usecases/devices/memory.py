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
import threading
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

import msgspec

from shared.validation.deny_list import CertificateIds, Questions, questions
from shared.validation.names import DeviceName
from shared.validation.policy import Decision, Presence
from shared.validation.presented import ConnectingClient, Presented
from shared.validation.verdict import TrustedCA, Verdict

_DIGEST_SIZE: Final = 16
_ENTRY_BYTES: Final = 240  # of Python's objects for one entry, beside its content
_SHARE_BYTES: Final = 640  # of Python's objects for an organization
_ROOM: Final = 16  # a memory that is full gives up one part of this many


class Remembered(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A verdict that accepted a certificate, and everything that it depended on.

    Args:
        versions: of each document that was read, in the order of the refs; None for an absent document.
        begin, end: the window: seconds since 1970, *end* excluded.
        token_hash: of the caller's token, SHA-256 in hexadecimal digits.
        device: the device in question (`Presented.device`).
        incarnation: of the organization.
        no_sni: whether the server name meant nothing, because the caller's key is marked so.
    """

    versions: tuple[str | None, ...]
    begin: int
    end: int
    token_hash: str
    org_id: str
    device: DeviceName | None
    incarnation: str
    no_sni: bool
    decision: Decision
    code: str
    reason: str
    identity: DeviceName | None
    bound: bool
    ca: TrustedCA | None
    expires_at: datetime | None
    presence: Presence
    certificates: tuple[CertificateIds, ...]
    key_digests: tuple[str, ...]
    serial_digests: tuple[str, ...]
    basis: str

    @classmethod
    def of(cls, verdict: Verdict, *, window: range, **circumstances: Any) -> "Remembered":
        """Return *verdict* as it is remembered; *circumstances* are the other fields."""
        return cls(
            begin=window.start,
            end=window.stop,
            decision=verdict.decision,
            code=verdict.code,
            reason=verdict.reason,
            identity=verdict.identity,
            bound=verdict.bound,
            ca=verdict.ca,
            expires_at=verdict.expires_at,
            presence=verdict.presence,
            certificates=verdict.certificates,
            key_digests=verdict.key_digests,
            serial_digests=verdict.serial_digests,
            basis=verdict.basis,
            **circumstances,
        )

    @property
    def questions(self) -> Questions:
        """What was looked up."""
        return questions(self.certificates, self.device)

    @property
    def verdict(self) -> Verdict:
        return Verdict(
            self.decision,
            self.code,
            self.reason,
            org_id=self.org_id,
            identity=self.identity,
            bound=self.bound,
            ca=self.ca,
            expires_at=self.expires_at,
            presence=self.presence,
            certificates=self.certificates,
            key_digests=self.key_digests,
            serial_digests=self.serial_digests,
            basis=self.basis,
        )

    def holds(self, token_hash: str, versions: tuple[str | None, ...], second: int) -> bool:
        """Return whether the verdict is the answer to the same question now.

        Args:
            token_hash: of the token that the caller sent now.
            versions: of the documents as they were read now.
            second: the time in seconds since 1970.
        """
        is_token = hmac.compare_digest(self.token_hash, token_hash)
        return is_token and self.versions == versions and self.begin <= second < self.end


def is_worth_remembering(presented: Presented, verdict: Verdict) -> bool:
    """Return whether *verdict* accepted a certificate, and everything presented was read.

    Strangers cause no such verdict."""
    return verdict.decision is not Decision.DENY and bool(verdict.key_digests) and not presented.unread


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Remembered)


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
            share = self._shares.get(org_id)
            encoded = share.take(digest) if share is not None else None
        return None if encoded is None else _DECODER.decode(encoded)

    def keep(self, digest: bytes, remembered: Remembered) -> None:
        """Remember a verdict in place of an earlier one on the same question."""
        encoded = _ENCODER.encode(remembered)
        size = len(encoded) + _ENTRY_BYTES
        if size * _ROOM > self._size:
            return
        with self._lock:
            share = self._shares.get(remembered.org_id)
            if share is None:
                share = self._shares[remembered.org_id] = _Share()
                self._used += share.used
            self._used += share.put(digest, encoded)
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
        each, those lose it that were made first."""
        wanted = self._size - self._size // _ROOM
        level = find_level([share.used for share in self._shares.values()], wanted)
        for org_id, share in list(self._shares.items()):
            if self._used <= wanted:
                return
            if share.used > level:
                self._used -= share.drop_oldest(share.used - level)
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
    """The entries of one organization, the one that was used longest ago first. Not safe for threads."""

    __slots__ = ("_entries", "used")

    def __init__(self) -> None:
        self._entries: dict[bytes, bytes] = {}
        self.used = _SHARE_BYTES

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, digest: bytes) -> bytes | None:
        """Return an entry, which is then the last to be dropped."""
        encoded = self._entries.pop(digest, None)
        if encoded is not None:
            self._entries[digest] = encoded
        return encoded

    def put(self, digest: bytes, encoded: bytes) -> int:
        """Store an entry. Return by how many bytes the share grew."""
        before = self._entries.pop(digest, None)
        self._entries[digest] = encoded
        growth = len(encoded) + _ENTRY_BYTES if before is None else len(encoded) - len(before)
        self.used += growth
        return growth

    def drop_oldest(self, size: int) -> int:
        """Drop entries of *size* bytes at least, or all. Return how many bytes were dropped."""
        dropped = 0
        digests = []
        for digest, encoded in self._entries.items():
            if dropped >= size:
                break
            digests.append(digest)
            dropped += len(encoded) + _ENTRY_BYTES
        for digest in digests:
            del self._entries[digest]
        self.used -= dropped
        return dropped

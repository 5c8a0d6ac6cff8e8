"""Records in a document store, for every store alike: reading, and changing by compare-and-set.

Every change is one document. Activity entries travel in the changed document (its outbox) and are copied to the
activity list afterwards, under ids of their own, so that copying twice does no harm and a crash in between loses none.
"""

import hashlib
import logging
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from shared.errors import StoreUnavailable, TooBusy
from shared.ports import Document, DocumentStore, Key, WriteConflict
from shared.records import (
    PLATFORM,
    Activity,
    ActivityKind,
    ActivityPage,
    ApiKey,
    CAIndex,
    CAsOfOneName,
    DefaultCertificate,
    DeliveredMessage,
    Denials,
    Org,
    OrgHosts,
    Outboxed,
    Record,
    ReportRun,
    ServerCertificate,
    Usage,
    loaded,
    read,
    stored,
)

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)

_ATTEMPTS: Final = 300  # of one change, against others of the same document
_CHANGE_SECONDS: Final = 20.0  # how long a change is tried again
_OUTBOX_MAX: Final = 100  # entries
_OUTBOX_BYTES: Final = 32 * 1024
KEEP_USAGE: Final = timedelta(days=35)
_KEEP_ACTIVITY: Final = timedelta(days=400)
_KEEP_REFUSALS: Final = timedelta(days=30)
_END_OF_TIME: Final = 1 << 63  # microseconds; activity ids count down from here, so that the newest sorts first
_REMEMBERED: Final = 4096
ORG_HOSTS: Final = "hosts"  # the partition


class Ref(NamedTuple, Generic[R]):
    """Where a record of one kind lies."""

    key: Key
    kind: type[R]


def org_ref(org_id: str) -> Ref[Org]:
    return Ref(Key("org", org_id), Org)


def cas_ref(org_id: str, name: str) -> Ref[CAsOfOneName]:
    """*name*: the 16 hex digits a CA's id begins with."""
    return Ref(Key(f"ca/{org_id}", name), CAsOfOneName)


def ca_index_ref(org_id: str) -> Ref[CAIndex]:
    return Ref(Key("caindex", org_id), CAIndex)


def server_ref(org_id: str, certificate_id: str) -> Ref[ServerCertificate]:
    return Ref(Key(f"server/{org_id}", certificate_id), ServerCertificate)


def default_ref() -> Ref[DefaultCertificate]:
    return Ref(Key(PLATFORM, "default"), DefaultCertificate)


def denials_ref(org_id: str, what: str) -> Ref[Denials]:
    return Ref(Key(f"deny/{org_id}", what), Denials)


def api_key_ref(org_id: str | None, key: str) -> Ref[ApiKey]:
    return Ref(Key(f"key/{org_id or PLATFORM}", key), ApiKey)


def usage_ref(org_id: str, day: str) -> Ref[Usage]:
    return Ref(Key(f"usage/{org_id}", day), Usage)


def report_run_ref() -> Ref[ReportRun]:
    return Ref(Key(PLATFORM, "expiry-report"), ReportRun)


def delivered_ref(day: str, message_id: str) -> Ref[DeliveredMessage]:
    return Ref(Key(f"told/{day}", message_id), DeliveredMessage)


def org_hosts_ref(org_id: str) -> Ref[OrgHosts]:
    return Ref(Key(ORG_HOSTS, org_id), OrgHosts)


def activity_partition(org_id: str, kind: ActivityKind) -> str:
    return f"activity/{org_id}/{kind}"


def activity_id(at: datetime, about: str | None = None) -> str:
    """An id that sorts before those of all earlier moments.

    Args:
        about: makes the id the same each time, so that what is told twice is written once (`append_once`)."""
    micros = int(at.timestamp() * 1_000_000)
    tail = secrets.token_hex(4) if about is None else hashlib.sha256(about.encode()).hexdigest()[:16]
    return f"{_END_OF_TIME - micros:016x}-{tail}"


def new_version() -> str:
    """A version (ETag) of a record: never the same twice, even if a thing is deleted and made again."""
    return secrets.token_hex(6)


class Batch:
    """The documents of one batched read, as records."""

    def __init__(self, documents: Mapping[Key, Document]) -> None:
        self._documents = documents

    def get(self, place: Ref[R]) -> R | None:
        """The record at *place*, which was among those asked for; None where there is none."""
        document = self.document(place)
        return None if document is None else read(place.kind, document.text)

    def document(self, ref: Ref[Any]) -> Document | None:
        """Return the stored document of *ref* with its version, or None."""
        return self._documents.get(ref.key)


class Repository:
    """Records by place. Every method raises StoreUnavailable where the store does not answer."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self._copied: OrderedDict[str, None] = OrderedDict()  # activity ids known to be in the list

    # ------------------------------------------------------------------------------------------------- reading

    def find(self, places: Sequence[Ref[Any]]) -> Batch:
        """The records at *places*, in one round trip."""
        return Batch(self._store.get_many({place.key for place in places}))

    def get(self, place: Ref[R]) -> R | None:
        return self.find([place]).get(place)

    def list(self, partition: str, kind: type[R], *, after: str = "", limit: int = 100) -> list[tuple[str, R]]:
        """At most *limit* (id, record) of *partition*, in the order of ids, beginning behind *after*."""
        return [(one.key.id, read(kind, one.text)) for one in self._store.list(partition, after=after, limit=limit)]

    def every(self, partition: str, kind: type[R]) -> Iterator[tuple[str, R]]:
        """All of *partition*, page by page."""
        after = ""
        while page := self.list(partition, kind, after=after, limit=200):
            yield from page
            after = page[-1][0]

    # ------------------------------------------------------------------------------------------------ changing

    def changing(
        self,
        ref: Ref[R],
        *,
        activity_of: str | None = None,
        expires: datetime | None = None,
        start: Batch | None = None,
    ) -> Iterator["Attempt[R]"]:
        """Change the record at *ref* by compare-and-set: read, decide, write, and again while another writer was first.

            for attempt in repository.changing(org_ref(org_id), activity_of=org_id):
                with attempt as org:
                    ...
                    attempt.write(replace(org, suspended=True), activity=entry(...))

        The block receives the stored record with an empty outbox, or None. A block that calls neither `write` nor
        `delete` changes nothing. A block that raises refuses the change. A block may run many times, also after an
        attempt that was written although the answer of the store was lost. So a block reads and decides; it must not
        return, and it must not do anything that may not happen twice.

        Args:
            activity_of: the organization whose activity list takes the entries of the outbox. None leaves them in the
                document.
            expires: when the document may be removed.
            start: an earlier read that included *ref*. The first attempt uses this read instead of a new one; the
                compare-and-set refuses the write if the document has changed since.

        Raises: TooBusy, StoreUnavailable, and whatever the block raises."""
        deadline = time.monotonic() + _CHANGE_SECONDS
        for number in range(_ATTEMPTS):
            attempt = Attempt(self, self._store, ref, activity_of, expires, start if number == 0 else None)
            yield attempt
            if attempt.is_done:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(random.uniform(0, min(0.002 * (number + 1), 0.1)))  # noqa: S311 - spreads writers apart
        raise TooBusy

    def change(
        self,
        place: Ref[R],
        alter: Callable[[R | None], R | None],
        *,
        org_id: str | None = None,
        expires: datetime | None = None,
    ) -> R | None:
        """Replace the record at *place* by what *alter* makes of it, if nobody else wrote in between; else again.

        *alter* gets the record as it stands (None where there is none) with an empty outbox, and returns the new
        one, the very same object for "leave it as it is", or None for "remove it". It may be called many times, also
        after a call of it was written whose answer was lost, and raises to refuse. Activity entries in the outbox of
        what it returns are copied to the list of *org_id*; a document is not removed before all it holds are.

        Returns what now stands. Raises: TooBusy, StoreUnavailable, and what *alter* raises."""
        deadline = time.monotonic() + _CHANGE_SECONDS
        for attempt in range(_ATTEMPTS):
            document = self._store.get_many([place.key]).get(place.key)
            before, waiting = _emptied(None if document is None else read(place.kind, document.text))
            after = alter(before)
            if after is before:
                return after
            waiting = [entry for entry in waiting if not (org_id and self.note_once(org_id, entry))]
            if after is None and org_id and waiting:
                raise StoreUnavailable  # the list has not taken what only this document tells
            fresh = after.outbox if isinstance(after, Outboxed) else ()
            if isinstance(after, Outboxed):
                after = msgspec.structs.replace(after, outbox=_trimmed((*waiting, *fresh)))
            try:
                self._write(place.key, document, after, expires)
            except WriteConflict:
                if time.monotonic() > deadline:
                    break
                time.sleep(random.uniform(0, min(0.002 * (attempt + 1), 0.1)))  # noqa: S311 - spreads writers apart
                continue
            if org_id is not None:
                for entry in fresh:
                    self.note_once(org_id, entry)
            return after
        raise TooBusy

    def _write(self, key: Key, document: Document | None, after: Record | None, expires: datetime | None) -> None:
        if after is not None:
            self._store.put(key, stored(after), expected=document.version if document else None, expires=expires)
        elif document is not None:
            self._store.delete(key, expected=document.version)

    def create(self, place: Ref[R], record: R) -> bool:
        """Write a record where none is. Returns False, and changes nothing, where one is already."""
        try:
            self._store.put(place.key, stored(record), expected=None)
        except WriteConflict:
            return False
        return True

    def discard(self, place: Ref[Any], *, org_id: str | None = None) -> None:
        """Remove what is at *place*, whatever it is, once its activity entries are in the list of *org_id*. Nothing
        there is fine."""
        self.change(place, lambda _: None, org_id=org_id)

    def discard_all(self, partition: str) -> None:
        """Remove everything in *partition*."""
        while page := self._store.list(partition, limit=200):
            for document in page:
                try:
                    self._store.delete(document.key, expected=document.version)
                except WriteConflict:
                    continue  # written or removed meanwhile: the next page shows which

    # ------------------------------------------------------------------------------------------ export, import

    def dump(self, keys: Sequence[Key], partitions: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Documents as they are stored: `{partition, id, body}`."""
        for document in self._store.get_many(keys).values():
            yield {"partition": document.key.partition, "id": document.key.id, "body": document.body}
        for partition in partitions:
            after = ""
            while page := self._store.list(partition, after=after, limit=100):
                for document in page:
                    yield {"partition": partition, "id": document.key.id, "body": document.body}
                after = page[-1].key.id

    def restore(self, line: Mapping[str, Any]) -> bool:
        """Write what `dump` gave, where nothing is. Returns whether it was written.

        Raises: KeyError, TypeError, ValueError, where it is no such line."""
        key = Key(str(line["partition"]), str(line["id"]))
        body = {str(name): value for name, value in line["body"].items()}
        try:
            self._store.put(key, body, expected=None, expires=_expiry(key, body))
        except WriteConflict:
            return False
        return True

    # ------------------------------------------------------------------------------------------------ activity

    def append(self, org_id: str, kind: ActivityKind, entries: Sequence[Activity]) -> None:
        """Write entries that belong to no document (refusals, receipts) as one."""
        if entries:
            newest = max(entries, key=lambda one: one.at)
            key = Key(activity_partition(org_id, kind), min(one.id for one in entries))  # the newest's
            self._store.put(key, stored(ActivityPage(tuple(entries))), expected=None, expires=_until(newest))

    def told(self, org_id: str, entry_id: str, kind: ActivityKind) -> Activity | None:
        """The entry that `append_once` wrote under that id, if it did."""
        page = self.get(Ref(Key(activity_partition(org_id, kind), entry_id), ActivityPage))
        return page.entries[0] if page else None

    def append_once(self, org_id: str, entry: Activity) -> bool:
        """Write an entry whose id says what it is about. Returns False where it is there already."""
        key = Key(activity_partition(org_id, entry.kind), entry.id)
        try:
            self._store.put(key, stored(ActivityPage((entry,))), expected=None, expires=_until(entry))
        except WriteConflict:
            return False
        return True

    def copy_outbox(self, org_id: str, entries: Sequence[Activity]) -> int:
        """Put entries that wait in a document into the activity list, where a crash left them out. Returns how many
        were missing."""
        keys = {Key(activity_partition(org_id, one.kind), one.id): one for one in entries if one.id not in self._copied}
        present = self._store.get_many(keys)
        return sum(self.append_once(org_id, one) for key, one in keys.items() if key not in present)

    def note_once(self, org_id: str, entry: Activity) -> bool:
        """`append_once` for what is no reason to fail: a store that does not answer is logged. One process asks the
        store once. Returns whether the entry is there now."""
        if entry.id in self._copied:
            return True
        try:
            self.append_once(org_id, entry)
        except StoreUnavailable:
            log.warning("an activity entry could not be copied to the list", extra={"org": org_id, "entry": entry.id})
            return False
        self._copied[entry.id] = None
        while len(self._copied) > _REMEMBERED:
            self._copied.popitem(last=False)
        return True


class Attempt(Generic[R]):
    """One attempt at a change: a block that reads a record and may replace or delete the record. See `changing`."""

    def __init__(
        self,
        repository: Repository,
        store: DocumentStore,
        ref: Ref[R],
        activity_of: str | None,
        expires: datetime | None,
        start: Batch | None = None,
    ) -> None:
        self._repository = repository
        self._store = store
        self._ref = ref
        self._activity_of = activity_of
        self._expires = expires
        self._start = start
        self._document: Document | None = None
        self._waiting: list[Activity] = []  # entries of earlier changes that the activity list may lack
        self._written: R | None = None
        self._is_deleted = False
        self.is_done = False

    def __enter__(self) -> R | None:
        self._document = (self._start or self._repository.find([self._ref])).document(self._ref)
        record = None if self._document is None else read(self._ref.kind, self._document.text)
        record, self._waiting = _emptied(record)
        return record

    @property
    def result(self) -> Batch:
        """The document after a completed block: as written, or as read if the block wrote nothing."""
        return Batch({} if self._document is None else {self._ref.key: self._document})

    def write(self, record: R, *, activity: Activity | None = None) -> None:
        """Store *record* at the end of the block; *activity* goes into its outbox."""
        if activity is not None:
            record = msgspec.structs.replace(record, outbox=(activity,))
        self._written = record

    def delete(self) -> None:
        """Delete the record at the end of the block. A missing record is not an error."""
        self._is_deleted = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            return
        try:
            self._commit()
        except WriteConflict:
            return  # `changing` tries again
        self.is_done = True

    def _commit(self) -> None:
        """Raises: WriteConflict, StoreUnavailable."""
        if self._written is None and not self._is_deleted:
            return
        missing = [entry for entry in self._waiting if not self._is_copied(entry)]
        if self._written is None:
            if missing and self._activity_of is not None:
                raise StoreUnavailable  # the document is the only place that has these entries
            if self._document is not None:
                self._store.delete(self._ref.key, expected=self._document.version)
                self._document = None
            return
        new: tuple[Activity, ...] = ()
        record = self._written
        if isinstance(record, Outboxed):
            new = record.outbox
            record = msgspec.structs.replace(record, outbox=_trimmed((*missing, *new)))
        expected = self._document.version if self._document is not None else None
        body = stored(record)
        version = self._store.put(self._ref.key, body, expected=expected, expires=self._expires)
        self._document = Document(self._ref.key, version, msgspec.json.encode(body))
        for entry in new:
            self._is_copied(entry)

    def _is_copied(self, entry: Activity) -> bool:
        return self._activity_of is not None and self._repository.note_once(self._activity_of, entry)


def _until(entry: Activity) -> datetime:
    return entry.at + (_KEEP_REFUSALS if entry.kind is ActivityKind.REFUSAL else _KEEP_ACTIVITY)


def _expiry(key: Key, body: Mapping[str, Any]) -> datetime | None:
    """When a restored document goes: as it would have gone where it came from."""
    kind = key.partition.partition("/")[0]
    if kind == "usage":
        return datetime.fromisoformat(key.id).replace(tzinfo=UTC) + KEEP_USAGE
    if kind == "activity":
        return max((_until(entry) for entry in loaded(ActivityPage, body).entries), default=None)
    return None


def _emptied(record: R | None) -> tuple[R | None, list[Activity]]:
    """The record without its outbox, and what was in it."""
    if isinstance(record, Outboxed) and record.outbox:
        return msgspec.structs.replace(record, outbox=()), list(record.outbox)
    return record, []


def _trimmed(outbox: Sequence[Activity]) -> tuple[Activity, ...]:
    """The newest entries that an outbox may hold."""
    kept = list(outbox)[-_OUTBOX_MAX:]
    while kept and len(msgspec.json.encode(kept)) > _OUTBOX_BYTES:
        kept.pop(0)
    return tuple(kept)

"""Typed records in a document store: batched reads, and changes by compare-and-set.

A change writes one document. Its activity entries travel in that document (the outbox) and are copied to the activity
list afterwards. Each entry has an id of its own, so that copying an entry twice does no harm and a crash between the
write and the copy loses none. So do withdrawals, which `shared.usecases.edges.withdrawals` brings into their feed.
"""

import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from shared.batch import Batch
from shared.connection_records import ShownChain
from shared.errors import NotFound, StoreUnavailable, TooBusy
from shared.ports import Document, DocumentStore, Key, WriteConflict
from shared.records import (
    Activity,
    ActivityKind,
    ActivityPage,
    Record,
    RecordWithOutbox,
    Withdrawal,
    decode,
    from_body,
    to_body,
)
from shared.refs import Ref, activity_partition

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)
A = TypeVar("A", bound="Attempt[Any]")
K = TypeVar("K")

_ATTEMPTS: Final = 300  # of one change, against other writers of the same document
_CHANGE_SECONDS: Final = 20.0  # after which a change is not attempted again
_OUTBOX_MAX: Final = 100  # entries
_OUTBOX_BYTES: Final = 32 * 1024
WITHDRAWALS_MAX: Final = 100  # that may wait in one document; then the document is not changed
KEEP_USAGE: Final = timedelta(days=35)
_KEEP_ACTIVITY: Final = timedelta(days=400)
KEEP_REFUSALS: Final = timedelta(days=30)
_COPIED_MAX: Final = 4096  # ids of copied activity entries, and of published withdrawals, that a process remembers
_PAGE: Final = 200  # documents in one page of a partition


class Repository:
    """Records by `Ref`. Every method raises StoreUnavailable where the store does not answer.

    The records of one organization are read and written through `shared.org_repository.OrgRepository`, which knows the
    organization's incarnation."""

    incarnation: str | None = None

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        # Ids of activity entries known to be in the list, with the incarnation of their organization.
        self._copied: OrderedDict[tuple[str | None, str], None] = OrderedDict()
        self._published: OrderedDict[str, None] = OrderedDict()  # ids of withdrawals known to be in the feed

    # ------------------------------------------------------------------------------------------------- reading

    def read_batch(self, refs: Collection[Ref[Any]]) -> Batch:
        """Return the records at *refs*, read in one round trip."""
        return self.read_keys({ref.key for ref in refs})

    def read_keys(self, keys: Collection[Key]) -> Batch:
        """Return the records at *keys*, each key once, read in one round trip."""
        return Batch(keys, self._store.get_many(keys), self.incarnation)

    def get(self, ref: Ref[R]) -> R | None:
        """Return the record at *ref*, or None where no document exists."""
        return self.read_batch([ref]).get(ref)

    def list(self, partition: str, kind: type[R], *, after: str = "", limit: int = 100) -> list[tuple[str, R]]:
        """Return at most *limit* pairs (id, record) of *partition* whose ids come after *after*, ordered by id."""
        page = self._store.list(partition, after=after, limit=limit)
        return [(document.key.id, decode(kind, document.text)) for document in page]

    def iterate(self, partition: str, kind: type[R]) -> Iterator[tuple[str, R]]:
        """Yield every (id, record) of *partition*, read page by page."""
        after = ""
        while page := self.list(partition, kind, after=after, limit=_PAGE):
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def has_documents(self, partition: str) -> bool:
        """Return whether *partition* has a document, of any kind and incarnation."""
        return bool(self._store.list(partition, limit=1))

    # ------------------------------------------------------------------------------------------------ changing

    def changing(
        self,
        ref: Ref[R],
        *,
        also: Collection[Ref[Any]] = (),
        first: Batch | None = None,
        activity_of: str | None = None,
        expires: datetime | None = None,
    ) -> Iterator["Attempt[R]"]:
        """Change the record at *ref* by compare-and-set: read, decide, write, and again while another writer was first.

            for attempt in repository.changing(org_ref(org_id), activity_of=org_id):
                with attempt as org:
                    ...
                    attempt.write(replace(org, suspended=True), activity=make_entry(...))

        The block receives the stored record with an empty outbox, or None. A block that calls neither `write` nor
        `delete` changes nothing. A block that raises refuses the change. A block may run many times, also after an
        attempt that was written although the answer of the store was lost. So a block reads and decides; it must not
        return, and it must not do anything that may not happen twice.

        Args:
            also: further records that the block decides by, read in the same round trip at each attempt:
                `attempt.batch.get(...)`. The compare-and-set does not cover these records, and a batch is not a
                snapshot.
            first: documents that were read a moment ago, *ref* and *also* among them: the first attempt begins with
                these documents instead of a read. A block that decides not to write has then decided by that read.
            activity_of: the organization whose activity list takes the entries of the outbox. None leaves them in the
                document.
            expires: the time after which the store may delete the document.

        Raises: TooBusy, StoreUnavailable, and whatever the block raises."""
        return _repeat(lambda batch: Attempt(self, ref, also, batch, activity_of, expires), first)

    def changing_existing(
        self,
        ref: Ref[R],
        what: str | NotFound,
        *,
        also: Collection[Ref[Any]] = (),
        first: Batch | None = None,
        activity_of: str | None = None,
    ) -> Iterator["ExistingAttempt[R]"]:
        """Change a record as `changing` does, where a missing record refuses the change.

        Args:
            what: names the record in the refusal: "There is no *what* here."; or the refusal itself.

        Raises: NotFound, TooBusy, StoreUnavailable, and whatever the block raises."""
        return _repeat(lambda batch: ExistingAttempt(self, ref, also, batch, activity_of, None, what), first)

    def create(self, ref: Ref[R], record: R, *, expires: datetime | None = None) -> bool:
        """Create the record at *ref*. Return False, and change nothing, where a document exists already."""
        try:
            self._store.put(ref.key, to_body(self._stamp(record)), expected=None, expires=expires)
        except WriteConflict:
            return self._create_in_place(ref, record, expires)
        return True

    def delete(self, ref: Ref[Any], *, activity_of: str | None = None) -> None:
        """Delete the document at *ref*, once the activity list of *activity_of* has its activity entries.

        A missing document is not an error."""
        for attempt in self.changing(ref, activity_of=activity_of):
            with attempt:
                attempt.delete()

    # ------------------------------------------------------------------------------------------ export, import

    def export_documents(self, keys: Sequence[Key], partitions: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the documents at *keys* and in *partitions* as they are stored: `{partition, id, body}`."""
        for document in self._store.get_many(keys).values():
            yield {"partition": document.key.partition, "id": document.key.id, "body": document.body}
        for partition in partitions:
            after = ""
            while page := self._store.list(partition, after=after, limit=100):
                for document in page:
                    yield {"partition": partition, "id": document.key.id, "body": document.body}
                after = page[-1].key.id

    def import_document(self, line: Mapping[str, Any]) -> bool:
        """Create the document in *line*, which `export_documents` made. Return False where a document exists already.

        Raises: KeyError, TypeError, ValueError, where *line* is malformed."""
        key = Key(str(line["partition"]), str(line["id"]))
        body = {str(name): value for name, value in line["body"].items()}
        try:
            self._store.put(key, body, expected=None, expires=_expiry_of(key, body))
        except WriteConflict:
            return False
        return True

    # ------------------------------------------------------------------------------------------------ activity

    def append(self, org_id: str, kind: ActivityKind, entries: Sequence[Activity]) -> None:
        """Append entries that belong to no document (refusals, receipts) as one page."""
        if entries:
            newest = max(entries, key=lambda entry: entry.at)
            key = Key(activity_partition(org_id, kind), min(entry.id for entry in entries))  # the id of the newest
            page = self._stamp(ActivityPage(tuple(entries)))
            self._store.put(key, to_body(page), expected=None, expires=_keep_until(newest))

    def get_activity(self, org_id: str, entry_id: str, kind: ActivityKind) -> Activity | None:
        """Return the entry that `append_once` wrote under *entry_id*, or None."""
        page = self.get(Ref(Key(activity_partition(org_id, kind), entry_id), ActivityPage))
        return page.entries[0] if page else None

    def append_once(self, org_id: str, entry: Activity) -> bool:
        """Append an entry whose id follows from its content. Return False where the list has the entry already."""
        return self.create(_entry_ref(org_id, entry), ActivityPage((entry,)), expires=_keep_until(entry))

    def try_append_once(self, org_id: str, entry: Activity) -> bool:
        """Append an entry as `append_once` does, best effort. Return whether the list has the entry now.

        A store that does not answer is logged. One process asks the store once for each entry."""
        known = (self.incarnation, entry.id)
        if known in self._copied:
            return True
        try:
            self.create(_entry_ref(org_id, entry), ActivityPage((entry,)), expires=_keep_until(entry))
        except StoreUnavailable:
            log.warning("an activity entry could not be copied to the list", extra={"org": org_id, "entry": entry.id})
            return False
        _remember(self._copied, known)
        return True

    def copy_outbox(self, org_id: str, entries: Sequence[Activity]) -> int:
        """Copy those *entries* of an outbox that a crash kept from the activity list. Return how many were copied."""
        refs = {
            _entry_ref(org_id, entry): entry for entry in entries if (self.incarnation, entry.id) not in self._copied
        }
        present = self.read_batch(refs)
        return sum(self.append_once(org_id, entry) for ref, entry in refs.items() if present.get(ref) is None)

    # --------------------------------------------------------------------------------------------- withdrawals

    def mark_withdrawal(self, withdrawal: Withdrawal) -> Withdrawal:
        """Return *withdrawal* as it is stored."""
        return withdrawal

    def is_published(self, withdrawal: Withdrawal) -> bool:
        """Return whether this process knows that the feed has *withdrawal*."""
        return withdrawal.id in self._published

    def note_published(self, withdrawal: Withdrawal) -> None:
        """Remember that the feed has *withdrawal*. The next write of its document removes it there."""
        _remember(self._published, withdrawal.id)

    def drop_published(self, ref: Ref[Any], *, first: Batch | None = None) -> None:
        """Remove the withdrawals in the document at *ref* that the feed has.

        Args:
            first: an earlier read of the document, as `changing` takes it.
        """
        for attempt in self.changing(ref, first=first):
            with attempt as record:
                if record is not None and any(map(self.is_published, attempt.withdrawals)):
                    attempt.write(record)

    def commit(
        self, ref: Ref[Any], document: Document | None, record: Record | None, expires: datetime | None
    ) -> Document | None:
        """Replace *document* at *ref* by *record*, or delete it where *record* is None. Return the new document.

        Raises: WriteConflict, where *document* is not the stored one."""
        self._check_write(ref, document)
        if record is None:
            if document is not None:
                self._store.delete(ref.key, expected=document.version)
            return None
        body = to_body(self._stamp(record))
        expected = None if document is None else document.version
        version = self._store.put(ref.key, body, expected=expected, expires=expires)
        return Document(ref.key, version, msgspec.json.encode(body))

    # --------------------------------------------------------------------------------------------- incarnations

    def _stamp(self, record: R) -> R:
        """Return *record* as it is stored."""
        return record

    def _create_in_place(self, ref: Ref[R], record: R, expires: datetime | None) -> bool:
        """Create the record at *ref*, where a document exists that may be replaced. Return whether it was created."""
        return False

    def _check_write(self, ref: Ref[Any], document: Document | None) -> None:
        """Refuse to replace or delete *document* at *ref*, where that may not be. Raises: TrustError."""


class Waiting(NamedTuple):
    """The withdrawals that wait in a document, and an earlier read of the document."""

    repository: Repository
    ref: Ref[Any]
    withdrawals: tuple[Withdrawal, ...]
    batch: Batch


class Attempt(Generic[R]):
    """One attempt at a change: a block that reads a record and may replace or delete the record.

    `Repository.changing` makes attempts. *batch* holds the documents of the attempt as they were read. After the block,
    *batch* holds the written document, so that a second change of the same record may begin with *batch* (`first`).
    *withdrawals* are those that wait in the document; after the block, those that wait in the written document."""

    batch: Batch
    withdrawals: tuple[Withdrawal, ...] = ()

    def __init__(
        self,
        repository: Repository,
        ref: Ref[R],
        also: Collection[Ref[Any]],
        first: Batch | None,
        activity_of: str | None,
        expires: datetime | None,
    ) -> None:
        self._repository = repository
        self.ref = ref
        self._also = also
        self._first = first
        self._activity_of = activity_of
        self._expires = expires
        self._uncopied: list[Activity] = []  # entries of earlier changes that the activity list may lack
        self._record: R | None = None
        self._is_deleted = False
        self.is_done = False

    def __enter__(self) -> R | None:
        first = self._first
        self.batch = first if first is not None else self._repository.read_batch([self.ref, *self._also])
        record, self._uncopied, self.withdrawals = _take_outbox(self.batch.get(self.ref))
        return record

    def write(self, record: R, *, activity: Activity | None = None, withdrawals: Collection[Withdrawal] = ()) -> None:
        """Store *record* at the end of the block; *activity* and *withdrawals* go into its outbox."""
        if activity is not None:
            record = msgspec.structs.replace(record, outbox=(activity,))
        if withdrawals:
            marked = tuple(map(self._repository.mark_withdrawal, withdrawals))
            record = msgspec.structs.replace(record, withdrawals=marked)
        self._record = record

    def replace(self, record: R) -> None:
        """Store *record* at the end of the block, and drop what waits in the outbox of the stored record."""
        self._uncopied, self.withdrawals = [], ()
        self._record = record

    def delete(self) -> None:
        """Delete the record at the end of the block. A missing record is not an error."""
        self._is_deleted = True

    @property
    def waiting(self) -> Waiting:
        """The withdrawals that wait in the document after the block."""
        return Waiting(self._repository, self.ref, self.withdrawals, self.batch)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            return
        try:
            self._commit()
        except WriteConflict:
            return  # `changing` makes another attempt
        self.is_done = True

    def _commit(self) -> None:
        """Store or delete the record, and copy the activity entries. Raises: WriteConflict, StoreUnavailable."""
        record: Record | None = self._record
        if record is None and not self._is_deleted:
            return
        uncopied = [entry for entry in self._uncopied if not self._copy(entry)]
        waiting = tuple(withdrawal for withdrawal in self.withdrawals if not self._repository.is_published(withdrawal))
        if record is None and (waiting or (uncopied and self._activity_of is not None)):
            raise StoreUnavailable  # the document is the only place that has these entries
        if len(waiting) >= WITHDRAWALS_MAX:
            raise StoreUnavailable
        entries: tuple[Activity, ...] = ()
        if isinstance(record, RecordWithOutbox):
            entries = record.outbox
            waiting = (*waiting, *record.withdrawals)
            record = msgspec.structs.replace(record, outbox=_trim((*uncopied, *entries)), withdrawals=waiting)
        document = self._repository.commit(self.ref, self.batch.document(self.ref), record, self._expires)
        self.batch = self.batch.replace(self.ref, document)
        self.withdrawals = waiting
        for entry in entries:
            self._copy(entry)

    def _copy(self, entry: Activity) -> bool:
        return self._activity_of is not None and self._repository.try_append_once(self._activity_of, entry)


class ExistingAttempt(Attempt[R]):
    """An attempt at changing a record that must exist."""

    def __init__(
        self,
        repository: Repository,
        ref: Ref[R],
        also: Collection[Ref[Any]],
        first: Batch | None,
        activity_of: str | None,
        expires: datetime | None,
        what: str | NotFound,
    ) -> None:
        super().__init__(repository, ref, also, first, activity_of, expires)
        self._refusal = what if isinstance(what, NotFound) else NotFound(what=what)

    def __enter__(self) -> R:
        """Return the stored record. Raises: NotFound."""
        record = super().__enter__()
        if record is None:
            raise self._refusal
        return record


def _repeat(make: Callable[[Batch | None], A], first: Batch | None) -> Iterator[A]:
    """Yield attempts until one is done; *first* is what the first of them begins with. Raises: TooBusy."""
    deadline = time.monotonic() + _CHANGE_SECONDS
    for number in range(_ATTEMPTS):
        attempt = make(first if number == 0 else None)
        yield attempt
        if attempt.is_done:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(random.uniform(0, min(0.002 * (number + 1), 0.1)))  # noqa: S311 - spreads writers apart
    raise TooBusy


def _entry_ref(org_id: str, entry: Activity) -> Ref[ActivityPage]:
    """Return the ref of an activity entry that is a page of its own."""
    return Ref(Key(activity_partition(org_id, entry.kind), entry.id), ActivityPage)


def _keep_until(entry: Activity) -> datetime:
    return entry.at + (KEEP_REFUSALS if entry.kind is ActivityKind.REFUSAL else _KEEP_ACTIVITY)


def _expiry_of(key: Key, body: Mapping[str, Any]) -> datetime | None:
    """Return when an imported document expires: at the same time as the exported document."""
    kind = key.partition.partition("/")[0]
    if kind in ("usage", "traffic"):
        return datetime.fromisoformat(key.id).replace(tzinfo=UTC) + KEEP_USAGE
    if kind == "refusals":
        return datetime.fromisoformat(key.id).replace(tzinfo=UTC) + KEEP_REFUSALS
    if kind == "shown":
        return from_body(ShownChain, body).at + KEEP_USAGE
    if kind == "activity":
        return max((_keep_until(entry) for entry in from_body(ActivityPage, body).entries), default=None)
    return None


def _take_outbox(record: R | None) -> tuple[R | None, list[Activity], tuple[Withdrawal, ...]]:
    """Return the record with an empty outbox, and the entries and withdrawals of its outbox."""
    if isinstance(record, RecordWithOutbox) and (record.outbox or record.withdrawals):
        emptied = msgspec.structs.replace(record, outbox=(), withdrawals=())
        return emptied, list(record.outbox), record.withdrawals
    return record, [], ()


def _remember(ids: OrderedDict[K, None], entry_id: K) -> None:
    """Add an id to those that a process remembers, and forget the oldest beyond _COPIED_MAX."""
    ids[entry_id] = None
    while len(ids) > _COPIED_MAX:
        ids.popitem(last=False)


def _trim(outbox: Sequence[Activity]) -> tuple[Activity, ...]:
    """Return the newest entries of *outbox* that a document may hold."""
    entries = list(outbox)[-_OUTBOX_MAX:]
    while entries and len(msgspec.json.encode(entries)) > _OUTBOX_BYTES:
        entries.pop(0)
    return tuple(entries)

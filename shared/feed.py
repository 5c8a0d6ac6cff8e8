"""A numbered list of changes, from which a reader gets every change after a cursor without relying on a clock.

    feed/{name}       {number}   one change. Numbers begin with 1 and have no gaps
    feedhead/{name}   "head"     a hint where the end is, and what was deleted at the beginning

A writer looks for the end of the feed and creates the document with the next number. Only one of several writers can
create that document; the others look for the end again. So a number and its change appear in one step, a number is
taken only after all numbers before it, and a writer that crashes leaves nothing half done. With a counter in another
document a reader could see change 8, go on from there, and miss change 7, which was written later.
"""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from shared.errors import TooBusy
from shared.ports import Key
from shared.records import Record
from shared.repository import Ref, Repository

C = TypeVar("C", bound=Record)

_ATTEMPTS: Final = 300  # of one append, against other writers
_HEAD_EVERY: Final = 16  # changes between two updates of the head; a new process reads at most this many to the end
_PAGE: Final = 200


class FeedHead(Record, frozen=True):
    """What is known of a feed without reading its changes.

    Args:
        at_least: the feed has changes up to this number, and perhaps later ones.
        floor: changes below this number are deleted, or will be.
    """

    at_least: int = 0
    floor: int = 0


class CursorExpired(Exception):
    """The feed has no change with the reader's number: the change was deleted, or never existed.

    The reader must start again: read `end`, then the whole state, then `since` that end.
    """


class Change(msgspec.Struct, Generic[C], frozen=True):
    """A change with its number."""

    number: int
    what: C


class Feed(Generic[C]):
    """Changes of one kind, in the order of their numbers.

    Every method raises StoreUnavailable if the store does not answer. The change of such an `append` may be in the
    feed nevertheless, so readers must tolerate duplicates.
    """

    def __init__(self, repository: Repository, name: str, kind: type[C]) -> None:
        self._repository = repository
        self._partition = f"feed/{name}"
        self._kind = kind
        self._head = Ref(Key(f"feedhead/{name}", "head"), FeedHead)
        self._last_known = 0  # the number of a change that this process has seen; 0: the process has not looked yet

    def append(self, change: C) -> int:
        """Add *change* at the end of the feed, and return its number.

        Raises: TooBusy, StoreUnavailable.
        """
        number = (self._last_known or self.end()) + 1
        for _ in range(_ATTEMPTS):
            if self._repository.create(self._ref(number), change):
                if self._continues_feed(number):
                    self._last_known = number
                    if number % _HEAD_EVERY == 0:
                        self._move_head(at_least=number)
                    return number
                self._repository.delete(self._ref(number))
            self._last_known = 0
            number = self.end() + 1
        raise TooBusy

    def since(self, number: int, *, limit: int = 500) -> Sequence[Change[C]]:
        """Return at most *limit* changes after *number*, in order and without gaps. 0 is the beginning of the feed.

        Raises: CursorExpired, StoreUnavailable.
        """
        first = max(number, 1)  # read the reader's own change as well: its presence proves that the cursor is valid
        changes: list[Change[C]] = []
        while len(changes) <= limit:
            page = self._repository.list(self._partition, self._kind, after=_id(first + len(changes) - 1), limit=_PAGE)
            for name, what in page:
                expected = first + len(changes)
                if int(name) != expected:
                    if self._repository.get(self._ref(expected)) is None:
                        raise CursorExpired(number)
                    # A list is no snapshot: the change was appended while the list was read. The next call has both.
                    return _after(number, changes)[:limit]
                changes.append(Change(expected, what))
            if len(page) < _PAGE:
                break
        if number and not changes:
            raise CursorExpired(number)
        return _after(number, changes)[:limit]

    def end(self) -> int:
        """Return the number of the latest change; 0 for an empty feed.

        Raises: StoreUnavailable.
        """
        hint = self._last_known or (self._repository.get(self._head) or FeedHead()).at_least
        number = self._find_last(from_number=hint) or self._find_last(from_number=0)
        self._last_known = number
        return number

    def trim(self, before: int) -> int:
        """Delete the changes below *before*, oldest first, but never the latest. Return the number of deleted changes.

        The call is safe to interrupt, to repeat, and to run twice at the same time.

        Raises: TooBusy, StoreUnavailable.
        """
        floor = min(before, self.end())
        self._move_head(floor=floor)  # before the deletion: a writer with an old end must notice (`_continues_feed`)
        deleted = 0
        while True:
            page = self._repository.list(self._partition, self._kind, limit=_PAGE)
            old = [int(name) for name, _ in page if int(name) < floor]
            for number in old:
                self._repository.delete(self._ref(number))
            deleted += len(old)
            if len(old) < _PAGE:
                return deleted

    def _continues_feed(self, number: int) -> bool:
        """Return whether the change just created at *number* follows the change before it.

        The change does not if its number is below the floor (the writer knew an old end), or beyond the end (the store
        was restored from a backup meanwhile).
        """
        documents = self._repository.read_batch([self._ref(number - 1), self._head])
        floor = (documents.get(self._head) or FeedHead()).floor
        return number >= floor and (number in (1, floor) or documents.get(self._ref(number - 1)) is not None)

    def _find_last(self, from_number: int) -> int:
        """Return the number of the last change from *from_number* on; 0 if there is no change."""
        last, after = 0, _id(max(from_number - 1, 0))
        while True:
            page = self._repository.list(self._partition, self._kind, after=after, limit=_PAGE)
            if page:
                after = page[-1][0]
                last = int(after)
            if len(page) < _PAGE:
                return last

    def _ref(self, number: int) -> Ref[C]:
        return Ref(Key(self._partition, _id(number)), self._kind)

    def _move_head(self, *, at_least: int = 0, floor: int = 0) -> None:
        """Move the head forward, never back.

        Raises: TooBusy, StoreUnavailable.
        """
        for attempt in self._repository.changing(self._head):
            with attempt as stored:
                head = stored or FeedHead()
                attempt.write(FeedHead(max(head.at_least, at_least), max(head.floor, floor)))


def _id(number: int) -> str:
    return f"{number:016}"


def _after(number: int, changes: Sequence[Change[C]]) -> Sequence[Change[C]]:
    """Return the changes that a reader at *number* does not have yet."""
    return [change for change in changes if change.number > number]

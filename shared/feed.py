"""Numbered lists of changes. A reader follows a list without missing a change, and without relying on clocks.

    feed/{name}       {number}   one change; numbers begin with 1 and have no gaps
    feedhead/{name}   "head"     a hint about the end of the list, and the first number that is not trimmed

A writer looks for the end of the list and creates the document with the next number. Only one of several concurrent
writers succeeds; the others look again. So a number and its change appear in one step, a number is taken only when all
numbers before it exist, and a writer that crashes leaves nothing incomplete.

Each change has a random id besides. After a restore from a backup, numbers are assigned again: a reader that was ahead
would continue in the middle of another history. So a reader keeps number and id of its last change, and notices that
the change of that number has another id.

A counter in a document of its own would need two steps. Between the two steps, a reader could see number 8, continue
from there, and never see number 7, which appears later.
"""

import secrets
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from shared.errors import TooBusy
from shared.ports import Key
from shared.records import FeedLine, Record
from shared.refs import Ref
from shared.repository import Repository

C = TypeVar("C", bound=FeedLine)

_ATTEMPTS: Final = 300  # of one append, against concurrent writers
_NOTE_INTERVAL: Final = 16  # changes between two updates of the hint; a new process reads one page from the hint
_PAGE: Final = 200


class FeedHead(Record, frozen=True):
    """The head of a feed.

    Args:
        at_least: a number that existed at some time; the feed's end may be later.
        floor: changes below this number are deleted, or are being deleted.
    """

    at_least: int = 0
    floor: int = 0


class CursorExpired(Exception):
    """The feed does not continue from the reader's change: it was trimmed, never existed, or is of another history.

    The reader must start again: `end` first, then the whole state, then `since` with that end.
    """


class Position(msgspec.Struct, frozen=True):
    """A place in a feed: the number and the id of a change. The text of a position is a reader's cursor.

    Args:
        number: 0 before the first change.
        id: empty before the first change, and for a change that version 0.1.0 appended.
    """

    number: int = 0
    id: str = ""

    def __str__(self) -> str:
        return f"{self.number}.{self.id}" if self.id else str(self.number)


class Change(msgspec.Struct, Generic[C], frozen=True):
    """A change and its number."""

    number: int
    what: C

    @property
    def position(self) -> Position:
        return Position(self.number, self.what.id)


def new_line_id() -> str:
    """Return a new id for a change: 12 random hexadecimal digits."""
    return secrets.token_hex(6)


class Feed(Generic[C]):
    """A list of changes of one kind, in the order of their appends.

    Every method raises StoreUnavailable if the store does not answer. An append may have happened nevertheless, and its
    caller repeats it. So readers must tolerate duplicates.

    Args:
        repository: the repository that stores the changes.
        name: the feed's name.
        kind: the record class of the changes.
    """

    def __init__(self, repository: Repository, name: str, kind: type[C]) -> None:
        """Store the arguments. The store is not read."""
        self._repository = repository
        self._partition = f"feed/{name}"
        self._kind = kind
        self._head = Ref(Key(f"feedhead/{name}", "head"), FeedHead)
        self._last_known = 0  # the last number that this process saw; 0 before the first look

    def append(self, change: C) -> int:
        """Append *change* and return its number. Every reader whose number is smaller will receive the change.

        A change without an id receives a new id.

        Raises: TooBusy, StoreUnavailable.
        """
        if not change.id:
            change = msgspec.structs.replace(change, id=new_line_id())
        number = (self._last_known or self.end()) + 1
        for _ in range(_ATTEMPTS):
            if self._repository.create(self._ref(number), change):
                if self._is_at_end(number):
                    self._last_known = number
                    if number % _NOTE_INTERVAL == 0:
                        self._note(at_least=number)
                    return number
                self._repository.delete(self._ref(number))
            self._last_known = 0
            number = self.end() + 1
        raise TooBusy

    def since(self, number: int, *, line_id: str = "", limit: int = 500) -> Sequence[Change[C]]:
        """Return at most *limit* changes after *number*, in order and without gaps; 0 is the beginning.

        Args:
            line_id: the id of the reader's last change, which has *number*; empty: the reader does not know the id.

        Raises: CursorExpired, StoreUnavailable.
        """
        # The reader's own change is read as well. If it does not exist, the reader is not on this feed.
        first = max(number, 1)
        changes: list[Change[C]] = []
        while len(changes) <= limit:
            after = _id(first + len(changes) - 1)
            page = self._repository.list(self._partition, self._kind, after=after, limit=_PAGE)
            for change_id, what in page:
                expected = first + len(changes)
                if int(change_id) != expected:
                    if self._repository.get(self._ref(expected)) is None:
                        raise CursorExpired(number)
                    # A list is not a snapshot: the missing change was appended while the page was read. The next call
                    # returns both.
                    return _select_after(number, changes)[:limit]
                if expected == number and line_id and what.id != line_id:
                    raise CursorExpired(number)
                changes.append(Change(expected, what))
            if len(page) < _PAGE:
                break
        if number and not changes:
            raise CursorExpired(number)
        return _select_after(number, changes)[:limit]

    def end(self) -> int:
        """Return the number of the latest change, or 0 for an empty feed."""
        return self.head().number

    def head(self) -> Position:
        """Return the position of the latest change."""
        start = self._last_known or (self._repository.get(self._head) or FeedHead()).at_least
        last = self._find_last(start)
        if not last.number:
            last = self._find_last(0)
        self._last_known = last.number
        return last

    def trim(self, before: int) -> int:
        """Delete changes below *before*, the oldest first, and return their number. The latest change is never deleted.

        An interrupted call may be repeated, and calls may run concurrently.
        """
        floor = min(before, self.end())
        self._note(floor=floor)  # first, so that a writer with an outdated end notices (`_is_at_end`)
        count = 0
        while True:
            page = self._repository.list(self._partition, self._kind, limit=_PAGE)
            old_numbers = [int(change_id) for change_id, _ in page if int(change_id) < floor]
            for number in old_numbers:
                self._repository.delete(self._ref(number))
            count += len(old_numbers)
            if len(old_numbers) < _PAGE:
                return count

    def _is_at_end(self, number: int) -> bool:
        """Return whether the change that was just created at *number* is at the end of the feed.

        Otherwise the writer used an outdated end: the number is below the trimmed part, or beyond the end, because the
        store was restored from a backup meanwhile.
        """
        records = self._repository.read_batch([self._ref(number - 1), self._head])
        floor = (records.get(self._head) or FeedHead()).floor
        return number >= floor and (number in (1, floor) or records.get(self._ref(number - 1)) is not None)

    def _find_last(self, start: int) -> Position:
        """Return the last position whose number is at least *start*, or the position before the first change."""
        last, after = Position(), _id(max(start - 1, 0))
        while True:
            page = self._repository.list(self._partition, self._kind, after=after, limit=_PAGE)
            if page:
                after, change = page[-1]
                last = Position(int(after), change.id)
            if len(page) < _PAGE:
                return last

    def _ref(self, number: int) -> Ref[C]:
        return Ref(Key(self._partition, _id(number)), self._kind)

    def _note(self, *, at_least: int = 0, floor: int = 0) -> None:
        """Increase the numbers of the head; smaller numbers change nothing."""
        for attempt in self._repository.changing(self._head):
            with attempt as record:
                head = record or FeedHead()
                attempt.write(FeedHead(max(head.at_least, at_least), max(head.floor, floor)))


def _id(number: int) -> str:
    return f"{number:016}"


def _select_after(number: int, changes: Sequence[Change[C]]) -> Sequence[Change[C]]:
    return [change for change in changes if change.number > number]

"""What changed since: a numbered list of changes that a reader follows without missing one, trusting no clock.

    feed/{name}       {number}   one change. Numbers begin with 1 and leave none out
    feedhead/{name}   "head"     where a writer begins to look for the end, and what was cut off at the beginning

A change gets its number by being created there: the writer looks for the end and creates the next document, which only
one of several writers can; the others look again. So a number and its change appear in one step, a number is taken only
when all before it are there, and a writer that dies leaves nothing half done. (A counter apart from its entries would:
between the two steps a reader could see 8, go on from there, and never see the 7 that came later.)
"""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from shared.errors import TooBusy
from shared.ports import Key
from shared.records import Record
from shared.repository import Ref, Repository

C = TypeVar("C", bound=Record)

_ATTEMPTS: Final = 300  # of one append, against others
_NOTED_EVERY: Final = 16  # changes, between two notes of the end; a writer that knows nothing reads one page from there
_PAGE: Final = 200


class FeedHead(Record, frozen=True):
    """*at_least*: changes up to this number were there; a hint, which lags. *floor*: those below are being removed."""

    at_least: int = 0
    floor: int = 0


class CursorExpired(Exception):
    """The feed does not go on from the reader's number: it was cut off there, or never was. The reader has to begin
    anew: `end` first, then the whole state, then `since` that end."""


class Change(msgspec.Struct, Generic[C], frozen=True):
    number: int
    what: C


class Feed(Generic[C]):
    """Changes of one kind, in the order they were appended. Every method raises StoreUnavailable where the store does
    not answer; an append may then have happened all the same, so a reader must bear to hear of a change twice."""

    def __init__(self, repository: Repository, name: str, kind: type[C]) -> None:
        self._repository = repository
        self._partition = f"feed/{name}"
        self._kind = kind
        self._head = Ref(Key(f"feedhead/{name}", "head"), FeedHead)
        self._known = 0  # the number of a change that was there when this process looked last; 0: did not look yet

    def append(self, change: C) -> int:
        """The number of *change*, which every reader that has not passed it will see.

        Raises: TooBusy, StoreUnavailable."""
        number = (self._known or self.end()) + 1
        for _ in range(_ATTEMPTS):
            if self._repository.create(self._place(number), change):
                if self._stands(number):
                    self._known = number
                    if number % _NOTED_EVERY == 0:
                        self._note(at_least=number)
                    return number
                self._repository.delete(self._place(number))
            self._known = 0
            number = self.end() + 1
        raise TooBusy

    def since(self, number: int, *, limit: int = 500) -> Sequence[Change[C]]:
        """At most *limit* changes after *number*, in order, none left out; 0 is the beginning.

        Raises: CursorExpired, StoreUnavailable."""
        first = max(number, 1)  # the reader's own comes too: that it is there shows that the reader is on this feed
        found: list[Change[C]] = []
        while len(found) <= limit:
            page = self._repository.list(self._partition, self._kind, after=_id(first + len(found) - 1), limit=_PAGE)
            for name, what in page:
                expected = first + len(found)
                if int(name) != expected:
                    if self._repository.get(self._place(expected)) is None:
                        raise CursorExpired(number)
                    # A list is no snapshot: that one was appended while it was read. The next call shows both.
                    return _behind(number, found)[:limit]
                found.append(Change(expected, what))
            if len(page) < _PAGE:
                break
        if number and not found:
            raise CursorExpired(number)
        return _behind(number, found)[:limit]

    def end(self) -> int:
        """The number of the latest change; 0 where there is none yet."""
        near = self._known or (self._repository.get(self._head) or FeedHead()).at_least
        number = self._last(from_number=near) or self._last(from_number=0)
        self._known = number
        return number

    def trim(self, before: int) -> int:
        """Remove changes below *before*, oldest first, but never the latest. Returns how many were removed.

        Safe to stop at any point, to repeat, and to run twice at once."""
        floor = min(before, self.end())
        self._note(floor=floor)  # first: a writer that was asleep since then must notice (`_stands`)
        removed = 0
        while True:
            page = self._repository.list(self._partition, self._kind, limit=_PAGE)
            old = [int(name) for name, _ in page if int(name) < floor]
            for number in old:
                self._repository.delete(self._place(number))
            removed += len(old)
            if len(old) < _PAGE:
                return removed

    def _stands(self, number: int) -> bool:
        """Whether what was just created at *number* is at the end of the feed, and not in a place that was cut off (the
        writer remembered an old end), or beyond the end (the store was set back to a backup meanwhile)."""
        found = self._repository.read_batch([self._place(number - 1), self._head])
        floor = (found.get(self._head) or FeedHead()).floor
        return number >= floor and (number in (1, floor) or found.get(self._place(number - 1)) is not None)

    def _last(self, from_number: int) -> int:
        """The last number from *from_number* on; 0 where there is none."""
        last, after = 0, _id(max(from_number - 1, 0))
        while True:
            page = self._repository.list(self._partition, self._kind, after=after, limit=_PAGE)
            if page:
                after = page[-1][0]
                last = int(after)
            if len(page) < _PAGE:
                return last

    def _place(self, number: int) -> Ref[C]:
        return Ref(Key(self._partition, _id(number)), self._kind)

    def _note(self, *, at_least: int = 0, floor: int = 0) -> None:
        """Move the head forward, never back."""

        def forward(head: FeedHead | None) -> FeedHead:
            before = head or FeedHead()
            return msgspec.structs.replace(
                before, at_least=max(before.at_least, at_least), floor=max(before.floor, floor)
            )

        self._repository.change(self._head, forward)


def _id(number: int) -> str:
    return f"{number:016}"


def _behind(number: int, found: Sequence[Change[C]]) -> Sequence[Change[C]]:
    """Those that a reader at *number* does not have yet."""
    return [change for change in found if change.number > number]

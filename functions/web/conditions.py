"""Conditional requests (RFC 9110, section 13), paging, and the parameters of searches."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from enum import StrEnum
from typing import Final, Protocol, TypeVar

import msgspec

from functions.web.errors import PreconditionRequired
from functions.web.message import ID, Request
from shared.errors import WrongValue

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


def if_match(request: Request, *, required: bool = True) -> str | None:
    """Return the version in If-Match (RFC 9110, 13.1.1); None for `*`, or if the header is absent and not required.

    Raises: PreconditionRequired, WrongValue (a list, or a weak tag).
    """
    value = request.headers.get("if-match", "").strip()
    if not value:
        if required:
            raise PreconditionRequired
        return None
    if value == "*":
        return None
    tag = value.strip('"')
    if not re.fullmatch(r"[0-9A-Za-z-]{1,64}", tag):
        raise WrongValue(field="If-Match", found='If-Match takes one version in quotes, like "4f2a", or *')
    return tag


PAGING: Final = {"limit": "how many at most, 1 to 200", "bookmark": "where the page before ended"}
"""The query parameters of a paged list -> what they mean."""


class _Listed(Protocol):
    @property
    def id(self) -> str: ...


class Page(msgspec.Struct, frozen=True):
    """The part of a list that a request asks for.

    Args:
        limit: 1 to 200.
        after: the id that the page before ended with; "" for the first page.
    """

    limit: int
    after: str

    @property
    def look_ahead(self) -> int:
        """How many entries to read: one more than the page holds, to learn whether another page follows."""
        return self.limit + 1

    def cut(self, entries: Sequence[T]) -> Sequence[T]:
        """Return the part of *entries* on this page. *entries* holds `look_ahead` entries at most."""
        return entries[: self.limit]

    def bookmark(self, entries: Sequence[object], views: Sequence[_Listed]) -> str | None:
        """Return the bookmark of the next page; None on the last page.

        Args:
            entries: what was read, up to `look_ahead`.
            views: the entries of this page, as the reply shows them.
        """
        return views[-1].id if len(entries) > self.limit else None


def read_page(request: Request) -> Page:
    """Return the page that `limit` (100 if absent) and `bookmark` ask for. Raises: WrongValue."""
    limit = request.query.get("limit", "100")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= 200:
        raise WrongValue(field="limit", found="limit is a number from 1 to 200")
    bookmark = request.query.get("bookmark", "")
    if bookmark and not ID.fullmatch(bookmark):
        raise WrongValue(field="bookmark", found="This is no bookmark of a list here")
    return Page(int(limit), bookmark)


TEXT_MAX: Final = 200  # characters of a text to search for


def read_text(request: Request, name: str) -> str:
    """Return the text to search for in a query parameter; "" if absent. Raises: WrongValue."""
    text = request.query.get(name, "")
    if len(text) > TEXT_MAX:
        raise WrongValue(field=name, found=f"{name} takes {TEXT_MAX} characters at most")
    return text


IDS_MAX: Final = 50


def read_ids(request: Request, name: str) -> Sequence[str]:
    """Return the ids in a query parameter, each once. Raises: WrongValue."""
    ids = list(dict.fromkeys(filter(None, request.query.get(name, "").split(","))))
    if len(ids) > IDS_MAX or not all(map(ID.fullmatch, ids)):
        raise WrongValue(field=name, found=f"{name} takes up to {IDS_MAX} ids, with commas between")
    return ids


def read_choice(request: Request, name: str, kind: type[E], *, value: str | None = None) -> E | None:
    """Return a query parameter that is a value of *kind*; None if absent or empty.

    Args:
        value: the value to read in place of the query's.

    Raises: WrongValue.
    """
    chosen = request.query.get(name, "") if value is None else value
    try:
        return kind(chosen) if chosen else None
    except ValueError:
        raise WrongValue(field=name, found=f"{name} takes {', '.join(kind)}") from None


def read_time(request: Request, name: str, *, at_end: bool = False) -> datetime | None:
    """Return the time in a query parameter; None if absent or empty.

    Args:
        at_end: whether a day means its last moment; its first otherwise.

    Raises: WrongValue.
    """
    text = request.query.get(name, "")
    if not text:
        return None
    try:
        if len(text) == len("2026-11-27"):
            return datetime.combine(date.fromisoformat(text), time.max if at_end else time.min, UTC)
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise WrongValue(field=name, found=f"{name} takes a day like 2026-11-27, or a time like 2026-11-27T09:30:00Z")

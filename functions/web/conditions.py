"""Conditional requests (RFC 9110, section 13) and paging."""

import re
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from functions.web.errors import PreconditionRequired
from functions.web.message import ID, Request
from shared.errors import WrongValue

T = TypeVar("T")


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

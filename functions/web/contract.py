"""A handler with what it takes and gives, for the dispatcher and the OpenAPI document alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from functions.web.http import ID, Reply, Request
from shared.composition import App
from shared.errors import NotFound, TrustError
from shared.usecases.callers import Member
from shared.usecases.context import Context


class Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of what is taken: camelCase names, and no field that is not known."""


class View(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of what is answered: camelCase names."""


class Call(msgspec.Struct, frozen=True):
    """One request to one handler, with what it works with.

    *admitted* is the caller and its org, where the route admits; None where the handler does so itself."""

    request: Request
    app: App
    admitted: Member | None = None

    @property
    def context(self) -> Context:
        return self.app.context

    @property
    def member(self) -> Member:
        """The caller and its org, read for this request."""
        assert self.admitted is not None, "the route does not admit"  # noqa: S101 - a mistake in the table
        return self.admitted

    @property
    def id(self) -> str:
        """The `{id}` in the path. Raises: NotFound, where no id is of that form."""
        found = self.request.params["id"]
        if not ID.fullmatch(found):
            raise NotFound(what="thing of that id")
        return found


Handler = Callable[[Call], Reply]
PEM_TEXT: Final = "PEM"  # stands for an answer that is a PEM file
Answer = type[msgspec.Struct] | tuple[type[msgspec.Struct], ...] | str | None


class Contract(msgspec.Struct, frozen=True):
    """What a handler takes and gives.

    Args:
        answers: status -> a msgspec Struct or several of which it is one, PEM_TEXT, or None for no body.
        query: names of query parameters -> what they mean.
        refusals: error classes it raises beside those that every call may.
        dialect: whether it answers everything in a broker's own words (functions/dialects), errors too.
    """

    summary: str
    answers: Mapping[int, Answer]
    body: type[msgspec.Struct] | None = None
    query: Mapping[str, str] = msgspec.field(default_factory=dict)
    if_match: str = "no"  # "no", "optional" or "required"
    refusals: Sequence[type[TrustError]] = ()
    dialect: bool = False


CONTRACTS: dict[Handler, Contract] = {}


def endpoint(summary: str, answers: Mapping[int, Any], **more: Any) -> Callable[[Handler], Handler]:
    """Declare a handler's contract (see `Contract`)."""

    def declare(handler: Handler) -> Handler:
        CONTRACTS[handler] = Contract(summary, answers, **more)
        return handler

    return declare


PAGING: Final = {"limit": "how many at most, 1 to 200", "bookmark": "where the page before ended"}

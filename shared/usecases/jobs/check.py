"""Find what is unsafe in an installation, and what an upgrade changes: `functions.admin check`.

Each check is a function that yields findings, and `CHECKS` lists the checks. A check reads and never writes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from shared.usecases.context import Context


class Finding(msgspec.Struct, frozen=True):
    """One thing that the platform's operator should know.

    Args:
        code: names the kind of finding, for scripts.
        found: a sentence that says what was found.
        advice: a sentence that says what to do.
        is_unsafe: whether the installation is less safe than it could be. Otherwise only the behaviour changed.
    """

    code: str
    found: str
    advice: str
    is_unsafe: bool = False


Check = Callable[[Context], Iterator[Finding]]
"""Yields the findings of one kind in the store of a context."""


def check_installation(context: Context, checks: Iterable[Check]) -> list[Finding]:
    """Return the findings of *checks*, in their order.

    Args:
        checks: `CHECKS`, and checks of what only the caller knows, such as its settings.

    Raises: StoreUnavailable.
    """
    return [finding for check in checks for finding in check(context)]


CHECKS: Final[tuple[Check, ...]] = ()

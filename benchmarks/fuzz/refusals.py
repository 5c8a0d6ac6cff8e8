"""What every target permits: the refusals of the project itself."""

from collections.abc import Callable
from typing import Final

import functions.web.errors  # noqa: F401 -- its codes are among those of every_error()
from shared.errors import TrustError, every_error

Run = Callable[[bytes], None]

CODES: Final = {kind.code for kind in every_error()} | {
    "allowed",
    "token_required",
    "internal",
    "key_not_opened",
}


def check_refusal(error: TrustError) -> None:
    """Check that a refusal has a documented code, and sentences that can be sent and displayed."""
    assert error.code in CODES, type(error).__name__
    text = str(error)
    text.encode()  # a lone surrogate could not be sent
    assert 0 < len(text) <= 2000, f"{len(text)} characters"


def allow_refusals(run: Run) -> Run:
    """Return *run*, with a refusal as a permitted result."""

    def run_and_check(data: bytes) -> None:
        try:
            run(data)
        except TrustError as error:
            check_refusal(error)

    return run_and_check

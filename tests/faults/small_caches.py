"""`functions.local` with small caches: one that fills for the first twenty minutes looks like a leak, and is none."""

import functools
import sys
from typing import Any, Final

_SMALL: Final = 64
_real = functools.lru_cache


def _small(maxsize: Any = 128, typed: bool = False) -> Any:
    if maxsize is None or callable(maxsize):
        return _real(maxsize, typed)
    return _real(min(maxsize, _SMALL), typed)


if __name__ == "__main__":
    functools.lru_cache = _small
    from functions import local

    sys.exit(local.main())

"""`functions.local` with small caches: a cache that fills for the first twenty minutes would look like a leak."""

import functools
import sys
from typing import Any, Final

_SMALL: Final = 64  # entries
_OCTETS: Final = 1 << 20
_real_lru_cache = functools.lru_cache


def _lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    if maxsize is None or callable(maxsize):
        return _real_lru_cache(maxsize, typed)
    return _real_lru_cache(min(maxsize, _SMALL), typed)


if __name__ == "__main__":
    functools.lru_cache = _lru_cache
    from functions import local
    from shared.usecases.devices import shown
    from shared.x509 import cache

    cache._registered._octets = cache._intermediates._octets = _OCTETS
    shown._REMEMBERED_MAX = _SMALL  # type: ignore[misc]
    sys.exit(local.main())

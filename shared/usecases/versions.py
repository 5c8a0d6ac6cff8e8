"""If-Match against a record's stamp."""

from shared.errors import Stale
from shared.records import Changed
from shared.validation.validity import shown_time


def check_version(changed: Changed, seen: str | None) -> None:
    """Refuse a change that is based on an older version than the one that stands; *seen* None overrides.

    Raises: Stale, which names who changed it and when."""
    if seen is not None and seen != changed.version:
        raise Stale(who=changed.updated_by, when=shown_time(changed.updated_at))

"""Events as the clouds' documentation shows them; each file names the document and section."""

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "data" / "events"


def recorded(name: str) -> Any:
    """The event in tests/data/events/<name>.json."""
    found = json.loads((_FOLDER / f"{name}.json").read_text())
    assert found["source"], "a fixture cites where it is from"
    return found["event"]

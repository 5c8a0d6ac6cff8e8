"""Events as the clouds document them; each file names its document and section."""

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[1] / "data" / "events"


def load_event(name: str) -> Any:
    """Return the event in tests/data/events/<name>.json."""
    fixture = json.loads((_FOLDER / f"{name}.json").read_text())
    assert fixture["source"], "every fixture names its source"
    return fixture["event"]

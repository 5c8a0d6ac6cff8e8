"""Where functions-framework looks for its target (FUNCTION_TARGET). Loads that target's module and no other."""

import importlib
import os
import sys
from types import FunctionType
from typing import Final

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # wherever the framework was started from

EVENTS: Final = {  # what the platform calls, never a router
    "onUpload": "on_upload",
    "expiryReport": "expiry_report",
    "recordSightings": "record_sightings",
}


def __getattr__(name: str) -> FunctionType:
    if name.startswith("_"):
        raise AttributeError(name)
    from shared.config import Settings

    Settings.from_env()  # a wrong setting stops the start, with a sentence that names it
    if name in EVENTS:
        found: FunctionType = getattr(importlib.import_module("functions.gcp_events"), EVENTS[name])
        return found
    from functions import gcp

    if name not in gcp.TARGETS:
        raise AttributeError(name)
    return gcp.target(name)

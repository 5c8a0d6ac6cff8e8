"""Where functions-framework looks for its target (FUNCTION_TARGET). Loads that target's module and no other."""

import importlib
import os
import sys
from types import FunctionType

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # wherever the framework was started from


def __getattr__(name: str) -> FunctionType:
    if name.startswith("_"):
        raise AttributeError(name)
    from functions.routes import EVENTS
    from shared.config import Settings

    Settings.from_env()  # a wrong setting stops the start, with a sentence that names it
    for event in EVENTS:
        if event.function == name:
            module, _, target = event.gcp.partition(":")
            found: FunctionType = getattr(importlib.import_module(module), target)
            return found
    from functions.hosts import gcp

    if name not in gcp.TARGETS:
        raise AttributeError(name)
    return gcp.target(name)

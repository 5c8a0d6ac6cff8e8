"""The source file of functions-framework. The attribute that FUNCTION_TARGET names is built when it is asked for.

functions/registry.py lists the targets; no function's modules are imported before its target is called.
"""

import os
import sys
from types import FunctionType

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # the framework may be started in any folder

from functions.hosts import collector

collector.pause()


def __getattr__(name: str) -> FunctionType:
    if name.startswith("_"):
        raise AttributeError(name)
    from functions.hosts import gcp
    from shared.config import Settings

    if name not in gcp.TARGETS:
        raise AttributeError(name)
    Settings.from_env()  # a wrong setting stops the start, with a sentence that names the setting
    return gcp.target(name)

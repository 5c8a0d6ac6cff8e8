"""The App and the console of a process that a cloud started. Each is built once, at the first call.

Neither is built at import: a cloud may import a module that it never calls, and a client that is made before the
platform freezes and thaws the process holds dead connections.
"""

import os
import threading
from functools import cache
from typing import TYPE_CHECKING

from functions.hosts import collector
from functions.hosts.settings import read_settings
from shared.composition import App, build, token_verifier

if TYPE_CHECKING:
    from functions.hosts.static import Console

_lock = threading.Lock()
_app: App | None = None


def app() -> App:
    """Return the process's App. Raises: WrongSetting, StoreUnavailable; the next call tries again."""
    global _app
    if _app is None:
        with _lock:
            if _app is None:
                try:
                    _app = build(read_settings(), keys_apart=_answers_several_at_once())
                finally:  # a process that cannot build its App goes on, too
                    collector.resume()
    return _app


def _answers_several_at_once() -> bool:
    """Whether requests share this process. On AWS Lambda a process answers one at a time, so nothing waits for keys."""
    return "AWS_LAMBDA_FUNCTION_NAME" not in os.environ  # Lambda, "Defined runtime environment variables"


def built_app() -> App | None:
    """Return the process's App if it is built."""
    return _app


@cache
def console() -> "Console":
    """Return the process's console, made without a store, a key or a queue. Raises: WrongSetting, each time."""
    from functions.hosts.static import Console

    tokens = token_verifier(read_settings().oidc)
    return Console(origins=tokens.origins) if tokens else Console()

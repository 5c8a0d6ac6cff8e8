"""The App of a process that a cloud started: built once, at the first call, and kept for the life of the process."""

import gc
import threading

from shared import log
from shared.composition import App, build
from shared.config import Settings

_lock = threading.Lock()
_app: App | None = None


def app() -> App:
    """The process's App. Raises: WrongSetting, StoreUnavailable; the next call then tries again.

    At the first call, not at import: a cloud may import a module it never calls, and a client that is made before the
    platform has frozen and thawed the process holds dead connections.
    """
    global _app
    if _app is None:
        with _lock:
            if _app is None:
                settings = Settings.from_env()
                log.configure(settings.log)
                _app = build(settings)
                gc.freeze()  # what is loaded stays: else each full collection walks through all of it (0093)
    return _app


def built() -> App | None:
    """The process's App, where it is there already: asking takes no time."""
    return _app

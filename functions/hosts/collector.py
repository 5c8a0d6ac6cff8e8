"""Python's garbage collector while a process starts.

Loading makes some hundred thousand objects and no garbage. Each collection meanwhile visits all of them. So a process
pauses the collector as its first step, and resumes it once it has its App, or with its first answer. What is loaded
then stays out of later collections: a full one would visit all of it, some 10 ms in which no request is answered.
"""

import gc

_is_resumed = False


def pause() -> None:
    """Collect nothing until `resume`. A process that has resumed the collector goes on collecting."""
    if not _is_resumed:
        gc.disable()


def resume() -> None:
    """Collect again, but for the objects that exist now. Only the first call of a process does something."""
    global _is_resumed
    if not _is_resumed:
        _is_resumed = True
        gc.freeze()
        gc.enable()

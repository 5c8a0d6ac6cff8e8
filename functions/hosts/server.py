"""Serve a function, or all of them, in a container: `python -m functions.hosts.server`.

The variables are those of functions-framework: FUNCTION_TARGET (`service` if absent), HOST (0.0.0.0), PORT (8080) and
WORKERS (1), the number of processes. HTTP is served within the limits of functions/hosts/limits.py. A function that
takes events is served by functions-framework itself, which parses CloudEvents; only the platform may call it.

On Linux each of several processes has a listener of its own, and the kernel spreads new connections over the listeners
(docs/decisions/0136).
"""

# ruff: noqa: E402 - the collector is paused before anything else is loaded
from functions.hosts import collector

collector.pause()

import logging
import os
import socket
import sys
from typing import Any, Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from functions.hosts.limits import Config
from functions.hosts.settings import configure_log
from functions.hosts.target import SERVICE, Target
from functions.registry import BY_NAME, Trigger
from shared.config import Settings, WrongSetting

_BACKLOG: Final = 2048  # connections that wait while a process starts


def application() -> Target:
    """Return the ASGI application of FUNCTION_TARGET. Each process of the server makes its own."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    configure_log()
    return Target(_read_target())


def run() -> int:
    """Serve until SIGTERM or SIGINT. Return the exit code."""
    try:
        target, port, workers = _read_target(), _read_number("PORT", 8080), _read_number("WORKERS", 1)
        Settings.from_env()  # a wrong setting stops the start, with a sentence that names the setting
    except WrongSetting as error:
        print(error, file=sys.stderr)
        return 2
    if target != SERVICE and BY_NAME[target].trigger is not Trigger.HTTP:
        words = ["-m", "functions_framework", f"--target={target}", "--signature-type=cloudevent"]
        os.execv(sys.executable, [sys.executable, *words])  # noqa: S606 - the signals of the platform go to it
    host = os.environ.get("HOST", "0.0.0.0")  # noqa: S104 - a container's own network
    is_shared = workers == 1 or sys.platform != "linux"
    try:
        listener = socket.create_server((host, port), backlog=_BACKLOG) if is_shared else PortHolder(host, port)
    except OSError as error:
        print(f"Cannot listen on {host}:{port}: {error.strerror or error}. Set PORT to another port.", file=sys.stderr)
        return 1
    config = Config("functions.hosts.server:application", factory=True, workers=workers)
    if workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
    else:
        _Processes(config, sockets=[listener]).run()
    return 0


class PortHolder(socket.socket):
    """A bound socket that keeps an address for the listeners of several processes, and does not listen itself.

    Another process that receives this socket has a listener of its own in its place. The listener of a process that
    ends is closed with the process, and the kernel gives new connections to the others.

    Raises: OSError where the address is in use, also by listeners that share it.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind((host, port))
            # After bind, so that this socket shares the address with later sockets only, not with another server's
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError:
            self.close()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _listen, self.getsockname()


def _listen(host: str, port: int) -> socket.socket:
    """Return a listener that shares its address with those of other processes."""
    return socket.create_server((host, port), backlog=_BACKLOG, reuse_port=True)


class _Processes(Multiprocess):
    """uvicorn's processes. What the parent holds of their address is closed when they end.

    A listener that all processes share would otherwise take connections until the last process has ended."""

    def terminate_all(self) -> None:
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


def _read_target() -> str:
    """Return the target. Raises: WrongSetting."""
    name = os.environ.get("FUNCTION_TARGET", SERVICE)
    if name != SERVICE and name not in BY_NAME:
        raise WrongSetting(f"FUNCTION_TARGET is {name!r}. It names a function, or {SERVICE!r} for all of them.")
    return name


def _read_number(name: str, default: int) -> int:
    """Return a variable that is a number from 1. Raises: WrongSetting."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise WrongSetting(f"{name} is {text!r}. It takes a number from 1, for example {name}={default}.")
    return int(text)


if __name__ == "__main__":
    sys.exit(run())

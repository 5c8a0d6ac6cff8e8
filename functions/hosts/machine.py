"""Serve every function on one machine: uvicorn on a loopback address, the upload folder, and the first start."""

import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn

from functions.events.folder import FOLDER, UploadWatcher
from functions.hosts import collector
from functions.hosts.asgi import Application
from functions.hosts.limits import Config
from functions.hosts.timer import Timer
from shared import log
from shared.composition import App, build
from shared.config import Settings, WrongSetting
from shared.errors import StoreUnavailable
from shared.ports import DocumentStore
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.edges.withdrawals import sweep_withdrawals
from shared.usecases.jobs.maintenance import publish_all_left
from shared.usecases.orgs.first_start import DEMO_ORG, FirstKey, first_start
from shared.validation.names import messaging_host

HOST: Final = "127.0.0.1"
_BACKLOG: Final = 2048  # connections that wait while the process starts


def run(*, wrap: Callable[[DocumentStore], DocumentStore] = lambda store: store) -> int:
    """Serve until Ctrl-C (SIGINT) or SIGTERM. Return the exit code.

    The port is opened before anything is created: a start on a busy port changes nothing and shows no key.

    Args:
        wrap: wraps the store, for tests that inject faults.

    Raises: KeyboardInterrupt, if Ctrl-C comes before the server answers.
    """
    try:
        settings = Settings.from_env()
        log.configure(settings.log)
        os.umask(0o077)  # Private keys are among what this process and its user keep in the data folder.
        with closing(_listen(settings.port)) as listener, closing(build(settings, wrap=wrap, keys_apart=True)) as app:
            _serve(app, listener)
    except WrongSetting as error:
        print(error, file=sys.stderr)
        return 2
    except _CannotListen as error:
        print(error, file=sys.stderr)
        return 1
    except StoreUnavailable as error:
        print(f"{error} Cause: {error.__cause__ or 'unknown'}", file=sys.stderr)
        return 1
    print("Stopped.")
    return 0


class _CannotListen(Exception):
    """The port is busy, or this user may not open it."""


def _listen(port: int) -> socket.socket:
    """Return a socket that listens on *port* of the loopback address. Raises: _CannotListen."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # On Windows this option lets two processes listen on one port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise _CannotListen(f"Cannot listen on {HOST}:{port}: {reason}. Set PORT to another port.") from error
    return listener


def _serve(app: App, listener: socket.socket) -> None:
    """Make the first start's keys, then serve. Raises: StoreUnavailable; KeyboardInterrupt, before the first answer."""
    server = _Server(app, listener)
    uploads = UploadWatcher(app)
    sweeper = Timer(app.sweep)
    try:
        with _deferred_interrupt():  # An interrupted first start would keep keys that were never shown.
            server.keys = first_start(app.context, app.sealer)
        HostFeed(app.context).sweep()  # Publish what a kill left unpublished.
        publish_all_left(app.context)
        sweep_withdrawals(app.context)
        uploads.start()
        sweeper.start()
        # uvicorn raises the signal again at its end. The default action of SIGTERM would skip the clean-up of `run`.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        if not server.started:
            raise
    finally:
        uploads.close()
        sweeper.close()
        if server.keys and not server.started:
            print("\n".join(_key_lines(server.keys)), flush=True)


@contextmanager
def _deferred_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt after the block if Ctrl-C comes within the block."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt


class _Server(uvicorn.Server):
    """uvicorn's server, which prints the addresses and the first keys once it answers."""

    def __init__(self, app: App, listener: socket.socket) -> None:
        super().__init__(Config(Application(app)))
        self._settings = app.settings
        self._port: int = listener.getsockname()[1]
        self.keys: Sequence[FirstKey] = ()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            collector.resume()
            print(_banner(self._settings, self._port, self.keys), flush=True)


def _banner(settings: Settings, port: int, keys: Sequence[FirstKey]) -> str:
    lines = [
        "",
        f"MQTT Trust answers on http://{HOST}:{port}",
        f"  console           http://{HOST}:{port}/console/",
        f"  API description   http://{HOST}:{port}/openapi.json",
        f"  data              {settings.data.resolve()}",
        f"  uploads           {(settings.data / FOLDER).resolve()}/<orgId>/ca|server|csr/",
        f"  messaging hosts   {messaging_host('<orgId>', settings.domain)}",
    ]
    if keys:
        lines += _key_lines(keys)
    return "\n".join([*lines, "", "Ctrl-C stops it.", ""])


def _key_lines(keys: Sequence[FirstKey]) -> list[str]:
    return [
        "",
        f"A first organization, {DEMO_ORG}, was created. Its keys are shown only once:",
        *(f"  {key.role.value:<9} key {key.key}   token {key.token}" for key in keys),
        f"More organizations and keys: {_python()} -m functions.admin --help",
    ]


def _python() -> str:
    """Return this process's Python as a shell in the working directory can call it, `.venv/bin/python` for example."""
    executable, folder = Path(sys.executable), Path.cwd()
    return shlex.quote(str(executable.relative_to(folder) if executable.is_relative_to(folder) else executable))

"""Start the real server, as `make run` does, on a free port and an empty data folder."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")
_KEY = re.compile(r"^ +(operator|broker) +key (\S+) +token (\S+)$")


@dataclass
class Server:
    """A running `python -m functions.local`."""

    process: "subprocess.Popen[str]"
    output: IO[str]
    port: int = 0
    banner: str = ""
    keys: dict[str, str] = field(default_factory=dict)  # role -> key:token, as the first start prints them

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait for the end of the process. Return the exit code."""
        with suppress(ProcessLookupError):
            self.process.send_signal(how)
        code = self.process.wait(30)
        self.output.read()
        self.output.close()
        return code


def start(
    data: Path, *, log: Path | None = None, module: Sequence[str] = ("functions.local",), **environment: str
) -> Server:
    """Start a server on *data*. Return when the server listens.

    Args:
        log: the file for the server's log; None discards the log.
        module: the module to run, with its arguments: `functions.local`, or a module that starts it for a test.

    Raises: AssertionError with the output, if the server ends before it listens.
    """
    env: Mapping[str, str] = {**os.environ, "TRUST_DATA": str(data), "PORT": "0", **environment}
    errors = open(log, "a") if log else open(os.devnull, "w")  # noqa: SIM115 - closed below, once the process has it
    with errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    server = Server(process, process.stdout)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if match := _ADDRESS.search(line):
            server.port = server.port or int(match[1])
        if key := _KEY.match(line):
            server.keys[key[1]] = f"{key[2]}:{key[3]}"
        if line.startswith("Ctrl-C"):
            break
    server.banner = "".join(lines)
    if not server.port:
        process.wait()
        process.stdout.close()
        raise AssertionError(f"the server ended at its start: {server.banner} {log.read_text() if log else ''}")
    return server

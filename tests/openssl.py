"""The real openssl command line, in a folder of its own: how fleets make their certificates."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OpenSSL:
    """Runs openssl in *folder*; file names are relative to it."""

    folder: Path

    def __call__(self, command: str, *more: str) -> str:
        """`ssl("req -x509 -newkey rsa:2048 …", "-subj", "/CN=My Root")`: split at spaces, then *more* as it is.

        Raises: AssertionError with openssl's own words where it fails."""
        done = subprocess.run(
            ["openssl", *command.split(), *more], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"openssl {command}: {done.stderr}"
        return done.stdout

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def bytes(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

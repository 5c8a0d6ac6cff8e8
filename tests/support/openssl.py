"""Run the openssl command line in a folder of its own, as fleets do to make their certificates."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OpenSSL:
    """Run openssl in *folder*; file names are relative to the folder."""

    folder: Path

    def __call__(self, command: str, *more: str) -> str:
        """Run `ssl("req -x509 -newkey rsa:2048 …", "-subj", "/CN=My Root")` and return the output.

        *command* is split at spaces; *more* is passed as it is.

        Raises: AssertionError with the error output of openssl.
        """
        done = subprocess.run(
            ["openssl", *command.split(), *more], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"openssl {command}: {done.stderr}"
        return done.stdout

    def accepts(self, command: str) -> bool:
        """Return whether openssl exits with 0."""
        done = subprocess.run(["openssl", *command.split()], cwd=self.folder, capture_output=True, check=False)
        return done.returncode == 0

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def bytes(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

"""Make certificates as organizations do: with the openssl command line."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.processes import Failed, program

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass
class OpensslPki:
    """An organization's own CA, with its files in *folder*."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self._openssl(
            "req", "-x509", *_NEW_KEY, "-days", "3650", "-keyout", "ca.key", "-out", "ca.pem", *_cn(self.name)
        )

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def device(self, identity: str, *, days: int = 365) -> tuple[Path, Path]:
        """Issue a certificate for a device. Return the files of the certificate and the key.

        *days*: how long the certificate is valid; -1: it expired yesterday.
        """
        stem = identity.replace(":", "-")
        self._openssl("req", "-new", *_NEW_KEY, "-keyout", f"{stem}.key", "-out", f"{stem}.csr", *_cn(identity))
        self._sign(f"{stem}.csr", f"{stem}.pem", days=days)
        return self.folder / f"{stem}.pem", self.folder / f"{stem}.key"

    def sign_server(self, csr: str, host: str) -> str:
        """Sign a request that the service made. Return the server certificate and the CA certificate, PEM."""
        (self.folder / "server.csr").write_text(csr)
        (self.folder / "server.ext").write_text(f"subjectAltName=DNS:{host}\nextendedKeyUsage=serverAuth\n")
        self._sign("server.csr", "server.pem", "-extfile", "server.ext")
        return (self.folder / "server.pem").read_text() + self.ca.read_text()

    def _sign(self, csr: str, out: str, *more: str, days: int = 365) -> None:
        ca = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", str(days))
        self._openssl("x509", "-req", "-in", csr, "-out", out, *ca, *more)

    def _openssl(self, *words: str) -> None:
        command = [program("openssl", "openssl"), *words]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise Failed(f"openssl {words[0]}: {done.stderr}")


def _cn(name: str) -> Sequence[str]:
    return ("-subj", f"/CN={name}")

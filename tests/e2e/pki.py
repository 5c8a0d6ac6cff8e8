"""Certificates that are valid today, in files, as devices have them."""

import datetime as dt
import itertools
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import certs
from tests.support.certs import Issued
from tests.support.openssl import OpenSSL

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
YESTERDAY, NEXT_YEAR = NOW - dt.timedelta(days=1), NOW + dt.timedelta(days=365)
Files = tuple[Path, Path]

_numbers = itertools.count(1000)


@dataclass
class Pki:
    """One organization's CAs and the certificates that they sign; files go to *folder*."""

    folder: Path
    name: str
    root: Issued = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.root = self.ca(f"{self.name} root")

    def ca(self, common_name: str, signer: Issued | None = None) -> Issued:
        key = certs.key("P-256", next(_numbers))
        return certs.ca(common_name, signer, private=key, not_before=YESTERDAY, not_after=NEXT_YEAR)

    def leaf(
        self,
        common_name: str,
        signer: Issued | None = None,
        *,
        emails: tuple[str, ...] = (),
        send: tuple[Issued, ...] = (),
        expired: bool = False,
    ) -> tuple[Issued, Files]:
        """Issue a device's certificate. Return it with its files. *send*: what the device sends after the leaf."""
        issued = certs.leaf(
            common_name,
            signer or self.root,
            emails=emails,
            not_before=YESTERDAY - dt.timedelta(days=30),
            not_after=YESTERDAY if expired else NEXT_YEAR,
        )
        return issued, self.files(issued, *send)

    def files(self, issued: Issued, *sent: Issued) -> Files:
        stem = self.folder / str(next(_numbers))
        certificate, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
        certificate.write_text(certs.bundle(issued, *sent))
        key.write_text(issued.key_pem)
        return certificate, key

    def server(self, *hosts: str) -> Issued:
        """Issue a server certificate with a key of its own."""
        key = certs.key("P-256", next(_numbers))
        return certs.server(hosts[0], self.root, private=key, dns=hosts, not_before=YESTERDAY, not_after=NEXT_YEAR)

    def v1_leaf(self, common_name: str) -> Files:
        """Issue an X.509 v1 certificate without extensions, as `openssl x509 -req` does without an extension file."""
        openssl = OpenSSL(self.folder)
        openssl.write("root.pem", self.root.pem)
        openssl.write("root.key", self.root.key_pem)
        openssl("req -newkey rsa:2048 -nodes -keyout v1.key -out v1.csr", "-subj", f"/CN={common_name}")
        openssl("x509 -req -in v1.csr -CA root.pem -CAkey root.key -CAcreateserial -days 30 -out v1.pem")
        return self.folder / "v1.pem", self.folder / "v1.key"

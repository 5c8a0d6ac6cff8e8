"""The process that `shared.adapters.key_process` starts: one question on its input, one answer on its output.

It runs as `python -m shared.adapters.key_helper`. It reads no setting and no file.
"""

import os
import sys
from datetime import datetime

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.errors import TrustError
from shared.ports import InlineKeyWorker, ServerFiles
from shared.x509.certificate import Certificate
from shared.x509.private_keys import PrivateKey


class ReadFiles(msgspec.Struct, frozen=True, tag="read"):
    """Open the files of an upload. *passphrase*: in UTF-8; lone surrogates are encoded too."""

    certificate: bytes
    chain: bytes | None
    private_key: bytes | None
    passphrase: bytes | None
    at: datetime | None = None

    def __repr__(self) -> str:
        """Leave out every field: two of them are secret."""
        return "ReadFiles(…)"


class MakeKey(msgspec.Struct, frozen=True, tag="make"):
    """Make a private key."""

    algorithm: str


class OpenedFiles(msgspec.Struct, frozen=True, tag="opened"):
    """The certificates in the files, as DER, and the private key, as PKCS#8."""

    leaf: bytes
    chain: tuple[bytes, ...]
    key: bytes

    def __repr__(self) -> str:
        """Leave out every field: one of them is secret."""
        return "OpenedFiles(…)"


class MadeKey(msgspec.Struct, frozen=True, tag="made"):
    """A new private key, as PKCS#8."""

    key: bytes

    def __repr__(self) -> str:
        """Leave out the key."""
        return "MadeKey(…)"


class Failure(msgspec.Struct, frozen=True, tag="refused"):
    """The refusal of a rule. *cert*: the DER of the certificate that caused the refusal."""

    code: str
    part: str | None
    field: str | None
    cert: bytes | None
    facts: dict[str, str | int]


Question = ReadFiles | MakeKey
Answer = OpenedFiles | MadeKey | Failure


def answer(question: Question) -> Answer:
    """Return the answer to *question*."""
    work = InlineKeyWorker()
    try:
        if isinstance(question, MakeKey):
            return MadeKey(_pkcs8(work.make(question.algorithm, org_id="")))
        read = work.read(_files(question), org_id="")
        return OpenedFiles(read.leaf.der, tuple(cert.der for cert in read.chain), _pkcs8(read.private_key))
    except TrustError as error:
        cert = error.cert.der if isinstance(error.cert, Certificate) else None
        return Failure(error.code, error.part, None if error.part else error.field, cert, error.facts)


def _files(question: ReadFiles) -> ServerFiles:
    passphrase = None if question.passphrase is None else question.passphrase.decode("utf-8", "surrogatepass")
    return ServerFiles(question.certificate, question.chain, question.private_key, passphrase, question.at)


def _pkcs8(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def main() -> None:
    """Answer one question at a low priority: verdicts must not wait for a processor.

    A crash leaves no core file, which would hold the key."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if hasattr(os, "nice"):
        os.nice(5)  # a quarter of a processor that another thread wants too
    question: Question = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Question)
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer(question)))


if __name__ == "__main__":
    main()

"""Key work in a process of its own, so that the threads of this process go on meanwhile.

cryptography holds Python's lock while OpenSSL derives a key or checks an RSA key (docs/decisions/0120). A process for
each piece of work shares nothing with this process: no lock, no memory, no setting, no credential. It has a low
priority, and it is killed when its time is over.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from typing import Any, Final, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

from shared.adapters.key_helper import Failure, MadeKey, MakeKey, OpenedFiles, Question, ReadFiles
from shared.errors import KeyWorkUnavailable, TrustError, every_error
from shared.ports import ServerFiles
from shared.validation.server_cert import CertificateWithKey
from shared.x509.certificate import Certificate
from shared.x509.private_keys import PrivateKey

log = logging.getLogger(__name__)

SECONDS: Final = 15.0  # of one piece of work, at a low priority; the most costly key files take up to 4 s alone
PROCESSES: Final = 2  # at the same time; each has 40 MiB
_HELPER: Final = "shared.adapters.key_helper"

_Answer = TypeVar("_Answer", OpenedFiles, MadeKey)


class KeyProcess:
    """Key work (`shared.ports.KeyWorker`) in processes of its own.

    One organization has one process at a time, so that its costly files delay its own work only.

    Args:
        seconds: after which a piece of work is given up, the wait for a place included.
        processes: how many work at the same time.
    """

    def __init__(self, *, seconds: float = SECONDS, processes: int = PROCESSES) -> None:
        self._seconds = seconds
        self._processes = processes
        self._working: set[str] = set()  # the organizations that have a process
        self._has_ended = threading.Condition()

    def read(self, files: ServerFiles, *, org_id: str) -> CertificateWithKey:
        """Return the certificate, chain and key in *files*. Raises: Rejected, KeyWorkUnavailable."""
        passphrase = None if files.passphrase is None else files.passphrase.encode("utf-8", "surrogatepass")
        question = ReadFiles(files.certificate, files.chain, files.private_key, passphrase, files.at)
        opened = self._ask(question, OpenedFiles, org_id)
        chain = tuple(map(Certificate.from_der, opened.chain))
        return CertificateWithKey(Certificate.from_der(opened.leaf), chain, _load(opened.key))

    def make(self, algorithm: str, *, org_id: str) -> PrivateKey:
        """Return a new private key. Raises: WrongValue, KeyWorkUnavailable."""
        return _load(self._ask(MakeKey(algorithm), MadeKey, org_id).key)

    def _ask(self, question: Question, kind: type[_Answer], org_id: str) -> _Answer:
        end = time.monotonic() + self._seconds
        with self._has_ended:
            if not self._has_ended.wait_for(lambda: self._has_place(org_id), self._seconds):
                raise KeyWorkUnavailable
            self._working.add(org_id)
        try:
            output = _run(msgspec.msgpack.encode(question), max(end - time.monotonic(), 0.0))
        finally:
            with self._has_ended:
                self._working.remove(org_id)
                self._has_ended.notify_all()
        answer = msgspec.msgpack.decode(output, type=kind | Failure)
        if isinstance(answer, Failure):
            raise _error(answer)
        return answer

    def _has_place(self, org_id: str) -> bool:
        return org_id not in self._working and len(self._working) < self._processes


def _run(question: bytes, seconds: float) -> bytes:
    """Return the output of a helper. Raises: KeyWorkUnavailable."""
    command = [sys.executable, "-m", _HELPER]
    try:
        done = subprocess.run(  # noqa: S603 - no part of the command comes from a request
            command, input=question, capture_output=True, env=_environment(), timeout=seconds, check=True
        )
    except subprocess.TimeoutExpired:
        log.warning("key work was stopped: its time is over", extra={"seconds": seconds})
        raise KeyWorkUnavailable from None
    except (OSError, subprocess.CalledProcessError) as error:
        # Neither the output nor the text of the error, which could quote the question.
        log.error("key work failed", extra={"error": type(error).__name__, "code": getattr(error, "returncode", None)})
        raise KeyWorkUnavailable from None
    return done.stdout


def _environment() -> dict[str, str]:
    """Return the environment of a helper: what finds the code, and none of this process's credentials."""
    environment = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    if "SYSTEMROOT" in os.environ:  # Windows starts no process without this variable
        environment["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
    return environment


def _load(der: bytes) -> PrivateKey:
    """Return the private key that a helper opened and checked, or made. A check takes 0.4 s for RSA-4096."""
    key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        return key
    raise TypeError("a helper returned a key of another kind")


def _error(failure: Failure) -> TrustError:
    """Return the error that the rule raised in the helper."""
    kind = next(kind for kind in every_error() if kind.code == failure.code)
    cert = None if failure.cert is None else Certificate.from_der(failure.cert)
    given: dict[str, Any] = {"part": failure.part, "field": failure.field, "cert": cert, **failure.facts}
    return kind(**{name: value for name, value in given.items() if value is not None})  # not every error takes each

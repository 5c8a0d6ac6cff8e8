"""Key work in a process of its own answers as the rules do, is stopped in time, and leaves other threads running."""

import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from benchmarks.faults.neighbours import costly_key_file
from shared.adapters.key_process import KeyProcess
from shared.errors import (
    ChainBroken,
    KeyWorkUnavailable,
    NotAKey,
    PassphraseWrong,
    PrivateKeyMissing,
    TrustError,
    WrongValue,
)
from shared.ports import InlineKeyWorker, ServerFiles
from shared.x509.public_keys import public_key_info
from tests.support import certs
from tests.support.certs import DAY, NOON

ORG = "mtxpd0"
HOST = f"{ORG}.messaging.example.com"


def files_of(issued: certs.Issued, passphrase: str | None = None) -> ServerFiles:
    return ServerFiles(issued.pem.encode(), None, certs.key_pem(issued.key, passphrase).encode(), passphrase)


@pytest.mark.parametrize("kind", ["P-256", "RSA-2048"])
@pytest.mark.parametrize("passphrase", [None, "sésame"])
def test_a_file_is_opened_as_in_this_process(kind: str, passphrase: str | None) -> None:
    root = certs.ca("Root")
    issued = certs.server(HOST, root, private=certs.key(kind))
    files = files_of(issued, passphrase)
    files = ServerFiles(files.certificate, root.pem.encode(), files.private_key, files.passphrase)
    apart, here = KeyProcess().read(files, org_id=ORG), InlineKeyWorker().read(files, org_id=ORG)
    assert (apart.leaf, apart.chain) == (here.leaf, here.chain)
    assert public_key_info(apart.private_key.public_key()) == public_key_info(issued.key.public_key())


def test_a_chain_is_chosen_at_the_time_of_the_upload() -> None:
    """Of two forms of a root, the one that has not expired at that time."""
    root, old = certs.ca("Root"), certs.ca("Old root")
    cross = certs.ca("Root", old, private=root.key, not_after=NOON + DAY)
    issued = certs.server(HOST, root)
    chain = certs.bundle(cross, old, root).encode()
    files = replace(files_of(issued), chain=chain)
    for at, above in ((NOON, [cross, old]), (NOON + 2 * DAY, [root])):
        served = KeyProcess().read(replace(files, at=at), org_id=ORG).chain
        assert served == tuple(each.certificate for each in above)


@pytest.mark.parametrize("algorithm", ["RSA-2048", "P-384"])
def test_a_key_is_made(algorithm: str) -> None:
    key = KeyProcess().make(algorithm, org_id=ORG)
    assert key.key_size == int(algorithm.partition("-")[2])


def refusal(work: KeyProcess | InlineKeyWorker, files: ServerFiles) -> TrustError:
    with pytest.raises(TrustError) as raised:
        work.read(files, org_id=ORG)
    return raised.value


def test_a_refusal_is_the_refusal_of_the_rule() -> None:
    """The same error with the same field, certificate and sentences."""
    issued = certs.server(HOST)
    foreign = certs.ca("Foreign")
    other = certs.server(HOST, private=certs.key("P-256", 7))
    key = issued.key_pem.encode()
    wrong = certs.key_pem(issued.key, "right").encode()
    cases: list[tuple[type[TrustError], ServerFiles]] = [
        (PrivateKeyMissing, ServerFiles(issued.pem.encode())),
        (PassphraseWrong, ServerFiles(issued.pem.encode(), None, wrong, "wrong")),
        (PassphraseWrong, ServerFiles(issued.pem.encode(), None, wrong, "\udc80")),
        (NotAKey, ServerFiles(issued.pem.encode(), None, b"no key")),
        (ChainBroken, ServerFiles(issued.pem.encode(), foreign.pem.encode(), key)),
        (TrustError, ServerFiles(other.pem.encode(), None, key)),
        (TrustError, ServerFiles(b"\0\xff", None, key)),
    ]
    for kind, files in cases:
        apart, here = refusal(KeyProcess(), files), refusal(InlineKeyWorker(), files)
        assert isinstance(apart, kind)
        assert type(apart) is type(here)
        assert (str(apart), apart.part, apart.field, apart.facts) == (str(here), here.part, here.field, here.facts)
        assert getattr(apart.cert, "fingerprint", None) == getattr(here.cert, "fingerprint", None)


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(WrongValue) as refused:
        KeyProcess().make("RSA-512", org_id=ORG)
    assert refused.value.field == "keyAlgorithm"


def test_work_is_given_up_in_time(tmp_path: Path) -> None:
    """The helper is killed, and the caller gets an error that says to try again."""
    issued = certs.server(HOST)
    files = ServerFiles(issued.pem.encode(), None, costly_key_file(tmp_path).encode(), "wrong")
    with pytest.raises(KeyWorkUnavailable):
        KeyProcess(seconds=0.05).read(files, org_id=ORG)
    with pytest.raises(PassphraseWrong):
        KeyProcess(seconds=60).read(files, org_id=ORG)


def test_work_beyond_the_places_waits_no_longer_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def stay(question: bytes, seconds: float) -> bytes:
        release.wait(30)
        raise KeyWorkUnavailable

    monkeypatch.setattr("shared.adapters.key_process._run", stay)
    work = KeyProcess(seconds=0.05, processes=1)

    def occupy() -> None:
        with pytest.raises(KeyWorkUnavailable):
            work.make("P-256", org_id=ORG)

    first = threading.Thread(target=occupy)
    first.start()
    try:
        with pytest.raises(KeyWorkUnavailable):
            work.make("P-256", org_id=ORG)
        assert first.is_alive()
    finally:
        release.set()
        first.join()


def test_an_organization_has_one_process_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the other process is free for another organization, whatever the first one sends."""
    has_begun, release = threading.Event(), threading.Event()
    begun: list[int] = []

    def stay(question: bytes, seconds: float) -> bytes:
        begun.append(len(begun))
        if len(begun) == 1:
            has_begun.set()
            release.wait(30)
        raise KeyWorkUnavailable

    monkeypatch.setattr("shared.adapters.key_process._run", stay)
    work = KeyProcess(seconds=0.05)

    def occupy() -> None:
        with pytest.raises(KeyWorkUnavailable):
            work.make("P-256", org_id=ORG)

    first = threading.Thread(target=occupy)
    first.start()
    try:
        assert has_begun.wait(30)
        occupy()  # a second one of the same organization finds no place in its time
        assert begun == [0]
        with pytest.raises(KeyWorkUnavailable):
            work.make("P-256", org_id="other1")
        assert begun == [0, 1]
    finally:
        release.set()
        first.join()


def test_other_threads_go_on_while_a_costly_file_is_opened(tmp_path: Path) -> None:
    """A thread of this process runs many times meanwhile. In this process it would run once: OpenSSL keeps the lock."""
    files = ServerFiles(certs.server(HOST).pem.encode(), None, costly_key_file(tmp_path).encode(), "wrong")
    done = threading.Event()
    turns = 0

    def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    try:
        assert isinstance(refusal(KeyProcess(seconds=60), files), PassphraseWrong)
    finally:
        done.set()
        counter.join()
    assert turns > 100


def test_a_helper_has_no_credentials_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of strangers are parsed without the settings and credentials of this process."""
    from shared.adapters import key_process

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("TRUST_WEBHOOK_SECRET", "secret")
    assert set(key_process._environment()) <= {"PYTHONPATH", "SYSTEMROOT"}


def test_a_failing_helper_says_nothing_about_the_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shared.adapters.key_process._HELPER", "no.such.module")
    with pytest.raises(KeyWorkUnavailable):
        KeyProcess().read(ServerFiles(b"certificate", None, b"private", "passphrase"), org_id=ORG)
    assert "key work failed" in caplog.text
    for secret in ("private", "passphrase"):
        assert secret not in caplog.text

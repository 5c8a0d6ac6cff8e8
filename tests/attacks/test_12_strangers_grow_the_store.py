"""Row 12: strangers with certificates of their own must not grow the store."""

import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from demo.pki import OpensslPki
from demo.stack import ApiRefused
from shared.records import Role
from tests.attacks.rig import Attacked, attacked
from tests.support import certs

pytestmark = pytest.mark.slow

SECONDS: Final = 60.0
STRANGERS: Final = 20  # that connect in a second, each with a new certificate of about 8 KB
CERTIFICATES_MAX: Final = 100  # of strangers, in one organization
TEXT_MAX: Final = 25_000  # bytes a second, once the ring of certificates is full: the refusals without certificates


def test_strangers_leave_a_bounded_number_of_certificates(tmp_path: Path) -> None:
    """Each stranger is refused. The store keeps the newest certificates, and then grows by the text of refusals only,
    which ends at 2,000 a day."""
    with attacked(tmp_path) as functions:
        functions.create_org("good01")
        viewer = functions.key(Role.VIEWER, "good01")
        broker = functions.key(Role.BROKER, "good01")
        operator = functions.key(Role.OPERATOR, "good01")
        ca = OpensslPki(tmp_path / "pki", "Root of good01").ca.read_text()
        functions.call(operator, "POST", "/authentication/cacertificates", {"certificate": ca})
        begin = size_of(functions)
        connect_strangers(functions, broker, first=0)
        middle = size_of(functions)
        connect_strangers(functions, broker, first=STRANGERS)
        time.sleep(3)  # what waits is written once a second
        end = size_of(functions)
        entries, kept = listed(functions, viewer)
        rate = (end - middle) / (SECONDS / 2)
        sys.stdout.write(
            f"{entries} refusals listed, {kept} certificates; the documents grew from {begin:,} to {middle:,} "
            f"and {end:,} bytes, in the end by {rate:,.0f} bytes a second: {rate * 86_400 / 2**30:.1f} GiB a day\n"
        )
        assert entries > 0
        assert kept <= CERTIFICATES_MAX
        assert rate <= TEXT_MAX


def connect_strangers(functions: Attacked, broker: str, *, first: int) -> None:
    """Let strangers connect for half the time."""
    crowd = [threading.Thread(target=connect, args=(functions, broker, first + n)) for n in range(STRANGERS)]
    for stranger in crowd:
        stranger.start()
    for stranger in crowd:
        stranger.join()


def connect(functions: Attacked, broker: str, number: int) -> None:
    """Connect once a second for half the time, each time with another certificate."""
    signer = certs.ca(f"Stranger {number}")
    end = time.monotonic() + SECONDS / 2
    count = 0
    while time.monotonic() < end:
        count += 1
        device = f"{number}-{count}"
        leaf = certs.leaf(f"d:thermo:{device}", signer, dns=[f"{n}.{device}.{'x' * 40}.example" for n in range(110)])
        question = {
            "serverName": "good01.messaging.iot.example",
            "clientId": f"d:good01:thermo:{device}",
            "certificate": leaf.pem,
        }
        try:
            assert functions.call(broker, "POST", "/verifyClient", question)["decision"] == "deny"
        except (ApiRefused, OSError):
            continue
        time.sleep(1)


def size_of(functions: Attacked) -> int:
    """Return the bytes of all documents in the data folder."""
    with closing(sqlite3.connect(functions.folder / "data" / "trust.db", timeout=30)) as store:
        size: int = store.execute("SELECT coalesce(sum(length(key) + length(body)), 0) FROM documents").fetchone()[0]
    return size


def listed(functions: Attacked, viewer: str) -> tuple[int, int]:
    """Return how many refusals the activity list has, and how many different certificates they show."""
    entries, shown, bookmark = 0, set(), ""
    while True:
        page = functions.call(viewer, "GET", f"/activity?kind=refusal&limit=200&bookmark={bookmark}")
        entries += len(page["results"])
        shown |= {entry["certificate"] for entry in page["results"] if entry.get("certificate")}
        bookmark = page["bookmark"] or ""
        if not bookmark:
            return entries, len(shown)

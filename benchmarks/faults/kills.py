"""kill -9 of the local server in the middle of changes, repeatedly."""

import random
import signal
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.faults.check import check
from benchmarks.faults.load import Access, Load
from shared.adapters.local_sealer import LocalSealer
from shared.adapters.sqlite_store import SQLiteStore
from shared.repository import Repository
from tests.support import server

_HOST: Final = "demo01.messaging.internetofthings.ibmcloud.com"
_UNDER_LOAD: Final = (0.03, 0.2)  # seconds between the load's begin and the kill


@dataclass
class Kills:
    """The result of a number of kills.

    Args:
        starts: seconds from each start to the server's first answer.
        lost, halves, wrong: see `rig.FaultRow`; findings after any of the restarts.
        leftovers: findings of the last check that a sweep has to remove.
    """

    count: int = 0
    acknowledged: int = 0
    dropped: int = 0  # changes without an answer because of a kill
    verdicts: int = 0
    starts: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.halves or self.wrong)

    @property
    def first_starts(self) -> float:
        """The median of the first tenth of the starts (at least three), in seconds."""
        return statistics.median(self.starts[: max(3, len(self.starts) // 10)])

    @property
    def last_starts(self) -> float:
        return statistics.median(self.starts[-max(3, len(self.starts) // 10) :])


def kill_again_and_again(folder: Path, count: int) -> Kills:
    """Start, load and kill the server *count* times; after each start check everything, before the next load."""
    kills, draw = Kills(), random.Random(6)
    load: Load | None = None
    for number in range(count + 1):
        began = time.monotonic()
        running = server.start(folder, TRUST_RATE_PER_MINUTE="1000000", TRUST_METRICS="off", TRUST_LOG="ERROR")
        kills.starts.append(time.monotonic() - began)
        try:
            address = f"127.0.0.1:{running.port}"
            if load is None:
                access = Access("demo01", running.keys["operator"], running.keys["broker"], _HOST)
                load = Load.on(address, access).employ(changers=4, askers=1, readers=0)
            else:
                _check_store(folder, load, kills)
            if number == count:
                break
            load.begin(address)
            time.sleep(draw.uniform(*_UNDER_LOAD))
            running.stop(signal.SIGKILL)
            load.end()
            kills.count += 1
        finally:
            if running.process.returncode is None:
                running.stop(signal.SIGKILL)
    assert load is not None
    history = load.history
    kills.acknowledged, kills.dropped = history.operations["done"], history.operations["dropped"]
    kills.verdicts, kills.wrong = history.verdicts.total(), history.wrong
    return kills


def _check_store(folder: Path, load: Load, kills: Kills) -> None:
    store = SQLiteStore(folder / "trust.db")
    try:
        findings = check(Repository(store), LocalSealer(folder / "keys"), load.access.org_id, load.history)
    finally:
        store.close()
    kills.lost += [text for text in findings.lost if text not in kills.lost]
    kills.halves += [text for text in findings.halves if text not in kills.halves]
    kills.leftovers = findings.leftovers

"""The clients of both clouds with faults between them and a real (emulated) store: answers lost, questions that never
arrive, refusals. Time is the test's own, so that patience ends without waiting."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError
from google.api_core import exceptions
from google.cloud import firestore

from shared.adapters import dynamodb_store, firestore_store
from shared.adapters.dynamodb_store import DynamoDBStore
from shared.adapters.firestore_store import FirestoreStore
from shared.adapters.patience import RetryBudget
from shared.config import DynamoDB, Firestore
from shared.ports import DocumentStore
from tests.stores import Place

READS = {"batch_get_item", "get_item", "query", "batch_get_documents", "run_query"}
WRITES = {"put_item", "delete_item", "commit"}


class Time:
    """Passes only where somebody sleeps, or a question stays without an answer."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


Step = Callable[[Callable[[], Any]], Any]  # gets the real call, and does with it what it likes


@dataclass
class Faults:
    """What happens to the next calls, in order, and to all those after them; every call is counted by its name."""

    time: Time
    patience: RetryBudget
    timeout: Exception
    passing: Exception
    refused: Exception
    next: dict[str, deque[Step]] = field(default_factory=lambda: {"read": deque(), "write": deque()})
    always: dict[str, Step] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    clients: int = 0

    def pass_on(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls[name] += 1
        kind = "read" if name in READS else "write"
        if self.next[kind]:
            return self.next[kind].popleft()(call)
        return self.always[kind](call) if kind in self.always else call()

    # ------------------------------------------------------------------------------------------------- steps

    def fine(self, call: Callable[[], Any]) -> Any:
        return call()

    def answer_lost(self, call: Callable[[], Any]) -> Any:
        """It happened, and nobody was told."""
        call()
        return self.silent(call)

    def silent(self, call: Callable[[], Any]) -> Any:
        """It did not arrive, and that shows only after a while."""
        self.time.sleep(self.patience.of_one_try)
        raise self.timeout

    def busy(self, call: Callable[[], Any]) -> Any:
        raise self.passing

    def breaks_off(self, call: Callable[[], Any]) -> Any:
        """The first of its answers come, and then an error; where it has one answer only, that is it."""
        answers = call()
        if isinstance(answers, dict):
            raise self.passing

        def some() -> Iterator[Any]:
            yield from islice(answers, 1)
            raise self.passing

        return some()

    def cut_short(self, call: Callable[[], Any]) -> Any:
        """What botocore makes of an answer that ended in its headers."""
        call()
        return {}

    def forbidden(self, call: Callable[[], Any]) -> Any:
        raise self.refused

    def broken(self, call: Callable[[], Any]) -> Any:
        raise ZeroDivisionError

    def lost_then(self, meanwhile: Callable[[], object]) -> Step:
        """As `answer_lost`, and then somebody else does something."""

        def step(call: Callable[[], Any]) -> Any:
            call()
            meanwhile()
            return self.silent(call)

        return step


class Disturbed:
    """Any object whose calls that ask the store go through *faults*."""

    def __init__(self, real: Any, faults: Faults) -> None:
        self._real = real
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in READS | WRITES:
            return real

        def call(*args: Any, **more: Any) -> Any:
            if "timeout" in more:
                more["timeout"] = 60.0  # the emulator may be busy; the test's own time stands still meanwhile
            return self._faults.pass_on(name, lambda: real(*args, **more))

        return call


class DisturbedFirestore(firestore_store.Client):
    faults: Faults

    @property
    def _firestore_api(self) -> Any:
        return Disturbed(super()._firestore_api, self.faults)


def disturbed(place: Place) -> tuple[DocumentStore, Faults]:
    """An adapter on *place* that has the usual patience, and what stands between it and the store."""
    time = Time()
    patience = RetryBudget(clock=time, sleep=time.sleep)
    match place:
        case DynamoDB(table, region):
            faults = Faults(
                time,
                patience,
                timeout=ReadTimeoutError(endpoint_url="http://here"),
                passing=ClientError({"Error": {"Code": "ThrottlingException"}}, "any"),
                refused=ClientError({"Error": {"Code": "AccessDeniedException"}}, "any"),
            )

            def connect(region: str | None, _: RetryBudget) -> Any:
                faults.clients += 1
                return Disturbed(dynamodb_store.connect(region, RetryBudget(60)), faults)

            return DynamoDBStore(table, region, patience=patience, connect=connect), faults
        case Firestore(project, database):
            faults = Faults(
                time,
                patience,
                timeout=exceptions.DeadlineExceeded("late"),  # type: ignore[no-untyped-call]
                passing=exceptions.ServiceUnavailable("busy"),  # type: ignore[no-untyped-call]
                refused=exceptions.PermissionDenied("no"),  # type: ignore[no-untyped-call]
            )

            def connect_firestore(project: str, database: str) -> firestore.Client:
                faults.clients += 1
                client = DisturbedFirestore(project=project, database=database)
                client.faults = faults
                return client

            return FirestoreStore(project, database, patience=patience, connect=connect_firestore), faults
    raise ValueError(place)

"""Faults between the clients of both clouds and an emulated store: lost responses, lost requests, refusals.

The tests' clock is simulated, so that time limits pass without waiting.
"""

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
from shared.adapters.retry_budget import RetryBudget
from shared.config import DynamoDB, Firestore
from shared.ports import DocumentStore
from tests.support.stores import Place

READS = {"batch_get_item", "get_item", "query", "batch_get_documents", "run_query"}
WRITES = {"put_item", "delete_item", "commit"}


class Time:
    """A simulated clock. It advances when a caller sleeps, or when a request times out."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


Step = Callable[[Callable[[], Any]], Any]  # receives the real call, and may make it or not


@dataclass
class Faults:
    """Faults for the next calls, in order, and for all later calls. Calls are counted by name."""

    time: Time
    retry_budget: RetryBudget
    timeout: Exception
    transient: Exception
    refused: Exception
    next: dict[str, deque[Step]] = field(default_factory=lambda: {"read": deque(), "write": deque()})
    always: dict[str, Step] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    clients: int = 0

    def run(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls[name] += 1
        kind = "read" if name in READS else "write"
        if self.next[kind]:
            return self.next[kind].popleft()(call)
        return self.always[kind](call) if kind in self.always else call()

    # ------------------------------------------------------------------------------------------------- steps

    def succeed(self, call: Callable[[], Any]) -> Any:
        return call()

    def lose_response(self, call: Callable[[], Any]) -> Any:
        """Make the call, and lose the response."""
        call()
        return self.time_out(call)

    def time_out(self, call: Callable[[], Any]) -> Any:
        """Lose the request: the caller waits for the timeout."""
        self.time.sleep(self.retry_budget.attempt_seconds)
        raise self.timeout

    def fail_transiently(self, call: Callable[[], Any]) -> Any:
        raise self.transient

    def break_off(self, call: Callable[[], Any]) -> Any:
        """Return the first part of a stream of responses, then fail; fail at once if there is no stream."""
        responses = call()
        if isinstance(responses, dict):
            raise self.transient

        def stream() -> Iterator[Any]:
            yield from islice(responses, 1)
            raise self.transient

        return stream()

    def cut_short(self, call: Callable[[], Any]) -> Any:
        """Return botocore's result for a response that ended within its headers."""
        call()
        return {}

    def refuse(self, call: Callable[[], Any]) -> Any:
        raise self.refused

    def crash(self, call: Callable[[], Any]) -> Any:
        raise ZeroDivisionError

    def lose_response_then(self, meanwhile: Callable[[], object]) -> Step:
        """Lose the response, and run *meanwhile* before the caller notices."""

        def step(call: Callable[[], Any]) -> Any:
            call()
            meanwhile()
            return self.time_out(call)

        return step


class FaultyClient:
    """A client whose requests to the store go through *faults*."""

    def __init__(self, real: Any, faults: Faults) -> None:
        self._real = real
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in READS | WRITES:
            return real

        def call(*args: Any, **more: Any) -> Any:
            if "timeout" in more:
                more["timeout"] = 60.0  # the emulator may be slow; the simulated clock does not advance meanwhile
            return self._faults.run(name, lambda: real(*args, **more))

        return call


class FaultyFirestoreClient(firestore_store.FirestoreClient):
    faults: Faults

    @property
    def _firestore_api(self) -> Any:
        return FaultyClient(super()._firestore_api, self.faults)


def open_faulty(place: Place) -> tuple[DocumentStore, Faults]:
    """Open an adapter on *place* with the default time limit, and return the adapter and its faults."""
    time = Time()
    retry_budget = RetryBudget(clock=time, sleep=time.sleep)
    match place:
        case DynamoDB(table, region):
            faults = Faults(
                time,
                retry_budget,
                timeout=ReadTimeoutError(endpoint_url="http://here"),
                transient=ClientError({"Error": {"Code": "ThrottlingException"}}, "any"),
                refused=ClientError({"Error": {"Code": "AccessDeniedException"}}, "any"),
            )

            def connect(region: str | None, _: RetryBudget) -> Any:
                faults.clients += 1
                return FaultyClient(dynamodb_store.connect(region, RetryBudget(60)), faults)

            return DynamoDBStore(table, region, retry_budget=retry_budget, connect=connect), faults
        case Firestore(project, database):
            faults = Faults(
                time,
                retry_budget,
                timeout=exceptions.DeadlineExceeded("late"),  # type: ignore[no-untyped-call]
                transient=exceptions.ServiceUnavailable("busy"),  # type: ignore[no-untyped-call]
                refused=exceptions.PermissionDenied("no"),  # type: ignore[no-untyped-call]
            )

            def connect_firestore(project: str, database: str) -> firestore.Client:
                faults.clients += 1
                client = FaultyFirestoreClient(project=project, database=database)
                client.faults = faults
                return client

            return FirestoreStore(project, database, retry_budget=retry_budget, connect=connect_firestore), faults
    raise ValueError(place)

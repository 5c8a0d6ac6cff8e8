"""A gRPC proxy before Firestore's emulator. It refuses whole calls, or makes them and withholds the answer.

A TCP proxy can do neither: answer RESOURCE_EXHAUSTED, or choose the call whose answer is lost.
"""

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

_PASSED_ON: Final = ("authorization", "google-cloud-resource-prefix", "x-goog-request-params", "x-goog-api-client")


@dataclass(frozen=True)
class IllCalls:
    """Shares of the calls (0 to 1) with a fault.

    Args:
        throttled: answered with RESOURCE_EXHAUSTED, and not made.
        lost: made, and answered with UNAVAILABLE.
        half: a stream of answers breaks off with UNAVAILABLE.
    """

    throttled: float = 0.0
    lost: float = 0.0
    half: float = 0.0


FINE: Final = IllCalls()


@dataclass
class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Listen on a free port of this machine and pass calls on to *upstream* (host:port)."""

    upstream: str
    ill: IllCalls = FINE
    done: Counter[str] = field(default_factory=Counter)
    _draw: random.Random = field(default_factory=lambda: random.Random(6))

    def __post_init__(self) -> None:
        self._channel = grpc.insecure_channel(self.upstream, options=[("grpc.max_receive_message_length", -1)])
        self._server = grpc.server(
            ThreadPoolExecutor(32, thread_name_prefix="calls"), options=[("grpc.max_receive_message_length", -1)]
        )
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(0).wait(5)
        self._channel.close()

    def service(self, details: Any) -> Any:
        """Handle every method as a stream of bytes in both directions. grpc calls this method."""

        def handle(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            return self._handle(details.method, requests, context)

        return grpc.stream_stream_rpc_method_handler(handle)

    def _handle(self, method: str, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        ill, roll = self.ill, self._draw.random()
        if roll < ill.throttled:
            self.done["throttled"] += 1
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded.")
        roll -= ill.throttled
        metadata = [(key, value) for key, value in context.invocation_metadata() if key in _PASSED_ON]
        call = self._channel.stream_stream(method)(
            iter([next(requests)]),
            metadata=metadata,
            timeout=context.time_remaining() and min(context.time_remaining(), 60),
        )
        try:
            answers = [*call]
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        if 0 <= roll < ill.lost:
            self.done["lost"] += 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "The answer was lost.")
        roll -= ill.lost
        if 0 <= roll < ill.half:
            self.done["half"] += 1
            yield from answers[: self._draw.randrange(len(answers) + 1)]
            context.abort(grpc.StatusCode.UNAVAILABLE, "The rest was lost.")
        yield from answers

"""A TCP proxy with faults, between a real client and a real (emulated) store.

The proxy does not know the protocols, with one exception: DynamoDB's throttling is an HTTP answer of the proxy.
"""

import asyncio
import json
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

_CHUNK: Final = 1 << 16
_AWAY: Final = 1.2  # seconds for which a store is away, and then reachable
_THROTTLED: Final = json.dumps(
    {
        "__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
        "message": "The level of configured provisioned throughput for the table was exceeded.",
    }
).encode()


@dataclass(frozen=True)
class Ill:
    """Faults for shares (0 to 1) of what a client sends; the rest passes unchanged.

    Args:
        late: share, and the longest delay in seconds.
        reset: the connection is reset before the store receives the request.
        lost: the store receives the request, and its answer is discarded with the connection.
        half: the store's answer is cut somewhere in the middle, possibly in its headers.
        silent: no more bytes come back on the connection.
        throttled: DynamoDB's answer to too many requests.
        comes_and_goes: for about a second all connections are reset and refused, then all is well for as long.
    """

    late: tuple[float, float] = (0.0, 0.0)  # share, seconds
    reset: float = 0.0
    lost: float = 0.0
    half: float = 0.0
    silent: float = 0.0
    throttled: float = 0.0
    comes_and_goes: bool = False


FINE: Final = Ill()


class _Broken(Exception):
    """The connection is to be reset."""


@dataclass(eq=False)
class _Pair:
    """A client's connection and the corresponding connection to the store."""

    client: asyncio.StreamWriter
    store: asyncio.StreamWriter
    next: str = ""  # the fault for the store's next bytes
    mute: bool = False


@dataclass
class Wire:
    """Listen on a free port in a thread of its own, and pass bytes on to *upstream* (host:port)."""

    upstream: str
    ill: Ill = FINE
    done: Counter[str] = field(default_factory=Counter)  # number of faults by kind
    _draw: random.Random = field(default_factory=lambda: random.Random(6))
    _pairs: set[_Pair] = field(default_factory=set)
    _address: str = ""

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._thread.start()
        self._address = self._run(self._listen())

    @property
    def address(self) -> str:
        """host:port for the client."""
        return self._address

    def treat(self, ill: Ill) -> None:
        """Apply *ill* from now on."""
        self.ill = ill

    def silence(self) -> None:
        """Silence every open connection; new connections work."""
        for pair in [*self._pairs]:
            pair.mute = True

    def close(self) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Awaitable[Any]) -> Any:
        async def await_work() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(await_work(), self._loop).result(10)

    # -------------------------------------------------------------------------------------------- in the thread

    async def _listen(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._tides = asyncio.ensure_future(self._come_and_go())
        self._away = False
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def _stop(self) -> None:
        self._server.close()
        self._tides.cancel()
        for pair in [*self._pairs]:
            _reset(pair.client)
            pair.store.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _come_and_go(self) -> None:
        while True:
            await asyncio.sleep(_AWAY)
            self._away = self.ill.comes_and_goes and not self._away
            if self._away:
                self.done["went away"] += 1
                for pair in [*self._pairs]:
                    _reset(pair.client)
                    pair.store.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._away:
            _reset(writer)
            return
        host, _, port = self.upstream.rpartition(":")
        try:
            store_reader, store_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            _reset(writer)
            return
        pair = _Pair(writer, store_writer)
        self._pairs.add(pair)
        pumps = [
            asyncio.ensure_future(self._pump_up(reader, pair)),
            asyncio.ensure_future(self._pump_down(store_reader, pair)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pairs.discard(pair)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, store_writer):
                with suppress(OSError):
                    end.close()

    async def _pump_up(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        with suppress(_Broken, OSError):
            while data := await self._read_request(reader):
                await self._treat(data, pair)

    async def _read_request(self, reader: asyncio.StreamReader) -> bytes:
        """Return a whole HTTP request (DynamoDB's emulators accept no partial ones), or else the available bytes."""
        data = await reader.read(_CHUNK)
        if data.startswith(b"POST "):
            while b"\r\n\r\n" not in data and (more := await reader.read(_CHUNK)):
                data += more
            head, _, body = data.partition(b"\r\n\r\n")
            while len(body) < _content_length(head) and (more := await reader.read(_CHUNK)):
                body += more
            return head + b"\r\n\r\n" + body
        return data

    async def _treat(self, data: bytes, pair: _Pair) -> None:
        ill = self.ill
        if pair.mute:
            return None
        if ill.late[0] and self._draw.random() < ill.late[0]:
            self.done["late"] += 1
            await asyncio.sleep(self._draw.uniform(0, ill.late[1]))
        roll = self._draw.random()
        for what in ("reset", "lost", "half", "silent", "throttled"):
            share: float = getattr(ill, what)
            if roll < share:
                self.done[what] += 1
                return await getattr(self, f"_apply_{what}")(data, pair)  # type: ignore[no-any-return]
            roll -= share
        await _pass_on(data, pair.store)
        return None

    async def _apply_reset(self, data: bytes, pair: _Pair) -> None:
        _reset(pair.client)
        raise _Broken

    async def _apply_lost(self, data: bytes, pair: _Pair) -> None:
        pair.next = "lost"
        await _pass_on(data, pair.store)

    async def _apply_half(self, data: bytes, pair: _Pair) -> None:
        pair.next = "half"
        await _pass_on(data, pair.store)

    async def _apply_silent(self, data: bytes, pair: _Pair) -> None:
        pair.mute = True

    async def _apply_throttled(self, data: bytes, pair: _Pair) -> None:
        if not data.startswith(b"POST "):
            return await _pass_on(data, pair.store)
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\n"
            f"Content-Length: {len(_THROTTLED)}\r\n\r\n"
        )
        return await _pass_on(head.encode() + _THROTTLED, pair.client)

    async def _pump_down(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        with suppress(_Broken, OSError):
            while data := await reader.read(_CHUNK):
                if pair.mute:
                    continue
                what, pair.next = pair.next, ""
                if what:
                    await self._cut(data if what == "half" else b"", pair)
                await _pass_on(data, pair.client)

    async def _cut(self, data: bytes, pair: _Pair) -> None:
        """Send the beginning of *data* to the client, then close or reset the connection."""
        await _pass_on(data[: self._draw.randrange(len(data))] if data else b"", pair.client)
        if self._draw.random() < 0.5:
            _reset(pair.client)
        raise _Broken


async def _pass_on(data: bytes, to: asyncio.StreamWriter) -> None:
    to.write(data)
    await to.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, so that data in transit is lost too."""
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0

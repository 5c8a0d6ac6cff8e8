"""Structured logs: one JSON object a line on standard error. Lines describe events and never contain request data.

Every line that is written while a request is handled contains the request's id.

Decisions are counted in lines of their own, which become metrics without an agent. Amazon CloudWatch reads `_aws`
(CloudWatch User Guide, "Embedded metric format specification"). Google Cloud Logging counts with a log-based metric on
`jsonPayload.logger="trust.decisions"`: `org` and `code` are the labels, and `decisions` is the number of decisions that
a line counts.
"""

import atexit
import logging
import re
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

OWN_LOGGERS: Final = ("functions", "shared", "trust")
"""The names at which this project's loggers begin. TRUST_LOG sets their level, and the level of no other logger."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_WAITING_MAX: Final = 256  # lines
_access_log = logging.getLogger("trust.access")
_ENCODER: Final = msgspec.json.Encoder()

# ---------------------------------------------------------------------------------------------------- request ids

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=;-]{0,127}")
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def get_request_id(headers: Mapping[str, str]) -> str:
    """Return the request id from *headers* (names in lower case), or a new id.

    The id is X-Request-Id, else the trace of X-Cloud-Trace-Context, else X-Amzn-Trace-Id. Clients control these
    headers. A value that does not look like an id is ignored, so that no client can forge or flood the log.
    """
    trace = headers.get("x-cloud-trace-context", "").partition("/")[0]
    for value in (headers.get("x-request-id", ""), trace, headers.get("x-amzn-trace-id", "")):
        if _ID.fullmatch(value):
            return value
    return secrets.token_hex(8)


@contextmanager
def request(request_id: str | None) -> Iterator[None]:
    """Add *request_id* to all lines within the block; a missing or invalid id is replaced by a new one."""
    valid_id = request_id if request_id and _ID.fullmatch(request_id) else secrets.token_hex(8)
    token = _request_id.set(valid_id)
    try:
        yield
    finally:
        _request_id.reset(token)


# ---------------------------------------------------------------------------------------------------------- lines


class JsonLines(logging.Formatter):
    """A formatter whose lines are JSON objects.

    The fields are severity, time, logger and message; request_id within a request; the values given as `extra`; and the
    traceback of an exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as a JSON object without a line end."""
        line: dict[str, object] = {
            "severity": record.levelname,
            "time": _format_time(record.created),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := _request_id.get()) is not None:
            line["request_id"] = request_id
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _encode(line)


class LineWriter:
    """Writes lines to standard error, whole lines in the order in which they come. Safe for threads.

    An event loop that answers requests writes several lines in each turn, and each write costs as much as a part of an
    answer. So the lines of the loop's thread wait for the end of its turn (`wait_for_turns_of`) and are written
    together. A line of another thread is written at once, after those that wait.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the collector may run within, and what it deletes may write a line
        self._waiting: list[str] = []
        self._loop: AbstractEventLoop | None = None
        self._loop_thread = 0

    def wait_for_turns_of(self, loop: "AbstractEventLoop") -> None:
        """Let the lines of this thread wait for the ends of the turns of *loop*, which runs in this thread."""
        if self._loop is not loop:
            self.flush()
            self._loop, self._loop_thread = loop, threading.get_ident()

    def write(self, lines: str) -> None:
        """Write *lines*, each with its line end, now or at the end of the turn."""
        with self._lock:
            self._waiting.append(lines)
            if self._may_wait():
                return
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            if self._waiting:
                waiting, self._waiting = self._waiting, []
                with suppress(OSError, ValueError):  # a full disk or a closed file ends no request
                    sys.stderr.write("".join(waiting))

    def _may_wait(self) -> bool:
        """Return whether the lines may wait; the first of a turn asks for its end. The caller holds the lock."""
        if threading.get_ident() != self._loop_thread or self._loop is None or not self._loop.is_running():
            return False
        if len(self._waiting) == 1:
            self._loop.call_soon(self.flush)
        return len(self._waiting) <= _WAITING_MAX


LINES: Final = LineWriter()
"""The lines of this process."""

atexit.register(LINES.flush)


class _LineHandler(logging.Handler):
    """Passes the lines of loggers on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            LINES.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - as in every handler of logging: a line that fails ends no request
            self.handleError(record)


def _encode(line: Mapping[str, object]) -> str:
    try:
        return msgspec.json.encode(line, enc_hook=str).decode()
    except UnicodeEncodeError:  # a lone surrogate, for example from a file name
        import json

        return json.dumps(line, default=str)


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def configure(level: str) -> None:
    """Write this project's records of at least *level* ("DEBUG", "INFO", …) to standard error.

    Records of other packages are written from WARNING on, or from *level* on if that is higher. Below WARNING a cloud's
    client library logs whole messages: botocore logs the plaintext data keys that AWS KMS returns, and session tokens.
    """
    handler = _LineHandler()
    handler.setFormatter(JsonLines())
    handler.addFilter(_is_logged)  # a package may set the level of its own logger
    logging.basicConfig(level=max(logging.WARNING, _number_of(level)), handlers=[handler], force=True)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not part of a line


def _is_logged(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in OWN_LOGGERS


def _number_of(level: str) -> int:
    return logging.getLevelNamesMapping()[level]


class _AccessLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    severity: str
    time: str
    logger: str
    message: str
    request_id: str | None = None
    function: str
    method: str
    status: int
    ms: float


def access(*, function: str, method: str, status: int, seconds: float) -> None:
    """Log one handled request. Every request has such a line, so it is made without a record of logging."""
    if _access_log.isEnabledFor(logging.INFO):
        line = _AccessLine(
            severity="INFO",
            time=_format_time(time.time()),
            logger=_access_log.name,
            message="answered",
            request_id=_request_id.get(),
            function=function,
            method=method,
            status=status,
            ms=round(seconds * 1000, 2),
        )
        LINES.write(_ENCODER.encode(line).decode() + "\n")


# ------------------------------------------------------------------------------------------------------ decisions

_UNKNOWN_ORG: Final = "-"  # the label of all organizations that do not exist: clients must not be able to add metrics
_DISTINCT_MAX: Final = 1_000  # combinations of organization, code and decision between two flushes


class _Metric(msgspec.Struct, frozen=True, rename="pascal"):
    name: str
    unit: str


class _MetricDirective(msgspec.Struct, frozen=True, rename="pascal"):
    namespace: str
    dimensions: tuple[tuple[str, ...], ...]
    metrics: tuple[_Metric, ...]


class _EmbeddedMetrics(msgspec.Struct, frozen=True):
    """The metadata object of the embedded metric format."""

    timestamp: int = msgspec.field(name="Timestamp")  # milliseconds since 1970
    directives: tuple[_MetricDirective, ...] = msgspec.field(name="CloudWatchMetrics")


class _DecisionLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    severity: str
    time: str
    logger: str
    message: str
    request_id: str | None = None
    org: str
    code: str
    decision: str
    decisions: int
    metadata: _EmbeddedMetrics = msgspec.field(name="_aws")


_DIRECTIVES: Final = (
    # One metric for each code of the platform, and one for each code of an organization.
    _MetricDirective("MQTTTrust", (("code",), ("org", "code")), (_Metric("decisions", "Count"),)),
)


class Decisions:
    """A counter of decisions by organization and code, which writes log lines.

    Args:
        mode: "each" writes a line for each decision, "second" a line for equal decisions of a second, "off" none.
        emit: writes lines, each with its line end.
        now: returns seconds since 1970.
        interval: seconds between two flushes in the mode "second".
    """

    def __init__(
        self,
        mode: str,
        *,
        emit: Callable[[str], None] = LINES.write,
        now: Callable[[], float] = time.time,
        interval: float = 1.0,
    ) -> None:
        """Store the arguments."""
        self._mode = mode
        self._emit = emit
        self._now = now
        self._interval = interval
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._timer: threading.Timer | None = None

    def __call__(self, org_id: str | None, code: str, decision: str) -> None:
        """Count one decision; *org_id* is None if the organization does not exist."""
        if self._mode == "each":
            self._emit(self._format(org_id or _UNKNOWN_ORG, code, decision, 1, _request_id.get()))
        elif self._mode == "second":
            with self._lock:
                self._counts[org_id or _UNKNOWN_ORG, code, decision] += 1
                is_full = len(self._counts) >= _DISTINCT_MAX
                if self._timer is None:
                    self._timer = threading.Timer(self._interval, self.flush)
                    self._timer.daemon = True
                    self._timer.start()
            if is_full:
                self.flush()

    def flush(self) -> None:
        """Write all decisions that are not written yet."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if counts:
            self._emit("".join(self._format(*labels, count, None) for labels, count in counts.items()))

    def _format(self, org_id: str, code: str, decision: str, count: int, request_id: str | None) -> str:
        seconds = self._now()
        line = _DecisionLine(
            severity="INFO",
            time=_format_time(seconds),
            logger="trust.decisions",
            message="decided",
            request_id=request_id,
            org=org_id,
            code=code,
            decision=decision,
            decisions=count,
            metadata=_EmbeddedMetrics(int(seconds * 1000), _DIRECTIVES),
        )
        return _ENCODER.encode(line).decode() + "\n"

"""Structured logs: one JSON object a line on standard error. Says what happened, never what was sent.

A request's id stands in every line that is written while it is answered. Decisions are counted in lines of their own,
in a form that becomes a metric without an agent: Amazon CloudWatch reads `_aws` (Embedded Metric Format); Google Cloud
Logging counts by a log-based metric on `jsonPayload.logger="trust.decisions"`, with `org` and `code` as its labels and,
where a line stands for several, `decisions` as its value.
"""

import logging
import re
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

import msgspec

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_log = logging.getLogger("trust.access")

# ---------------------------------------------------------------------------------------------------- request ids

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=;-]{0,127}")
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def request_id_of(headers: Mapping[str, str]) -> str:
    """The id a request came with (names of *headers* in lower case), or a new one.

    X-Request-Id, else the trace of X-Cloud-Trace-Context, else X-Amzn-Trace-Id. Whoever sends it could write anything:
    what does not look like an id is no id, so that a line of the log cannot be forged or flooded by it."""
    trace = headers.get("x-cloud-trace-context", "").partition("/")[0]
    for value in (headers.get("x-request-id", ""), trace, headers.get("x-amzn-trace-id", "")):
        if _ID.fullmatch(value):
            return value
    return secrets.token_hex(8)


@contextmanager
def request(request_id: str | None) -> Iterator[None]:
    """While this lasts, lines of the log carry *request_id* (a new one where it is none, or does not look like one)."""
    known = request_id if request_id and _ID.fullmatch(request_id) else secrets.token_hex(8)
    token = _request_id.set(known)
    try:
        yield
    finally:
        _request_id.reset(token)


def current_request_id() -> str | None:
    return _request_id.get()


# ---------------------------------------------------------------------------------------------------------- lines


class JsonLines(logging.Formatter):
    """severity, time, message, the request's id and what was given as `extra`; a traceback as one field."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "severity": record.levelname,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := _request_id.get()) is not None:
            line["request_id"] = request_id
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _json(line)


def _json(line: Mapping[str, object]) -> str:
    try:
        return msgspec.json.encode(line, enc_hook=str).decode()
    except UnicodeEncodeError:  # half of a surrogate pair, from the name of a file say
        import json

        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Write logs of at least *level* ("DEBUG", "INFO", …) to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # nobody reads them here


def access(*, function: str, method: str, status: int, seconds: float) -> None:
    """One line for one answered request."""
    if _log.isEnabledFor(logging.INFO):
        # As `_log.info` does, without looking for the line of code that calls: this is done for every request.
        record = logging.LogRecord(_log.name, logging.INFO, "", 0, "answered", None, None)
        vars(record).update(function=function, method=method, status=status, ms=round(seconds * 1000, 2))
        _log.handle(record)


# ------------------------------------------------------------------------------------------------------ decisions

NOBODY: Final = "-"  # stands for an org that is not here: names that clients make up must not become metrics
_NAMESPACE: Final = "MQTTTrust"
# Each code of the platform, and of each org (CloudWatch User Guide, "Embedded metric format specification").
_EMF: Final = (
    '"CloudWatchMetrics":[{"Namespace":"' + _NAMESPACE + '","Dimensions":[["code"],["org","code"]],'
    '"Metrics":[{"Name":"decisions","Unit":"Count"}]}]'
)
_DIFFERENT_MAX: Final = 1_000  # org, code and decision, in one second


def _to_stderr(line: str) -> None:
    sys.stderr.write(line)


class Decisions:
    """Counts decisions by org and code, in lines of the log.

    Args:
        how: "each": a line for every decision; "second": one for all that are alike in a second; "off".
        emit: writes one line.
        now: seconds since 1970.
        pause: seconds that alike ones are put together.
    """

    def __init__(
        self,
        how: str,
        *,
        emit: Callable[[str], None] = _to_stderr,
        now: Callable[[], float] = time.time,
        pause: float = 1.0,
    ) -> None:
        self._how = how
        self._emit = emit
        self._now = now
        self._pause = pause
        self._lock = threading.Lock()
        self._held: Counter[tuple[str, str, str]] = Counter()
        self._timer: threading.Timer | None = None

    def __call__(self, org_id: str | None, code: str, decision: str) -> None:
        """Count one. *org_id*: of an org that is here, None otherwise."""
        if self._how == "each":
            self._emit(self._line(org_id or NOBODY, code, decision, 1, _request_id.get()))
        elif self._how == "second":
            with self._lock:
                self._held[org_id or NOBODY, code, decision] += 1
                full = len(self._held) >= _DIFFERENT_MAX
                if self._timer is None:
                    self._timer = threading.Timer(self._pause, self.flush)
                    self._timer.daemon = True
                    self._timer.start()
            if full:
                self.flush()

    def flush(self) -> None:
        """Write what is held."""
        with self._lock:
            held, self._held = self._held, Counter()
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if held:
            self._emit("".join(self._line(*one, count, None) for one, count in held.items()))

    def _line(self, org_id: str, code: str, decision: str, count: int, request_id: str | None) -> str:
        # Put together by hand, because it is done for every connection: orgIds, codes and ids need no escaping.
        at = self._now()
        known = f'"request_id":"{request_id}",' if request_id else ""
        return (
            f'{{"severity":"INFO","time":"{datetime.fromtimestamp(at, UTC).isoformat()}","logger":"trust.decisions",'
            f'"message":"decided",{known}"org":"{org_id}","code":"{code}","decision":"{decision}","decisions":{count},'
            f'"_aws":{{"Timestamp":{int(at * 1000)},{_EMF}}}}}\n'
        )

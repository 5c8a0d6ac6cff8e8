"""Structured logs: one JSON object a line on standard error. Says what happened, never what was sent."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_log = logging.getLogger("trust.access")


class JsonLines(logging.Formatter):
    """severity, time, message and what was given as `extra`; a traceback as one field."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "severity": record.levelname,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Write logs of at least *level* ("DEBUG", "INFO", …) to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def access(*, function: str, method: str, status: int, seconds: float) -> None:
    """One line for one answered request."""
    if _log.isEnabledFor(logging.INFO):
        _log.info(
            "answered",
            extra={"function": function, "method": method, "status": status, "ms": round(seconds * 1000, 2)},
        )

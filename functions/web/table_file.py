"""A table as a file to download: comma-separated values (RFC 4180)."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from functions.web.message import Reply, file_reply

CSV: Final = "text/csv; charset=utf-8"
_FORMULA: Final = ("=", "+", "-", "@")
_SPACE: Final = ("\t", "\r")


def csv_reply(columns: Sequence[str], rows: Iterable[Sequence[object]], filename: str) -> Reply:
    """Return a table with a line that names the *columns*. Times are in UTC.

    A spreadsheet runs a cell that begins with one of `= + - @` as a formula, and strangers choose some of the texts
    here. So an apostrophe is put before such a text, which a spreadsheet then shows as text.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return file_reply(file.getvalue(), CSV, filename)


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, str) and (value[:1] in _SPACE or value.lstrip()[:1] in _FORMULA):
        return f"'{value}"
    return "" if value is None else value

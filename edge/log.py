"""The log of the edge's programs: lines of text on standard error."""

import logging
import sys
from typing import Final

_OWN: Final = "edge"  # the name at which the loggers of this package begin


def configure_log() -> None:
    """Write records of this package from INFO on, and records of other packages from WARNING on.

    Below WARNING a library for HTTP or gRPC may log whole messages, with keys in them.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_is_logged)  # a package may set the level of its own logger
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(_OWN).setLevel(logging.INFO)


def _is_logged(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] == _OWN

"""The log of the edge's programs."""

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from edge.log import configure_log


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The log of a program that has just started."""
    stream = io.StringIO()
    levels = {logger: logger.level for logger in (logging.getLogger(), logging.getLogger("edge"))}
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys, "stderr", stream)
    configure_log()
    yield stream
    for logger, level in levels.items():
        logger.setLevel(level)


def test_loggers_of_other_packages_are_never_below_warning(written: io.StringIO) -> None:
    """Also a logger whose package sets its level: requests hold API keys, and answers hold private keys."""
    loud = logging.getLogger("grpc._cython")
    loud.setLevel(logging.DEBUG)
    try:
        loud.debug("a private key")
        loud.warning("a warning")
    finally:
        loud.setLevel(logging.NOTSET)
    logging.getLogger("http.client").info("an answer")
    logging.getLogger("edge.haproxy_sync").info("a host was added")
    logging.getLogger("edge.haproxy_sync").debug("a detail")
    text = written.getvalue()
    assert "WARNING grpc._cython: a warning" in text
    assert "INFO edge.haproxy_sync: a host was added" in text
    assert len(text.splitlines()) == 2

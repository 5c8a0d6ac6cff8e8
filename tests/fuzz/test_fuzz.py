"""Every input that once broke a parser is refused, in time and within memory; a moment of fuzzing finds nothing new."""

import importlib.util
from pathlib import Path

import pytest

from benchmarks.fuzz.__main__ import fuzz, list_corpus
from benchmarks.fuzz.replay import replay
from benchmarks.fuzz.targets import TARGETS, FuzzTarget
from tests.support.missing import skip_or_fail

SECONDS = 2  # per target; `make fuzz` takes minutes
LASTING = ("api", "device_plain", "dialect")  # whose corpus takes 10 s and more
every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@pytest.mark.parametrize(
    "target",
    [pytest.param(target, marks=pytest.mark.slow if target.name in LASTING else ()) for target in TARGETS],
    ids=lambda target: target.name,
)
def test_the_corpus_is_refused_within_the_limits(target: FuzzTarget) -> None:
    """An input leads to the project's own refusals only, in 100 ms (2 s for a key file) of CPU time and 64 MiB."""
    paths = list_corpus(target)
    assert paths
    assert [result for result in replay(target, paths) if result.problem] == []


@pytest.mark.slow
@every_target
def test_a_moment_of_fuzzing(target: FuzzTarget, tmp_path: Path) -> None:
    """Coverage-guided fuzzing from the corpus, with the same random numbers each time, has no finding."""
    if importlib.util.find_spec("atheris") is None:
        skip_or_fail("atheris is not installed; it has no wheel for some systems")
    outcome = fuzz(target, SECONDS, folder=tmp_path, seed=1)
    assert outcome.failure is None
    assert outcome.findings == []
    assert outcome.inputs > len(list_corpus(target))

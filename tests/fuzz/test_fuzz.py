"""What was ever sent to break a parser is refused, in time, within memory; and a moment's search finds nothing new."""

import importlib.util
import os
from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz, kept
from tests.fuzz.replay import replayed
from tests.fuzz.targets import TARGETS, Target

SECONDS = 2  # per target; `make fuzz` takes minutes
every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@every_target
def test_kept_inputs(target: Target) -> None:
    """Nothing but the project's own refusals, within 100 ms (2 s for a key file) of CPU time and 64 MiB."""
    paths = kept(target)
    assert paths
    assert [one for one in replayed(target, paths) if one.problem] == []


@pytest.mark.slow
@every_target
def test_a_moment_of_fuzzing(target: Target, tmp_path: Path) -> None:
    """Coverage-guided, from the kept inputs on, with the same random numbers each time."""
    if importlib.util.find_spec("atheris") is None:
        assert os.environ.get("CI") != "true", "atheris is not here"
        pytest.skip("atheris has no wheel for this system")
    outcome = fuzz(target, SECONDS, folder=tmp_path, seed=1)
    assert outcome.failure is None
    assert outcome.found == []
    assert outcome.inputs > len(kept(target))

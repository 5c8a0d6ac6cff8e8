"""`make demo` plays its story to the end."""

import os
import subprocess
import sys
import time

import pytest

from demo.__main__ import missing
from demo.processes import Missing
from demo.stack import ROOT
from tests.e2e.conftest import skip_unless_ci


@pytest.mark.timeout(180)
def test_the_demo_ends_well_in_under_a_minute() -> None:
    """Each step says what was seen; a step that is not seen stops it with exit code 1."""
    if lacking := missing():
        skip_unless_ci(Missing("the demo", " ".join(sorted(lacking))))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "demo"], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < 60
    for words in ("untrusted_issuer", "identity_mismatch", "certificate_missing", "still publishing", "was ended"):
        assert words in done.stdout

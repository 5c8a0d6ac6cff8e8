"""What a test does where the machine lacks a program."""

import os
from typing import NoReturn

import pytest


def skip_or_fail(what: str) -> NoReturn:
    """Skip the test with the sentence *what*, which says what to install. Where CI=true, fail: CI runs every test."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)

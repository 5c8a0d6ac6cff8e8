"""The version of this release. pyproject.toml and CHANGELOG.md name the same one, and a test compares them."""

from typing import Final

VERSION: Final = "0.1.0"

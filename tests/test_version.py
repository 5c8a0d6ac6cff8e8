"""One version: the package's, the API description's and the changelog's."""

import re
import tomllib
from pathlib import Path

from shared.version import VERSION
from tests.support.harness import Service

ROOT = Path(__file__).parent.parent


def test_the_package_has_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


def test_the_newest_release_of_the_changelog_has_the_version() -> None:
    releases = re.findall(r"^## \[?([0-9][^\] ]*)\]? - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert releases[0] == VERSION


def test_the_api_description_has_the_version(service: Service) -> None:
    assert service.anonymous.get("//openapi.json").ok()["info"]["version"] == VERSION

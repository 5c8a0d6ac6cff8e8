"""The software bill of materials: valid CycloneDX, complete, and with the hashes of the lock files."""

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.test_requirements import ROOT, pins
from tools.sbom import LOCKS, write_sbom


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCKS)
def test_the_bill_of_materials_names_every_package_with_its_hashes(name: str, tmp_path: Path) -> None:
    """An operator compares it with advisories, and a package index with it."""
    text = write_sbom(name, tmp_path).read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    assert document["metadata"]["component"]["name"] == "mqtt-trust"
    described = {
        (component["name"], component["version"], frozenset(hashes(component))) for component in document["components"]
    }
    locked = {
        (name.partition("[")[0], pin.version, pin.hashes)
        for name, several in pins(ROOT / LOCKS[name]).items()
        for pin in several
    }
    assert described == locked
    assert all(component["purl"].startswith("pkg:pypi/") for component in document["components"])
    assert check(text) is None


def test_a_document_that_is_not_valid_is_noticed() -> None:
    """So a passing check of the documents means something."""
    assert check(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1})) is None
    assert (
        check(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "x"}]})) is not None
    )


def hashes(component: dict[str, Any]) -> set[str]:
    return {
        f"sha256:{digest['content']}"
        for reference in component["externalReferences"]
        for digest in reference.get("hashes", [])
        if digest["alg"] == "SHA-256"
    }


def check(text: str) -> object:
    """Return what is wrong with a CycloneDX document by its schema, or None."""
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)

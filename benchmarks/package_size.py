"""Measure verifyClient's package for AWS Lambda, and each top-level package in it.

docs/deploy-aws.md, "What is in a package", gives the reason for each of them.
"""

import tempfile
import zipfile
from collections import Counter
from pathlib import Path

from benchmarks.table import Figure, Row
from infra.package import build
from infra.table import BY_NAME

_MIB = 1 << 20


def measure(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-package-") as folder:
        package = build(BY_NAME["verifyClient"], Path(folder), python="3.13", arch="x86_64")
        zipped, unpacked = sizes(package)
        whole = package.stat().st_size
    figures = {"unpacked": Figure(unpacked.total() / _MIB, "MiB")}
    figures |= {name: Figure(size / 1024, "KiB") for name, size in zipped.most_common()}
    return [Row("verifyClient's package for AWS Lambda", value=Figure(whole / _MIB, "MiB"), figures=figures)]


def sizes(package: Path) -> tuple[Counter[str], Counter[str]]:
    """Return the bytes of each top-level name of a zip: compressed, and unpacked."""
    zipped: Counter[str] = Counter()
    unpacked: Counter[str] = Counter()
    with zipfile.ZipFile(package) as archive:
        for entry in archive.infolist():
            name = entry.filename.partition("/")[0].partition(".")[0]
            if ".dist-info/" in entry.filename:
                name = "dist-info"
            zipped[name] += entry.compress_size
            unpacked[name] += entry.file_size
    return zipped, unpacked

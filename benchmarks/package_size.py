"""The size of verifyClient's package for AWS Lambda, and of each top-level package in it.

Why each is there: docs/deploy-aws.md, "What is in a package".
"""

import tempfile
import zipfile
from collections import Counter
from pathlib import Path

from benchmarks.table import Figure, Row
from infra.package import build
from infra.table import BY_NAME

_MIB = 1 << 20


def rows(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-package-") as folder:
        package = build(BY_NAME["verifyClient"], Path(folder), python="3.13", arch="x86_64")
        zipped, unpacked = sizes(package)
        whole = package.stat().st_size
    figures = {"unpacked": Figure(unpacked.total() / _MIB, "MiB")}
    figures |= {name: Figure(size / 1024, "KiB") for name, size in zipped.most_common()}
    return [Row("verifyClient's package for AWS Lambda", value=Figure(whole / _MIB, "MiB"), figures=figures)]


def sizes(package: Path) -> tuple[Counter[str], Counter[str]]:
    """Bytes in the zip, and unpacked, of each top-level name in it."""
    zipped: Counter[str] = Counter()
    unpacked: Counter[str] = Counter()
    with zipfile.ZipFile(package) as archive:
        for one in archive.infolist():
            name = one.filename.partition("/")[0].partition(".")[0]
            if ".dist-info/" in one.filename:
                name = "dist-info"
            zipped[name] += one.compress_size
            unpacked[name] += one.file_size
    return zipped, unpacked

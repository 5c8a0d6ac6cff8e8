"""Write a software bill of materials of each set of packages that is installed: `make sbom`.

Each is a CycloneDX document (ECMA-424) in JSON, with the version and the hashes of each package, made from a lock file
by cyclonedx-bom. That tool validates each document against the schema of CycloneDX before it writes the document.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LOCKS: Final = {
    "local": "requirements.txt",
    "aws": "requirements/aws.txt",
    "google": "requirements/google.txt",
    "edge": "requirements/edge.txt",
}
"""The name of each document, and the lock file that the document describes."""
SPEC_VERSION: Final = "1.6"


def write_sbom(name: str, folder: Path) -> Path:
    """Write the document *name*, one of LOCKS, to *folder*, and return its path.

    Raises: subprocess.CalledProcessError, if the document is not valid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.cdx.json"
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", LOCKS[name], "--pyproject", "pyproject.toml"]
    options = ["--output-reproducible", "--validate", "--spec-version", SPEC_VERSION, "--output-file", str(path)]
    # A lock file does not say which package needs which, and the tool warns that the document does not say so.
    env = {**os.environ, "PYTHONWARNINGS": "ignore::UserWarning"}
    subprocess.run([*command, *options], cwd=ROOT, env=env, check=True)
    return path


def main() -> int:
    """Write every document to dist/sbom."""
    for name in LOCKS:
        print(write_sbom(name, ROOT / "dist" / "sbom").relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())

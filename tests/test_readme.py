"""The commands of the README work as they are printed."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import server

pytestmark = pytest.mark.timeout(180)

_BLOCK = re.compile(r"<!-- tested(?:: (\w+))? -->\n```sh\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.Server]:
    data = tmp_path_factory.mktemp("data")
    running = server.start(data)
    yield running
    running.stop()


def test_the_commands_of_the_readme_do_what_it_says(running: server.Server, tmp_path: Path) -> None:
    """The commands lead from a CA made with openssl to an admitted device and to a refused device with its reason."""
    (tmp_path / ".venv").symlink_to(server.ROOT / ".venv")
    environment = {
        **os.environ,
        "PYTHONPATH": str(server.ROOT),
        "TRUST_DATA": str(tmp_path / "admin-data"),
        "TRUST": f"{running.url}/api/v0002",
        "OPERATOR": running.keys["operator"],
        "BROKER": running.keys["broker"],
    }
    script = []
    for kind, commands in _BLOCK.findall((server.ROOT / "README.md").read_text()):
        if kind == "setup":  # keys and port are those of this run
            commands = "".join(line + "\n" for line in commands.splitlines() if line.startswith("export HOST="))
        script.append(f"echo '=== {kind}'\n{commands}")
    done = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(part.split("\n", 1) for part in done.stdout.split("=== ")[1:])
    assert '"decision":"allow"' in said["allow"]
    assert '"code":"untrusted_issuer"' in said["deny"]
    assert "Issued by CN=Somebody else, not among your CAs." in said["deny"]
    assert "✓ d:thermo:42 is let in." in said["check"]
    assert re.search(r'"key": "a-mtxpd0-\w{10}", "token": "', said["admin"])
    assert f'"active":"{_id(done.stdout)}"' in done.stdout


def _id(output: str) -> str:
    ids = re.findall(r'"active":"([0-9a-f]{32})"', output)
    assert ids, output
    return str(ids[0])

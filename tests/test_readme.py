"""The commands of the README and of docs/getting-started.md, run unchanged."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra import machine
from tests.support import server

pytestmark = pytest.mark.timeout(180)

PAGES = ("README.md", "docs/getting-started.md")  # the second continues the first
README = (server.ROOT / "README.md").read_text()
FUNCTIONS = json.loads((server.ROOT / "infra" / "functions.json").read_text())
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
    for kind, commands in _BLOCK.findall("".join((server.ROOT / page).read_text() for page in PAGES)):
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
    output = dict(part.split("\n", 1) for part in done.stdout.split("=== ")[1:])
    assert '"decision":"allow"' in output["allow"]
    assert '"code":"untrusted_issuer"' in output["deny"]
    assert "The certificate was issued by CN=Somebody else, which is not among your CA certificates." in output["deny"]
    assert "✓ d:thermo:42 is allowed." in output["check"]
    assert re.search(r'"key": "a-mtxpd0-\w{10}", "token": "', output["admin"])
    assert f'"active":"{_id(done.stdout)}"' in done.stdout
    assert '"steps":[{"number":1,' in output["explain"]


def _id(output: str) -> str:
    active = re.search(r'"active":"([0-9a-f]{32})"', output)
    assert active is not None, output
    return active[1]


def targets() -> list[str]:
    """Return the functions in the first column of the README's table of functions, and `service`."""
    table = README.partition("| function | routes |")[2].partition("\n\n")[0]
    columns = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [*re.findall(r"`(\w+)`", "".join(columns)), "service"]


def test_the_readme_lists_every_function() -> None:
    assert targets() == [*FUNCTIONS, "service"]


@pytest.mark.parametrize("target", targets())
def test_every_function_starts_as_a_target_of_functions_framework(target: str, tmp_path: Path) -> None:
    """By the README's command, in the checkout: the process answers on its port."""
    is_event = target in FUNCTIONS and FUNCTIONS[target]["trigger"] != "http"
    example = "onUpload" if is_event else "verifyClient"
    line = re.search(rf"^\.venv/bin/(functions-framework --target={example} --port=8081.*)$", README, re.M)
    assert line is not None
    port = machine.free_port()
    words = line[1].replace(example, target).replace("8081", str(port)).split()
    command = [f"{Path(sys.executable).parent}/{words[0]}", *words[1:]]
    environment = {**os.environ, "TRUST_DATA": str(tmp_path / "data")}
    with machine.server(command, f"http://127.0.0.1:{port}/", tmp_path / "log", environment, cwd=server.ROOT):
        pass

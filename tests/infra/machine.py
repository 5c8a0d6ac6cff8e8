"""What the deployments' tests need from the machine. A missing tool skips the test, or fails it in CI."""

import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.support.missing import skip_or_fail

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
SECONDS: Final = 120.0  # a started server must answer in this time


def terraform() -> str:
    path = shutil.which("terraform")
    return path or skip_or_fail("Terraform is not on the PATH: install it (1.6 or newer) to check the deployments.")


def npm_folder() -> Path:
    """Return infra/node_modules, installed from the lock file when it is first needed."""
    npm = shutil.which("npm")
    if npm is None:
        skip_or_fail("npm is not on the PATH: install Node.js (20 or newer) to check the deployments.")
    return _npm_folder(npm)


@cache
def _npm_folder(npm: str) -> Path:
    folder, lock = ROOT / "infra/node_modules", ROOT / "infra/package-lock.json"
    stamp = folder / ".of-lock"
    with hold_lock("npm"):
        if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
            command = [npm, "ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund", "--silent"]
            done = subprocess.run(command, cwd=ROOT / "infra", capture_output=True, text=True)
            if done.returncode:
                skip_or_fail(f"npm ci in infra/ failed: {done.stderr.strip()[-300:]}")
            shutil.copyfile(lock, stamp)
    return folder


@contextlib.contextmanager
def hold_lock(name: str) -> Iterator[None]:
    """Let one process at a time into the block, because tests run in several processes."""
    import fcntl

    (ROOT / ".build").mkdir(exist_ok=True)
    with open(ROOT / f".build/{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def arch() -> str:
    """Return the name of this machine's architecture in Lambda. Packages are for Linux, so only Linux can run them."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        skip_or_fail("Lambda's packages run on Linux, x86_64 or arm64: run this test there.")
    return {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]


def provider_mirror() -> Path | None:
    """Return a folder of Terraform providers on this machine, or None if Terraform has to fetch them.

    TRUST_TEST_PROVIDERS names the folder; without it, folders up to three levels deep are searched.
    """
    if named := os.environ.get("TRUST_TEST_PROVIDERS"):
        return Path(named)
    for top in sorted(Path("/").iterdir()):
        if top.is_symlink() or not top.is_dir() or top.name in ("proc", "sys", "dev", "run", "tmp"):
            continue
        for pattern in ("*/hashicorp/aws", "*/*/hashicorp/aws", "*/*/*/hashicorp/aws"):
            with contextlib.suppress(OSError):
                for provider in top.glob(pattern):
                    return provider.parents[2]
    return None


def clean_environment() -> dict[str, str]:
    """Return this process's environment without an operator's cloud account and without this project's settings."""
    ours = ("AWS_", "TF_", "GOOGLE_", "CLOUDSDK_", "TRUST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def terraform_environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment for Terraform with this machine's providers, and without an operator's cloud account."""
    environment = {**clean_environment(), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "TF_INPUT": "0", **more}
    if mirror := provider_mirror():
        rc = folder / "terraform.rc"
        rc.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n')
        environment["TF_CLI_CONFIG_FILE"] = str(rc)
    return environment


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def server(
    command: list[str], url: str, log: Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[None]:
    """Run *command*, wait until it answers at *url*, and end it by its own id after the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=env, cwd=cwd)
    try:
        _wait_until_it_answers(url, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return  # any HTTP answer shows that the server runs
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the server did not start: {log.read_text(errors='replace')[-3000:]}")


def json_of(command: list[str], **more: Any) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout)

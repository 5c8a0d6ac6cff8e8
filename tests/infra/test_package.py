"""Packages for Lambda: only what a function imports, the same bytes each time, and it runs (test_aws_terraform.py)."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from functions.registry import PROCESS
from infra import package
from infra.table import BY_NAME, FUNCTIONS, DeployedFunction
from tests.infra import lambdas, machine

pytestmark = pytest.mark.timeout(300)

VERIFY = BY_NAME["verifyClient"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    for name in ("verifyClient", "uploadCA"):
        package.build(BY_NAME[name], folder, python=machine.PYTHON, arch=machine.arch())
    return folder


def names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_verify_client_carries_no_other_functions_code(packages: Path) -> None:
    """Of the handlers its own alone; no local server, no admin command, no other cloud's adapter."""
    found = names(packages / "verifyClient.zip")
    assert {"functions/hosts/aws.py", "functions/dialects/native.py"} <= found
    others = ("api/cas", "api/servers", "api/system", "admin", "local", "hosts/asgi", "hosts/gcp", "hosts/static")
    assert found.isdisjoint({f"functions/{one}.py" for one in others})
    assert not any(name.startswith(("functions/api/", "functions/events/")) for name in found)
    assert not any(
        name.startswith(("shared/adapters/gcp", "shared/adapters/firestore", "tests/", "infra/")) for name in found
    )


def test_verify_client_carries_only_wheels_that_it_imports(packages: Path) -> None:
    """cryptography, pyOpenSSL, msgspec, the form parser, and PyJWT for people who ask why (`explain`) with a sign-in
    token; no server, no cloud client (boto3 is Lambda's own)."""
    wheels = {name.partition("-")[0] for name in names(packages / "verifyClient.zip") if ".dist-info/" in name}
    allowed = {"cffi", "cryptography", "msgspec", "pyjwt", "pyopenssl", "python_multipart", "typing_extensions"}
    assert wheels <= allowed
    assert {"cryptography", "msgspec"} <= wheels


def test_a_second_build_gives_the_same_bytes(packages: Path, tmp_path: Path) -> None:
    """So that a deployment tool sees a change where there is one, and nowhere else."""
    again = package.build(VERIFY, tmp_path, python=machine.PYTHON, arch=machine.arch())
    assert again.read_bytes() == (packages / "verifyClient.zip").read_bytes()


def test_nothing_is_compiled_at_a_cold_start(packages: Path, tmp_path: Path) -> None:
    """Lambda's folder cannot be written, so a package without byte code is compiled at each start: most of it."""
    task = lambdas.unpack(packages / "verifyClient.zip", tmp_path / "task")
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-B",
            "-v",
            "-c",
            f"import sys; sys.path.insert(0, {str(task)!r}); import functions.hosts.aws, functions.dialects.native",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = re.findall(rf"# code object from '?({re.escape(str(task))}/[^']*?)'?$", done.stderr, re.M)
    assert len(loaded) > 50, "what this looks for is what the interpreter says"
    assert [one for one in loaded if not one.endswith(".pyc")] == []


def test_without_that_python_a_package_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts more slowly, and says so."""
    monkeypatch.setattr(package, "interpreter", lambda python: None)
    built = package.build(VERIFY, tmp_path, python=machine.PYTHON, arch=machine.arch())
    assert {"functions/hosts/aws.py", "cryptography/x509/__init__.py"} <= names(built)
    assert not any(one.endswith(".pyc") for one in names(built))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_a_package_holds_the_modules_that_the_registry_names_and_no_others_endpoints(
    function: DeployedFunction,
) -> None:
    """Of functions/api, dialects and events a package holds its function's own, and views that these share."""
    modules = package.modules_of(function)
    assert set(function.function.modules) <= modules
    endpoints = {name for one in FUNCTIONS for name in one.function.modules if name != PROCESS}
    assert modules & endpoints == set(function.function.modules) - {PROCESS}


def test_health_is_packaged_without_a_store() -> None:
    """It answers whatever the state of the store and the keys: it loads neither, nor any use case."""
    modules = package.modules_of(BY_NAME["health"])
    assert not any(name.startswith(("shared.usecases", "shared.adapters", "shared.composition")) for name in modules)


def test_an_import_that_is_not_pinned_stops_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that would fail at its first call is not made."""
    monkeypatch.setattr(package, "_pins", dict)
    with pytest.raises(package.CannotPackage, match=r"requirements\.txt does not pin it"):
        package.wheels_of(package.modules_of(VERIFY))


def test_a_packaged_function_answers_in_an_empty_environment(packages: Path, tmp_path: Path) -> None:
    """A bare interpreter, the package, and boto3: an API Gateway event is answered; 401, for nobody has a key yet."""
    task = lambdas.unpack(packages / "uploadCA.zip", tmp_path / "task")
    environment = {"TRUST_DATA": str(tmp_path / "data"), "TRUST_DOMAIN": "example.com"}
    one = lambdas.Lambda(task, lambdas.runtime(tmp_path / "runtime"), BY_NAME["uploadCA"].lambda_handler, environment)
    answer = one.invoke(lambdas.event("POST", "/api/v0002/uploadCA", "{}", key=("a-mtxpd0-0123456789", "token")))
    assert answer.status == 401
    assert answer.raw["headers"]["content-type"] == "application/problem+json"

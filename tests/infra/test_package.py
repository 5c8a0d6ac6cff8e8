"""Packages for Lambda hold only what a function imports, are reproducible, and run (see test_aws_terraform.py)."""

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


def list_names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_verify_client_carries_no_other_functions_code(packages: Path) -> None:
    """Of the handlers it has only its own; it has no local server, admin command or other cloud's adapter."""
    names = list_names(packages / "verifyClient.zip")
    assert {"functions/hosts/aws.py", "functions/dialects/native.py"} <= names
    others = ("api/cas", "api/servers", "api/system", "admin", "local", "hosts/asgi", "hosts/gcp", "hosts/static")
    assert names.isdisjoint({f"functions/{module}.py" for module in others})
    assert not any(
        name.startswith(("shared/adapters/gcp", "shared/adapters/firestore", "tests/", "infra/")) for name in names
    )


def test_verify_client_carries_only_wheels_that_it_imports(packages: Path) -> None:
    """It has cryptography, pyOpenSSL, msgspec, the form parser, and PyJWT for `explain` with a sign-in token.

    It has no server and no cloud client (Lambda has boto3).
    """
    wheels = {name.partition("-")[0] for name in list_names(packages / "verifyClient.zip") if ".dist-info/" in name}
    allowed = {"cffi", "cryptography", "msgspec", "pyjwt", "pyopenssl", "python_multipart", "typing_extensions"}
    assert wheels <= allowed
    assert {"cryptography", "msgspec"} <= wheels


def test_a_second_build_gives_the_same_bytes(packages: Path, tmp_path: Path) -> None:
    """A deployment tool sees a change only if there is one."""
    again = package.build(VERIFY, tmp_path, python=machine.PYTHON, arch=machine.arch())
    assert again.read_bytes() == (packages / "verifyClient.zip").read_bytes()


def test_nothing_is_compiled_at_a_cold_start(packages: Path, tmp_path: Path) -> None:
    """Lambda's folder is read-only, so a package without byte code would be compiled at each start."""
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
    assert len(loaded) > 50, "the expression matches the interpreter's output"
    assert [name for name in loaded if not name.endswith(".pyc")] == []


def test_without_the_target_python_a_package_is_made_without_byte_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function then starts more slowly; the build says so."""
    monkeypatch.setattr(package, "interpreter", lambda python: None)
    built = package.build(VERIFY, tmp_path, python=machine.PYTHON, arch=machine.arch())
    assert {"functions/hosts/aws.py", "cryptography/x509/__init__.py"} <= list_names(built)
    assert not any(name.endswith(".pyc") for name in list_names(built))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_a_package_holds_its_functions_endpoints_and_no_others(function: DeployedFunction) -> None:
    """Of the modules that the registry names, a package holds those of its own function."""
    modules = function.modules
    assert set(function.function.modules) <= modules
    endpoints = {name for each in FUNCTIONS for name in each.function.modules if name != PROCESS}
    assert modules & endpoints == set(function.function.modules) - {PROCESS}


def test_health_is_packaged_without_a_store() -> None:
    """It answers while the store and the keys are down: it has no use case, no adapter and no composition."""
    modules = BY_NAME["health"].modules
    assert not any(name.startswith(("shared.usecases", "shared.adapters", "shared.composition")) for name in modules)


def test_an_import_that_is_not_pinned_stops_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package is made that would fail at its first call."""
    monkeypatch.setattr(package, "_pins", lambda *_: {})
    with pytest.raises(package.CannotPackage, match=r"all\.txt does not pin it"):
        package.wheels_of(VERIFY.modules)


def test_a_packaged_function_answers_in_an_empty_environment(packages: Path, tmp_path: Path) -> None:
    """A bare interpreter with the package and boto3 answers an API Gateway event: 401, because there are no keys."""
    task = lambdas.unpack(packages / "uploadCA.zip", tmp_path / "task")
    environment = {"TRUST_DATA": str(tmp_path / "data"), "TRUST_DOMAIN": "example.com"}
    function = lambdas.Lambda(
        task, lambdas.runtime(tmp_path / "runtime"), BY_NAME["uploadCA"].lambda_handler, environment
    )
    answer = function.invoke(lambdas.event("POST", "/api/v0002/uploadCA", "{}", key=("a-mtxpd0-0123456789", "token")))
    assert answer.status == 401
    assert answer.raw["headers"]["content-type"] == "application/problem+json"

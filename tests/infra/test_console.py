"""The console as it is deployed to Lambda: its package, in a bare interpreter, behind an API Gateway HTTP API."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import package
from infra.table import BY_NAME
from tests.infra import hosted, lambdas, machine
from tests.support.issuer import AUDIENCE, Issuer, run_issuer

pytestmark = pytest.mark.timeout(300)

CONSOLE = BY_NAME["console"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    for name in ("console", "verifyClient"):
        package.build(BY_NAME[name], folder, python=machine.PYTHON, arch=machine.arch())
    return folder


@pytest.fixture(scope="module")
def deployed(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> lambdas.Lambda:
    """The console as in the cloud: its environment names a table, a key and a queue, and it has no right to any."""
    folder = tmp_path_factory.mktemp("console")
    task = lambdas.unpack(packages / "console.zip", folder / "task")
    settings = {
        "TRUST_STORE": "dynamodb://documents?region=us-east-1",
        "TRUST_KEYS": "awskms:alias/master",
        "TRUST_QUEUE": "sqs:https://sqs.us-east-1.amazonaws.com/123456789012/sightings",
        "TRUST_DATA": str(folder / "data"),
    }
    return lambdas.Lambda(task, lambdas.runtime(folder / "runtime"), CONSOLE.lambda_handler, settings)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with run_issuer() as running:
        yield running


def test_every_file_is_the_same_as_from_the_local_server(deployed: lambdas.Lambda) -> None:
    """Status, bytes, type, policy, cache rule and all other headers are equal, through the gateway's events."""
    answers = iter(deployed.invoke_all([lambdas.event("GET", path) for path in hosted.ADDRESSES]))

    def send(method: str, path: str) -> hosted.Answer:
        answer = next(answers)
        return answer.status, answer.body, answer.raw["headers"]

    assert hosted.get_all(send) == hosted.EXPECTED


def test_a_browser_with_the_current_file_gets_no_bytes(deployed: lambdas.Lambda) -> None:
    """304 by entity tag (RFC 9110, section 15.4.5): a second visit costs a request per file, and no bytes."""
    tag = deployed.invoke(lambdas.event("GET", "/console/app.js")).raw["headers"]["etag"]
    again = deployed.invoke(lambdas.event("GET", "/console/app.js", headers={"If-None-Match": tag}))
    assert (again.status, again.body) == (304, b"")


def test_the_console_starts_without_a_store_a_key_or_a_queue(deployed: lambdas.Lambda) -> None:
    """No client is loaded and no folder made, whatever the settings name: the page works while the table is away."""
    answer = deployed.invoke(lambdas.event("GET", "/console/"))
    loaded = {name.partition(".")[0] for name in answer.modules}
    assert loaded.isdisjoint({"boto3", "botocore", "sqlite3", "jwt"})
    assert not Path(deployed.environment["TRUST_DATA"]).exists()


def test_the_page_may_connect_to_the_configured_issuer_and_no_other(deployed: lambdas.Lambda, issuer: Issuer) -> None:
    """connect-src names the issuer's origin, taken from its discovery document."""
    settings = {"TRUST_OIDC_ISSUER": issuer.url, "TRUST_OIDC_AUDIENCE": AUDIENCE}
    answer = deployed.invoke(lambdas.event("GET", "/console/"), **settings)
    assert f"connect-src 'self' {issuer.url}; " in answer.raw["headers"]["content-security-policy"]


def test_the_page_is_served_while_the_issuer_is_down(deployed: lambdas.Lambda, issuer: Issuer) -> None:
    """Users with an API key can sign in; connect-src names the issuer's configured origin."""
    issuer.down = True
    settings = {"TRUST_OIDC_ISSUER": issuer.url, "TRUST_OIDC_AUDIENCE": AUDIENCE}
    answer = deployed.invoke(lambdas.event("GET", "/console/"), **settings)
    assert answer.status == 200
    assert f"connect-src 'self' {issuer.url}; " in answer.raw["headers"]["content-security-policy"]


def test_the_package_holds_the_page_and_no_other_functions_code(packages: Path) -> None:
    """No other package holds the page."""
    with zipfile.ZipFile(packages / "console.zip") as archive:
        mine = set(archive.namelist())
    with zipfile.ZipFile(packages / "verifyClient.zip") as archive:
        others = set(archive.namelist())
    packaged = {name for name in mine if name.startswith("console/") and ".py" not in name}
    assert {path.removeprefix("/") for path in hosted.FILES} == packaged
    assert mine.isdisjoint(
        f"functions/{name}.py" for name in ("api/cas", "dialects/native", "api/system", "hosts/asgi", "hosts/gcp")
    )
    assert not any(name.startswith("console/") for name in others)
    assert "functions/hosts/static.py" not in others

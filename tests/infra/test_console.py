"""The console as it is deployed to Lambda: its package, in a bare interpreter, behind an API Gateway HTTP API."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import package
from infra.table import BY_NAME
from tests.infra import hosted, lambdas, machine
from tests.issuer import AUDIENCE, Issuer, running_issuer

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
    """As it stands in the clouds: a table's, a key's and a queue's names in its environment, and no right to any."""
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
    with running_issuer() as one:
        yield one


def test_every_file_comes_as_the_local_server_serves_it(deployed: lambdas.Lambda) -> None:
    """The page and each module: status, bytes, type, policy, cache rule and the rest, through the gateway's events."""
    answers = iter(deployed.invoke_all([lambdas.event("GET", path) for path in hosted.ADDRESSES]))

    def send(method: str, path: str) -> hosted.Answer:
        told = next(answers)
        return told.status, told.body, told.raw["headers"]

    assert hosted.get_all(send) == hosted.EXPECTED


def test_a_browser_that_has_a_file_is_told_so(deployed: lambdas.Lambda) -> None:
    """304 by entity tag (RFC 9110, 15.4.5): a second visit costs a question a file, and no bytes."""
    tag = deployed.invoke(lambdas.event("GET", "/console/app.js")).raw["headers"]["etag"]
    again = deployed.invoke(lambdas.event("GET", "/console/app.js", headers={"If-None-Match": tag}))
    assert (again.status, again.body) == (304, b"")


def test_it_starts_without_a_store_a_key_or_a_queue(deployed: lambdas.Lambda) -> None:
    """No client is loaded and no folder made, whatever the settings name: the page comes while the table is away."""
    told = deployed.invoke(lambdas.event("GET", "/console/"))
    loaded = {name.partition(".")[0] for name in told.modules}
    assert loaded.isdisjoint({"boto3", "botocore", "sqlite3", "jwt"})
    assert not Path(deployed.environment["TRUST_DATA"]).exists()


def test_the_page_may_ask_the_configured_issuer_and_nobody_else(deployed: lambdas.Lambda, issuer: Issuer) -> None:
    """connect-src names the issuer's origin, learned from its own description of itself."""
    settings = {"TRUST_OIDC_ISSUER": issuer.url, "TRUST_OIDC_AUDIENCE": AUDIENCE}
    told = deployed.invoke(lambdas.event("GET", "/console/"), **settings)
    assert f"connect-src 'self' {issuer.url}; " in told.raw["headers"]["content-security-policy"]


def test_an_issuer_that_does_not_answer_does_not_keep_the_page_away(deployed: lambdas.Lambda, issuer: Issuer) -> None:
    """People with an API key sign in all the same; the issuer's configured origin is let in."""
    issuer.down = True
    settings = {"TRUST_OIDC_ISSUER": issuer.url, "TRUST_OIDC_AUDIENCE": AUDIENCE}
    told = deployed.invoke(lambdas.event("GET", "/console/"), **settings)
    assert told.status == 200
    assert f"connect-src 'self' {issuer.url}; " in told.raw["headers"]["content-security-policy"]


def test_its_package_holds_the_page_and_no_other_functions_code(packages: Path) -> None:
    """And no other package holds the page."""
    with zipfile.ZipFile(packages / "console.zip") as archive:
        mine = set(archive.namelist())
    with zipfile.ZipFile(packages / "verifyClient.zip") as archive:
        others = set(archive.namelist())
    packaged = {name for name in mine if name.startswith("console/") and ".py" not in name}
    assert {path.removeprefix("/") for path in hosted.FILES} == packaged
    assert mine.isdisjoint(
        {f"functions/{one}.py" for one in ("api/cas", "dialects/native", "api/system", "hosts/asgi", "hosts/gcp")}
    )
    assert not any(name.startswith("console/") for name in others)
    assert "functions/hosts/static.py" not in others

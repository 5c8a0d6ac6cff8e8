"""The container file's start command, run unchanged on the files that the image would hold."""

import contextlib
import http.client
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from shared.composition import build
from shared.config import Settings
from shared.records import Role
from shared.usecases.orgs.api_keys import create_key
from shared.usecases.orgs.default_certificate import ensure_default
from shared.usecases.orgs.organizations import create_org, list_orgs
from tests.infra import hosted, machine
from tests.support import certs
from tests.support.harness import basic

pytestmark = pytest.mark.timeout(300)

FOLDER = machine.ROOT / "infra" / "container"
FILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
ORG = "mtxpd0"


def read_start_command() -> list[str]:
    command: list[str] = json.loads(re.findall(r"^CMD (\[.*\])$", FILE, re.M)[-1])
    return command


def read_environment() -> dict[str, str]:
    """Return the variables of the container file's ENV."""
    block = re.search(r"^ENV (.*?[^\\])$", FILE, re.M | re.S)
    assert block is not None
    return dict(re.findall(r"(\w+)=(\S+)", block[1]))


def test_the_base_image_is_an_argument() -> None:
    """So an operator can pin it by digest. Both ways to build pass the argument on."""
    lines = [line for line in FILE.splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("ARG BASE=python:3.13-")
    assert [line for line in lines if line.startswith("FROM")] == ["FROM ${BASE}"]
    build = yaml.safe_load((FOLDER / "cloudbuild.yaml").read_text(encoding="utf-8"))
    assert "BASE=$_BASE" in build["steps"][0]["args"]
    assert lines[0] == f"ARG BASE={build['substitutions']['_BASE']}"


@dataclass
class Container:
    port: int
    data: Path

    def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Send a request with the path exactly as given, without a client's normalization."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()


def start(folder: Path, **settings: str) -> Iterator[Container]:
    """Run the image's command on its files in an empty folder, with PORT, as Cloud Run and Knative do."""
    app = folder / "app"
    app.mkdir()
    for source in re.findall(r"^COPY (\S+) \./\S*$", FILE, re.M):
        if (machine.ROOT / source).is_dir():
            shutil.copytree(machine.ROOT / source, app / source, ignore=shutil.ignore_patterns("__pycache__"))
        elif "$" not in source:
            shutil.copyfile(machine.ROOT / source, app / source)
    port = machine.free_port()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {
        **read_environment(),
        "PORT": str(port),
        "PATH": path,
        "HOME": str(folder),
        "TRUST_DOMAIN": "example.com",
        **settings,
    }
    env["TRUST_DATA"] = str(folder / "data")
    with machine.server(read_start_command(), f"http://127.0.0.1:{port}/healthz", folder / "log", env, cwd=app):
        yield Container(port, folder / "data")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Every route in one process: FUNCTION_TARGET=service, the image's default."""
    yield from start(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def upload_ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """One function only."""
    yield from start(tmp_path_factory.mktemp("uploadCA"), FUNCTION_TARGET="uploadCA")


def make_key(container: Container, role: Role) -> str:
    """Create an API key in the container's store. Return the value of the Authorization header."""
    app = build(Settings.from_env({"TRUST_DATA": str(container.data), "TRUST_DOMAIN": "example.com"}))
    try:
        ensure_default(app.context, app.sealer)
        if ORG not in [org.org_id for org in list_orgs(app.context)]:
            create_org(app.context, ORG)
        made, token = create_key(app.context, org_id=ORG, role=role)
    finally:
        app.close()
    return basic(made.key, token)


def test_the_start_command_answers_on_the_given_port(service: Container) -> None:
    """The platform chooses PORT."""
    status, body, headers = service.send("GET", "/healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"


def test_the_whole_service_works_behind_one_address(service: Container) -> None:
    """A CA is uploaded with a browser's form, read back as PEM, and removed."""
    from tests.support.harness import multipart

    authorization = {"Authorization": make_key(service, Role.OPERATOR)}
    content_type, form = multipart({"certificate": certs.ca().der})
    path = "/api/v0002/authentication/cacertificates"
    status, body, _ = service.send("POST", path, form, {**authorization, "Content-Type": content_type})
    assert status == 201, body
    made = json.loads(body)["id"]
    status, body, headers = service.send("GET", f"{path}/{made}/pem", headers=authorization)
    assert (status, headers["content-type"]) == (200, "application/x-pem-file")
    assert body.startswith(b"-----BEGIN CERTIFICATE-----")
    status, body, headers = service.send("DELETE", f"{path}/{made}", headers={**authorization, "If-Match": "*"})
    assert (status, body) == (204, b"")
    assert headers["content-type"] is None


def test_an_encoded_slash_never_splits_a_path(service: Container) -> None:
    """The server decodes paths, but the functions see the path as sent: one name, not `…/pem` of another record."""
    authorization = {"Authorization": make_key(service, Role.OPERATOR)}
    path = "/api/v0002/authentication/cacertificates/x%2Fpem"
    status, body, headers = service.send("GET", path, headers=authorization)
    assert (status, json.loads(body)["code"]) == (404, "not_found")
    assert headers["content-type"] == "application/problem+json"


def test_a_body_beyond_the_limit_is_refused(service: Container) -> None:
    """413, once the caller is known."""
    authorization = {"Authorization": make_key(service, Role.OPERATOR)}
    large = b"x" * (256 * 1024 + 1)
    assert service.send("POST", "/api/v0002/uploadCA", large)[0] == 401
    status, body, _ = service.send("POST", "/api/v0002/uploadCA", large, authorization)
    assert (status, json.loads(body)["code"]) == (413, "file_too_large")


def test_a_function_alone_answers_its_own_routes_only(upload_ca: Container) -> None:
    """FUNCTION_TARGET=uploadCA: its own address answers (401 without a key); any other is not found."""
    assert upload_ca.send("POST", "/api/v0002/uploadCA")[0] == 401
    status, body, _ = upload_ca.send("GET", "/healthz")
    assert (status, json.loads(body)["code"]) == (404, "not_found")


def test_a_functions_own_address_has_no_path(upload_ca: Container) -> None:
    """Behind …cloudfunctions.net/uploadCA the platform removes the name, so `/` is the function."""
    assert upload_ca.send("POST", "/")[0] == 401


def test_the_console_is_served_from_the_same_address(service: Container) -> None:
    """`/` leads to the console, each file is served unchanged, other paths are not found; the API is beside it."""
    assert hosted.get_all(service.send) == hosted.EXPECTED
    assert service.send("GET", "/api/v0002/session")[0] == 401


def test_the_console_alone_serves_its_files_and_nothing_else(tmp_path: Path) -> None:
    """FUNCTION_TARGET=console: the same files and headers, no store, and no other function's address."""
    with contextlib.contextmanager(start)(tmp_path, FUNCTION_TARGET="console") as container:
        assert hosted.get_all(container.send) == hosted.EXPECTED
        assert container.send("GET", "/api/v0002/session")[0] == 404
    assert not container.data.exists()


def test_a_wrong_setting_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    """The platform's log names the setting and the values that it takes."""
    with pytest.raises(AssertionError, match=r"TRUST_KEYS takes local:"):
        next(start(tmp_path, TRUST_KEYS="nonsense"))


def test_the_image_holds_no_more_than_it_needs() -> None:
    """The build context holds only what the file copies, no data and no keys; the container runs without privileges."""
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    copied = set(re.findall(r"^COPY (\S+) ", FILE, re.M))
    assert copied == {"requirements/${CLOUD}.txt", "main.py", "functions", "shared", "console"}
    clouds = {f"requirements/{cloud}.txt" for cloud in ("aws", "google")}
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied - {"requirements/${CLOUD}.txt"} | clouds
    assert all((machine.ROOT / path).exists() for path in copied - {"requirements/${CLOUD}.txt"} | clouds)
    assert re.search(r"^USER 65532:65532$", FILE, re.M)


def test_cloud_build_builds_this_container_file() -> None:
    """The build uses BuildKit, without which the ignore file beside the container file would not be read."""
    build_file = yaml.safe_load((FOLDER / "cloudbuild.yaml").read_text(encoding="utf-8"))
    (step,) = build_file["steps"]
    path = step["args"][step["args"].index("--file") + 1]
    assert machine.ROOT / path == FOLDER / "Dockerfile"
    assert step["env"] == ["DOCKER_BUILDKIT=1"]
    assert step["args"][-1] == "."
    assert build_file["images"] == ["$_IMAGE"]

"""The running service keeps to its own description.

schemathesis makes valid and invalid requests from /openapi.json. The status, media type and body of every answer must
be described there, and no answer may be a 500. The requests are the same in each run (no random seed), so every
failure can be repeated.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from functions.registry import PREFIX
from infra.openapi import document
from tests.support import certs, server

pytestmark = pytest.mark.slow

EXAMPLES = 8  # requests per operation and per kind (valid, invalid)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OPERATIONS = [(method.upper(), path) for path, methods in document()["paths"].items() for method in methods]
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Running:
    """The service as `make run` starts it, with a key for each role."""

    url: str
    schema: Any
    keys: dict[str, str]

    def auth(self, path: str) -> tuple[str, str]:
        """Return the key and token of a role that may call *path*."""
        role = "operator"
        if path.startswith(("/edge/", "/v3/")):
            role = "edge"
        elif "verifyclient" in path.lower():
            role = "broker"
        key, _, token = self.keys[role].partition(":")
        return key, token

    def existing_id(self, path: str) -> str:
        """Return the id of an existing entry of the kind that *path* names. Create an entry if none is left."""
        kind = re.sub(r"/\{id\}.*", "", path)
        auth = self.auth(path)
        results = requests.get(self.url + kind, auth=auth, timeout=30).json()["results"]
        ids = [entry["id"] for entry in results if entry["id"] != "default"]
        if ids:
            return str(ids[-1])
        made = requests.post(self.url + kind + _MAKING[kind][0], json=_MAKING[kind][1], auth=auth, timeout=30)
        return str(made.json()["id"])


_MAKING: Final[dict[str, tuple[str, dict[str, str]]]] = {
    f"{PREFIX}/authentication/cacertificates": ("", {"certificate": certs.ca("Root").pem}),
    f"{PREFIX}/authentication/servercertificates": ("/csr", {"keyAlgorithm": "P-256"}),
    f"{PREFIX}/authorization/denylist": ("", {"kind": "identity", "value": "d:thermo:42"}),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("service")
    started = server.start(data, TRUST_RATE_PER_MINUTE="100000", TRUST_LOG="ERROR")
    try:
        edge = subprocess.run(
            [sys.executable, "-m", "functions.admin", "key", "create", "--org", "demo01", "--role", "edge", "--json"],
            cwd=ROOT,
            env={**os.environ, "TRUST_DATA": str(data)},
            capture_output=True,
            text=True,
            check=True,
        )
        made = json.loads(edge.stdout)
        keys = {**started.keys, "edge": f"{made['key']}:{made['token']}"}
        yield Running(started.url, schemathesis.openapi.from_url(f"{started.url}/openapi.json"), keys)
    finally:
        started.stop()


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda value: value)
def test_every_answer_is_as_described(running: Running, method: str, path: str) -> None:
    """Answers to valid and invalid requests, also about existing entries, keep to the description."""
    operation = running.schema[path][method]
    modes = [schemathesis.GenerationMode.POSITIVE]
    if operation.body or operation.query or operation.headers:
        modes.append(schemathesis.GenerationMode.NEGATIVE)
    strategies = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))

    @settings(
        max_examples=EXAMPLES * len(modes),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategies, there=st.booleans())
    def ask(case: Any, there: bool) -> None:
        if there and "{id}" in path:
            case.path_parameters = {**(case.path_parameters or {}), "id": running.existing_id(path)}
        response = case.call(auth=running.auth(path), timeout=30)
        case.validate_response(response, checks=CHECKS)

    ask()

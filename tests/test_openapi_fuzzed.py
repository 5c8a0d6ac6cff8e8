"""The running service against its own description: schemathesis makes requests of /openapi.json, good ones and broken
ones, and every answer has a status, a media type and a body that stand there. Never a 500.

The same requests each time (no random seed): what it finds is found again.
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
from tests import certs, server

pytestmark = pytest.mark.slow

EXAMPLES = 8  # of each operation, and of each kind: as described, and not as described
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
    """The service as `make run` starts it, with a key of each role."""

    url: str
    schema: Any
    keys: dict[str, str]

    def auth(self, path: str) -> tuple[str, str]:
        """Key and token of a role that may ask."""
        role = "operator"
        if path.startswith(("/edge/", "/v3/")):
            role = "edge"
        elif "verifyclient" in path.lower():
            role = "broker"
        key, _, token = self.keys[role].partition(":")
        return key, token

    def known(self, path: str) -> str:
        """The id of a thing of the kind that *path* is about, a new one where none is left."""
        kind = re.sub(r"/\{id\}.*", "", path)
        auth = self.auth(path)
        found = requests.get(self.url + kind, auth=auth, timeout=30).json()["results"]
        there = [one["id"] for one in found if one["id"] != "default"]
        if there:
            return str(there[-1])
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


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda one: one)
def test_every_answer_is_as_described(running: Running, method: str, path: str) -> None:
    """To requests that the description allows, to such as it does not, and to those about a thing that is there."""
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
            case.path_parameters = {**(case.path_parameters or {}), "id": running.known(path)}
        response = case.call(auth=running.auth(path), timeout=30)
        case.validate_response(response, checks=CHECKS)

    ask()

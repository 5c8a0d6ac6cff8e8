"""Run a packaged function in an empty environment: its zip, the Python it was made for, and boto3 as in Lambda."""

import base64
import importlib.util
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlencode

from tests.support.harness import basic

# `-I -S`: no site-packages, PYTHON… variables or working directory on the path, so all imports are in the package.
_BOOT: Final = """
import importlib, json, sys
task, runtime, handler = sys.argv[1:4]
sys.path[:0] = [task, runtime]
class Context:
    function_name = "f"
    aws_request_id = "4f6a2c1e-0000-4000-8000-000000000001"
    def get_remaining_time_in_millis(self): return 10000
module, _, name = handler.rpartition(".")
handle = getattr(importlib.import_module(module.replace("/", ".")), name)
answers = [handle(event, Context()) for event in json.load(sys.stdin)]
print(json.dumps({"answers": answers, "modules": sorted(sys.modules)}))
"""
_RUNTIME: Final = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")


@dataclass(frozen=True)
class LambdaAnswer:
    raw: Any
    modules: frozenset[str] = field(repr=False)
    log: str = field(repr=False)

    @property
    def status(self) -> int:
        status: int = self.raw["statusCode"]
        return status

    @property
    def body(self) -> bytes:
        text: str = self.raw["body"]
        return base64.b64decode(text) if self.raw["isBase64Encoded"] else text.encode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def ok(self, status: int = 200) -> Any:
        assert self.status == status, f"{self.raw}\n{self.log}"
        return self.json


@dataclass(frozen=True)
class Lambda:
    """A function: its unpacked package, handler and environment."""

    task: Path
    runtime: Path
    handler: str
    environment: Mapping[str, str]

    def invoke(self, event: Any, **more: str) -> LambdaAnswer:
        """Start the function cold, with one event. Raises: AssertionError with the log, if the handler raises."""
        return self.invoke_all([event], **more)[0]

    def invoke_all(self, events: Sequence[Any], **more: str) -> list[LambdaAnswer]:
        """Start the function cold, and use the process for all events. Raises: as `invoke`."""
        environment = {"LAMBDA_TASK_ROOT": str(self.task), **self.environment, **more}
        command = [sys.executable, "-I", "-S", "-c", _BOOT, str(self.task), str(self.runtime), self.handler]
        done = subprocess.run(
            command,
            input=json.dumps(events),
            text=True,
            capture_output=True,
            cwd=self.task,
            env=environment,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        output = json.loads(done.stdout)
        return [LambdaAnswer(raw, frozenset(output["modules"]), done.stderr) for raw in output["answers"]]


def unpack(package: Path, folder: Path) -> Path:
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return folder


def runtime(folder: Path) -> Path:
    """Make a folder with boto3 and its dependencies, and nothing else."""
    folder.mkdir()
    for name in _RUNTIME:
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        assert spec.origin is not None, name
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (folder / source.name).symlink_to(source)
    return folder


def event(
    method: str,
    path: str,
    body: bytes | str = "",
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    key: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Return an API Gateway HTTP API event, payload format 2.0.

    The form is that of the example in "Create AWS Lambda proxy integrations for HTTP APIs in API Gateway". *path* is as
    sent by the client; rawPath is decoded, as the gateway does.
    """
    sent = {
        "accept": "*/*",
        "content-type": "application/json",
        "host": "id.execute-api.us-east-1.amazonaws.com",
        "user-agent": "curl/8.5.0",
        "x-amzn-trace-id": "Root=1-5e6722a7-cc56xmpl46db7ae02d4da47e",
        "x-forwarded-for": "203.0.113.7",
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
        **{name.lower(): value for name, value in (headers or {}).items()},
    }
    if key:
        sent["authorization"] = basic(*key)
    raw = unquote(path)
    made: dict[str, Any] = {
        "version": "2.0",
        "routeKey": f"{method} {raw}",
        "rawPath": raw,
        "rawQueryString": urlencode(query or {}),
        "headers": sent,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "id",
            "domainName": "id.execute-api.us-east-1.amazonaws.com",
            "domainPrefix": "id",
            "http": {
                "method": method,
                "path": raw,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "curl/8.5.0",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": f"{method} {raw}",
            "stage": "$default",
            "time": "10/Mar/2020:05:16:23 +0000",
            "timeEpoch": 1583817383220,
        },
        "isBase64Encoded": isinstance(body, bytes),
    }
    if body:
        made["body"] = base64.b64encode(body).decode() if isinstance(body, bytes) else body
    return made

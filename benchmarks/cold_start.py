"""Measure cold starts: from a new process to its first answer, for each function on each store.

Each function is measured in turn with a bare process. The bare process imports what is indispensable (the platform's
framework, OpenSSL, the store's client), makes the client and reads one document. The part of the ratio above 1 is this
project's own cost: its modules, msgspec, the request and its answer.

    SQLite                  as `make run` answers: the ASGI application, uvicorn, uvloop, httptools
    DynamoDB (moto)         as AWS Lambda does: the handler in hosts/aws.py; the framework is what Lambda's own
                            runtime client (awslambdaric) imports
    Firestore (emulator)    as Cloud Run does: functions-framework's ASGI application and its server

On Firestore the framework dominates, so only the two main functions are measured. Functions for events and the schedule
are left out: no caller waits for them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.fleet import DOMAIN, KINDS, ORG, Fleet, deploy, make_fleet
from benchmarks.table import Figure, Row, Spread, Target
from shared.composition import build
from shared.config import Settings, SQLite
from shared.records import Role
from shared.usecases.orgs.api_keys import create_key
from shared.usecases.orgs.default_certificate import ensure_default
from tests.support import certs
from tests.support.emulators import EmulatorMissing, Emulators
from tests.support.harness import basic

ROOT: Final = Path(__file__).parent.parent
MAIN: Final = ("verifyClient", "uploadCA")
VERDICT_AT_MOST, AT_MOST = Target(at_most=1.1), Target(at_most=1.2)
_PREFIX: Final = "/api/v0002"
_REGION: Final = "eu-central-1"


# ----------------------------------------------------------------------------------------------------------- processes

# The modules that the platform has loaded before it loads a function, or the modules of the server.
_FRAMEWORK: Final = {
    "SQLite": """
import uvicorn, uvloop, httptools
import uvicorn.lifespan.on, uvicorn.loops.uvloop, uvicorn.protocols.http.httptools_impl
""",
    "DynamoDB": """
import importlib, json, logging.config, os, sys, time, traceback, warnings, decimal
""",
    "Firestore": """
import functions_framework, gunicorn.app.base, uvicorn, uvicorn_worker, uvloop, httptools
import uvicorn.lifespan.off, uvicorn.loops.uvloop, uvicorn.protocols.http.httptools_impl, functions_framework.aio
""",
}
_PAUSED: Final = """
from functions.hosts import collector
collector.pause()
"""
_LAMBDA: Final = """
class Context: aws_request_id = "1"
answer = getattr(importlib.import_module("functions.hosts.aws"), stem)(event, Context())
assert answer["statusCode"] == status, answer
"""
_LOCAL: Final = """
from functions.hosts.asgi import Application
from shared import log
from shared.composition import build
from shared.config import Settings, SQLite
settings = Settings.from_env()
log.configure(settings.log)
app = Application(build(settings))
"""
_DEPLOYED: Final = """
app = functions_framework.create_app(target, source)
"""
_ASK: Final = """
async def receive():
    return {"type": "http.request", "body": body, "more_body": False}
async def send(message):
    if message["type"] == "http.response.start":
        assert message["status"] == status, message
uvloop.run(app({"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
    "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers, "root_path": "",
    "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}, receive, send))
"""
_ONE_ANSWER: Final = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})
"""
_BARE: Final = """
import cryptography.x509, OpenSSL.SSL, OpenSSL.crypto
"""
_READ: Final = {
    "SQLite": """
import sqlite3
connection = sqlite3.connect(place)
assert connection.execute("SELECT body FROM documents LIMIT 1").fetchone()
""",
    "DynamoDB": """
import boto3
client = boto3.session.Session().client("dynamodb", region_name=region)
assert client.get_item(TableName=place, Key={"pk": {"S": "none"}, "sk": {"S": "none"}}, ConsistentRead=True)
""",
    "Firestore": """
from google.cloud import firestore
client = firestore.Client(project=place)
client.document("trust", "none").get()
""",
}
_EMPTY: Final = """
target, source, status, method, path, body, headers = "empty", empty, 200, "GET", "/", b"", []
"""
_DONE: Final = """
import os
os.write(1, b".")
os._exit(0)
"""


@dataclass(frozen=True)
class StartCost:
    """Seconds from a process's start to its answer, and seconds of CPU time. CPU time is steadier on a busy machine."""

    clock: float
    cpu: float


def run_process(code: str, env: Mapping[str, str]) -> StartCost:
    """Run *code* in a new process until it answers. Raises: RuntimeError with the error output, without an answer."""
    # -S: no function loads the .pth files of a developer's packages.
    command = [sys.executable, "-S", "-c", code + _DONE]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        signal = process.stdout.read(1)
        clock = time.perf_counter() - start
        if signal != b".":
            raise RuntimeError(process.stderr.read().decode()[-3000:])
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    return StartCost(clock, used.ru_utime + used.ru_stime)


# -------------------------------------------------------------------------------------------------------------- stores


@dataclass(frozen=True)
class Store:
    """A store with one organization, and the environment that points functions at it."""

    name: str
    place: str
    env: Mapping[str, str]
    question: bytes = field(repr=False)  # the body of a request to verifyClient
    root_pem: str = field(repr=False)
    keys: Mapping[Role, str] = field(repr=False)  # values of the Authorization header

    @property
    def bare(self) -> str:
        """Return the code of the bare process: it imports what is indispensable, reads once and answers."""
        read = f"place, region = {self.place!r}, {_REGION!r}\n" + _READ[self.name]
        empty = f"empty = {str(ROOT / 'benchmarks/empty/loop.py')!r}\n" + _EMPTY
        answers = {"SQLite": empty + _ONE_ANSWER + _ASK, "Firestore": empty + _DEPLOYED + _ASK}
        return _FRAMEWORK[self.name] + _BARE + read + answers.get(self.name, "")

    def first(self, call: "FirstCall") -> str:
        """Return the code of a process that answers *call* and does nothing else."""
        body = call.body(self)
        headers = {"content-type": "application/json", "authorization": self.keys[call.role]}
        headers["content-length"] = str(len(body))
        if self.name != "DynamoDB":
            raw = [(name.encode(), value.encode()) for name, value in headers.items()]
            values = (call.function, str(ROOT / "main.py"), call.status, call.method, call.path, body, raw)
            given = f"target, source, status, method, path, body, headers = {values!r}\n"
            if self.name == "SQLite":  # functions/local.py pauses the collector before it loads the server
                return _PAUSED + _FRAMEWORK[self.name] + given + _LOCAL + _ASK
            return _FRAMEWORK[self.name] + given + _DEPLOYED + _ASK
        event = {
            "rawPath": call.path,
            "rawQueryString": "",
            "headers": headers,
            "body": body.decode(),
            "isBase64Encoded": False,
            "requestContext": {"http": {"method": call.method, "path": call.path}},
        }
        return _FRAMEWORK[self.name] + f"stem, status, event = {call.stem!r}, {call.status}, {event!r}\n" + _LAMBDA


@dataclass(frozen=True)
class FirstCall:
    """The first call of a function, and the expected status."""

    function: str
    stem: str
    method: str
    path: str
    fields: Any = None
    status: int = 200
    role: Role = Role.OPERATOR

    def body(self, store: Store) -> bytes:
        if self.role is Role.BROKER:
            return store.question
        if self.fields == "ca":
            return json.dumps({"certificate": store.root_pem}).encode()
        return json.dumps(self.fields).encode() if self.fields is not None else b""


def list_calls() -> list[FirstCall]:
    """Return one call per function. Each can be repeated: it uploads again, is refused late, or only reads."""
    own = certs.server(f"{ORG}.messaging.example.net")
    pair = {"certificate": own.pem, "privateKey": own.key_pem}
    authentication, authorization = f"{_PREFIX}/authentication", f"{_PREFIX}/authorization"
    servers = f"{authentication}/servercertificates"
    return [
        FirstCall("verifyClient", "verify_client", "POST", f"{_PREFIX}/verifyClient", role=Role.BROKER),
        FirstCall("uploadCA", "upload_ca", "POST", f"{authentication}/cacertificates", "ca"),
        FirstCall("manageCertificates", "manage_certificates", "GET", f"{authentication}/cacertificates"),
        FirstCall("uploadServerCert", "upload_server_cert", "POST", servers, pair, 422),  # names another host
        FirstCall("activateServerCert", "activate_server_cert", "GET", f"{servers}/active"),
        FirstCall("generateCSR", "generate_csr", "POST", f"{servers}/csr", {"keyAlgorithm": "P-256"}, 201),
        FirstCall("fulfillCSR", "fulfill_csr", "PUT", f"{servers}/none/certificate", {"certificate": own.pem}, 404),
        FirstCall("connectionPolicy", "connection_policy", "GET", f"{authorization}/connectionpolicy"),
        FirstCall("activityLog", "activity_log", "GET", f"{_PREFIX}/activity"),
    ]


def open_stores(folder: Path, missing: list[str]) -> list[Store]:
    """Return the stores that this machine can run. Append to *missing* how to install the others."""
    emulators = Emulators(folder, os.getpid())
    devices = make_fleet(KINDS[0], 1)
    stores = [
        _prepare_store("SQLite", str(folder / "trust.db"), f"sqlite:///{folder / 'trust.db'}", {}, folder, devices)
    ]
    for name, emulator in (("DynamoDB", "moto"), ("Firestore", "firestore")):
        try:
            address = emulators.address(emulator)
        except EmulatorMissing as error:
            missing.append(str(error))
            continue
        if name == "DynamoDB":
            env = {
                "AWS_ENDPOINT_URL": f"http://{address}",
                "AWS_DEFAULT_REGION": _REGION,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_LAMBDA_FUNCTION_NAME": "bench",  # as on Lambda, where no key work has a process of its own
                "AWS_CONFIG_FILE": "/dev/null",
                "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            }
            stores.append(
                _prepare_store(name, "documents", f"dynamodb://documents?region={_REGION}", env, folder, devices)
            )
        else:
            stores.append(
                _prepare_store(
                    name, "bench", "firestore://bench", {"FIRESTORE_EMULATOR_HOST": address}, folder, devices
                )
            )
    return stores


def _prepare_store(name: str, place: str, setting: str, env: Mapping[str, str], folder: Path, devices: Fleet) -> Store:
    own = {"TRUST_DATA": str(folder / "data"), "TRUST_DOMAIN": DOMAIN, "TRUST_STORE": setting, **env}
    own["TRUST_RATE_PER_MINUTE"] = "100000"
    own["TRUST_KEYS"] = f"local:{(folder / 'data' / 'keys').resolve()}"
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    whole = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": os.pathsep.join(paths), **own}
    os.environ.update(env)  # for the vendors' clients in this process
    if name == "DynamoDB":
        from tests.support.stores import create_table

        os.environ["AWS_ENDPOINT_URL_DYNAMODB"] = env["AWS_ENDPOINT_URL"]
        create_table(place)
    chosen = Settings.from_env(own)
    if not isinstance(chosen.store, SQLite):  # an emulator answers slowly at first
        chosen = msgspec.structs.replace(chosen, store=msgspec.structs.replace(chosen.store, retry_budget=60.0))
    app = build(chosen)
    try:
        ensure_default(app.context, app.sealer)
        broker = deploy(app, devices.root)
        operator, token = create_key(app.context, org_id=ORG, role=Role.OPERATOR)
    finally:
        app.close()
    keys = {Role.BROKER: broker.authorization, Role.OPERATOR: basic(operator.key, token)}
    return Store(name, place, whole, broker.encode_questions(devices)[0], devices.root.pem, keys)


# ---------------------------------------------------------------------------------------------------------------- rows


def measure(quick: bool) -> list[Row]:
    missing: list[str] = []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-cold-") as name:
        for store in open_stores(Path(name), missing):
            others: dict[str, Pairs] = {}
            for call in list_calls():
                main = call.function in MAIN
                count = (1 if quick else 7) if main else (0 if quick or store.name == "Firestore" else 5)
                if not count:
                    continue
                pairs = _measure_pairs(store, call, count)
                if main:
                    name_ = f"cold start, {call.function} on {store.name}"
                    limit = VERDICT_AT_MOST if call.function == MAIN[0] else AT_MOST
                    rows.append(Row(name_, "bare process", pairs.ratio, limit, figures=pairs.figures))
                else:
                    others[call.function] = pairs
            if others:
                worst = max(others, key=lambda function: others[function].ratio.median)
                figures = {function: Figure(pairs.ratio.median, "") for function, pairs in others.items()}
                name_ = f"cold start on {store.name}, the worst of the other functions ({worst})"
                rows.append(Row(name_, "bare process", others[worst].ratio, AT_MOST, figures=figures))
    rows += [Row("cold start", note=text) for text in missing]
    return rows


@dataclass(frozen=True)
class Pairs:
    """The first answers of a function, each paired with a bare process."""

    first: Sequence[StartCost]
    bare: Sequence[StartCost]

    @property
    def ratio(self) -> Spread:
        return Spread.of([ours.clock / bare.clock for ours, bare in zip(self.first, self.bare, strict=True)])

    @property
    def figures(self) -> dict[str, Figure]:
        cpu = min(cost.cpu for cost in self.first), min(cost.cpu for cost in self.bare)
        return {
            "function": Figure.of([cost.clock for cost in self.first], "ms", scale=1e3),
            "bare": Figure.of([cost.clock for cost in self.bare], "ms", scale=1e3),
            "least CPU": Figure(cpu[0] * 1e3, "ms"),
            "bare's": Figure(cpu[1] * 1e3, "ms"),
        }


def _measure_pairs(store: Store, call: FirstCall, count: int) -> Pairs:
    first, bare = store.first(call), store.bare
    run_process(first, store.env), run_process(bare, store.env)  # writes the byte code and fills the file cache
    ours: list[StartCost] = []
    theirs: list[StartCost] = []
    for turn in range(count):
        for subject in ((ours, first), (theirs, bare))[:: 1 if turn % 2 else -1]:
            subject[0].append(run_process(subject[1], store.env))
    return Pairs(ours, theirs)

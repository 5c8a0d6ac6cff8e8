"""Row 6: an operator looks for a fault with TRUST_LOG=DEBUG, and the log is read by people and by other systems.

The service runs with AWS KMS, as moto emulates it. A recorder between the two notes each plaintext data key that the
key service returns. Neither a data key nor a credential may be in the log.
"""

import base64
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from shared.records import Role
from tests.attacks.rig import attacked
from tests.support import certs
from tests.support.clouds import REGION, Aws

SESSION_TOKEN = "FwoGZXIvYXdzEBYaDEbUFExampleSessionTokenOfThisAttack"
SECRET_ACCESS_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYOfThisAttack"


@dataclass
class Recorder:
    """Forwards requests to *target*, and keeps the plaintext keys in the answers."""

    target: str
    port: int = 0
    data_keys: list[str] = field(default_factory=list)  # base64, as KMS returns them

    def forward(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(self.target, timeout=30)
        try:
            connection.request(handler.command, handler.path, body, dict(handler.headers))
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if handler.headers.get("X-Amz-Target", "").startswith("TrentService."):
            plain = json.loads(data).get("Plaintext")
            self.data_keys += [plain] if plain else []
        handler.send_response(answer.status)
        for name in ("Content-Type", "x-amzn-RequestId"):
            if value := answer.getheader(name):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


@contextmanager
def recording(target: str) -> Iterator[Recorder]:
    recorder = Recorder(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            recorder.forward(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        recorder.port = server.server_port
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()


def test_the_log_at_debug_holds_no_data_key_and_no_credential(tmp_path: Path, aws: Aws) -> None:
    """Also where the client library of the key service logs whole answers at DEBUG."""
    key = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]
    issued = certs.server("alpha1.messaging.iot.example", private=certs.key("P-256", 31))
    with recording(aws.endpoint.removeprefix("http://")) as recorder:
        settings = {
            "TRUST_LOG": "DEBUG",
            "TRUST_KEYS": f"awskms:{key}",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{recorder.port}",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "AWS_SESSION_TOKEN": SESSION_TOKEN,
        }
        with attacked(tmp_path, **settings) as functions:
            operator, edge = functions.create_org("alpha1"), functions.key(Role.EDGE)
            upload = {"certificate": issued.pem, "privateKey": issued.key_pem}
            functions.call(operator, "POST", "/authentication/servercertificates", upload)
            functions.call(operator, "POST", "/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"})
            functions.call(edge, "GET", "//edge/v1/hosts/alpha1.messaging.iot.example")
        logged = (tmp_path / "functions.log").read_text(errors="replace")
    assert '"severity":"INFO"' in logged, "the log is not empty"
    assert len(recorder.data_keys) >= 3, "the key service was asked"
    found = [key for key in recorder.data_keys if key in logged or base64.b64decode(key).hex() in logged]
    assert found == [], f"{len(found)} of {len(recorder.data_keys)} plaintext data keys are in the log"
    assert SESSION_TOKEN not in logged, "the session token is in the log"
    assert SECRET_ACCESS_KEY not in logged
    assert max(issued.key_pem.splitlines(), key=len) not in logged

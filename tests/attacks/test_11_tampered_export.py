"""Row 11: an export of a tenant passes through other hands before the platform's operator imports it.

The attacker adds an API key for a TLS edge of the platform, whose token the attacker knows. With such a key edgeFeed
exports the private keys of every organization.
"""

import hashlib
import http.client
import json
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from tests.attacks.rig import Attacked, attacked
from tests.support import certs

pytestmark = pytest.mark.slow

TOKEN = "known-to-the-attacker"
KEY = {
    "partition": "key/platform",
    "id": "p-attacker00",
    "body": {
        "key": "p-attacker00",
        "role": "edge",
        "token_hash": hashlib.sha256(TOKEN.encode()).hexdigest(),
        "created_at": "2026-01-01T00:00:00Z",
    },
}


def run(functions: Attacked, *words: str) -> tuple[int, str]:
    """Run a command of the operator. Return its exit code and output."""
    command = [sys.executable, "-m", "functions.admin", *words]
    done = subprocess.run(command, cwd=functions.tree, env=functions.env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def ask(functions: Attacked, path: str) -> tuple[int, bytes]:
    """Ask with the attacker's key. Return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", functions.port, timeout=30)
    try:
        key = b64encode(f"{KEY['id']}:{TOKEN}".encode()).decode()
        connection.request("GET", path, headers={"Authorization": f"Basic {key}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def export_tampered(functions: Attacked, file: Path) -> None:
    """Write the export of a tenant, with the attacker's key among its lines."""
    functions.create_org("alpha1")
    code, text = run(functions, "export", "--org", "alpha1")
    assert code == 0, text
    lines = text.splitlines()
    lines.insert(len(lines) // 2, json.dumps(KEY))
    file.write_text("\n".join(lines) + "\n")


def test_a_key_in_a_tampered_export_does_not_work(tmp_path: Path) -> None:
    """The private key of another organization, which the export does not even name, is not exported."""
    file = tmp_path / "export.jsonl"
    issued = certs.server("beta01.messaging.iot.example", private=certs.key("P-256", 31))
    with attacked(tmp_path) as functions:
        export_tampered(functions, file)
        victim = functions.create_org("beta01")
        servers = "/authentication/servercertificates"
        upload = {"certificate": issued.pem, "privateKey": issued.key_pem}
        uploaded = functions.call(victim, "POST", servers, upload)["id"]
        functions.call(victim, "PUT", f"{servers}/active", {"id": uploaded})
        ways = (
            ["import", str(file)],
            ["import", str(file), "--with-keys"],
            ["import", str(file), "--org", "alpha1", "--with-keys"],
            ["import", str(file), "--unsigned"],
            ["import", str(file), "--unsigned", "--org", "alpha1"],
        )
        for way in ways:
            _, said = run(functions, *way)
            status, body = ask(functions, "/edge/v1/hosts/beta01.messaging.iot.example")
            assert b"PRIVATE KEY" not in body, (
                f"{' '.join(way[2:]) or 'import'}: {said.strip()}; the key of beta01 is out"
            )
            assert status == 401, f"{way}: {said}"
        code, said = run(functions, "import", str(file))
        assert code == 1
        assert "was changed" in said

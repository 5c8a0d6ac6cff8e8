"""An OpenID Connect issuer for tests: a real HTTP server that signs real tokens.

issuer.token(org="mtxpd0", role="operator") is valid; a test can change every claim and header. The authorization
endpoint shows a page with one button, so that a browser can complete a sign-in.
"""

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.certs import PrivateKey, key

AUDIENCE = "https://trust.example.com"
CLIENT = "console"


class Issuer:
    """The issuer's keys, documents and settings, and a count of the requests by path."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, PrivateKey] = {"first": key("RSA-2048", 900)}
        self.more_keys: list[dict[str, Any]] = []  # appended to the key set as they are
        self.asked: Counter[str] = Counter()
        self.discovery: dict[str, Any] = {}  # overrides in the discovery document
        self.redirect_keys_to: str | None = None
        self.down = False
        self.silent: threading.Event | None = None  # no answer is sent before it is set
        self.person = {"sub": "anna", "org": "mtxpd0", "role": "operator"}
        self._codes: dict[str, dict[str, str]] = {}

    def token(
        self,
        *,
        signer: str | PrivateKey = "first",
        algorithm: str = "RS256",
        headers: dict[str, Any] | None = None,
        secret: bytes | None = None,
        **claims: Any,
    ) -> str:
        """Return a signed token. A claim that is None is left out."""
        payload = self.claims(**claims)
        private = secret if secret is not None else self.keys[signer] if isinstance(signer, str) else signer
        kid = {"kid": signer} if isinstance(signer, str) else {"kid": "first"}
        return jwt.encode(payload, private, algorithm=algorithm, headers={**kid, **(headers or {})})

    def claims(self, **claims: Any) -> dict[str, Any]:
        now = int(time.time())
        payload = {"iss": self.url, "aud": AUDIENCE, "iat": now, "exp": now + 300, **self.person, **claims}
        return {name: value for name, value in payload.items() if value is not None}

    def public_pem(self, name: str = "first") -> bytes:
        public = self.keys[name].public_key()
        return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def jwks(self) -> dict[str, Any]:
        keys = [jwk(name, private) for name, private in self.keys.items()]
        return {"keys": [*keys, *self.more_keys]}

    # ------------------------------------------------------------------------------------------------- HTTP pages

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, str]) -> tuple[int, str, str, str]:
        """Return (status, content type, location, body) of one request."""
        self.asked[path] += 1
        if self.down:
            return 503, "text/plain", "", "down"
        if path == "/.well-known/openid-configuration":
            document = {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
            }
            return 200, "application/json", "", json.dumps({**document, **self.discovery})
        if path == "/keys":
            if self.redirect_keys_to:
                return 302, "text/plain", self.redirect_keys_to, ""
            return 200, "application/json", "", json.dumps(self.jwks())
        if path == "/authorize":
            return 200, "text/html", "", self._ask(query)
        if path == "/approve":
            code = secrets.token_hex(8)
            self._codes[code] = query
            return (
                302,
                "text/plain",
                f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}",
                "",
            )
        if path == "/token" and method == "POST":
            return self._exchange(body)
        return 404, "text/plain", "", "not here"

    def _ask(self, query: dict[str, str]) -> str:
        ok = query.get("code_challenge_method") == "S256" and query.get("nonce") and query.get("state")
        fields = "".join(f'<input type=hidden name="{n}" value="{html.escape(v)}">' for n, v in query.items())
        form = f"<form action=/approve>{fields}<button>I am Anna</button></form>" if ok else "<p>bad request</p>"
        return f"<!doctype html><title>Issuer</title><link rel=icon href=data:,><h1>Issuer</h1>{form}"

    def _exchange(self, body: dict[str, str]) -> tuple[int, str, str, str]:
        asked = self._codes.pop(body.get("code", ""), None)
        digest = hashlib.sha256(body.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != body.get("redirect_uri"):
            return 400, "application/json", "", json.dumps({"error": "invalid_grant"})
        id_token = self.token(aud=CLIENT, nonce=asked["nonce"])
        tokens = {"access_token": self.token(), "id_token": id_token, "token_type": "Bearer", "expires_in": 300}
        return 200, "application/json", "", json.dumps(tokens)


def jwk(name: str, private: PrivateKey) -> dict[str, Any]:
    """Return the public half of *private* as a JSON Web Key (RFC 7517)."""
    match private:
        case rsa.RSAPrivateKey():
            public = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case ec.EllipticCurvePrivateKey():
            public = jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case _:
            raise TypeError(private)
    return {**public, "kid": name, "use": "sig"}


@contextmanager
def run_issuer() -> Iterator[Issuer]:
    """Run the issuer on a free port of this machine."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length", 0))
            body = {k: v[0] for k, v in parse_qs(self.rfile.read(length).decode()).items()}
            query = {k: v[0] for k, v in parse_qs(parts.query).items()}
            status, kind, location, text = issuer.answer(self.command, parts.path, query, body)
            if issuer.silent is not None:
                issuer.silent.wait(30)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(text.encode())))
            self.send_header("access-control-allow-origin", "*")
            if location:
                self.send_header("location", location)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = _reply  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)

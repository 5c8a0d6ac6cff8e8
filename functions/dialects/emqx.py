"""EMQX 5 and 6: the HTTP authenticator (docs.emqx.com, Access Control, Authentication, "Use HTTP Service").

EMQX reads 4xx and 5xx as `ignore` and lets a later authenticator decide, so every reply is 200.

EMQX sends a placeholder that it does not know as the text of its template: `${cert_pem}` before EMQX 5.7.1. Only that
text of docs/brokers/emqx.md, and only in a field that no client chooses, counts as a value that EMQX does not know.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from functions.call import Call
from functions.dialects import dialect
from functions.dialects.dialect import EncodingDialect, Names, json_reply, peek, question
from functions.web.message import Reply, Request
from shared.usecases.devices.verify import verify_client, verify_names
from shared.validation.policy import Decision
from shared.validation.presented import ConnectingClient
from shared.validation.topics import TopicPrefix
from shared.validation.verdict import Verdict
from shared.validation.verdict_by_name import NamedClient

# `#` covers no topic that begins with `$` (MQTT 5.0, 4.7.2). Each of these has a meaning of its own in EMQX: a delayed
# message reaches any topic, and $SYS names the other clients. EMQX lists them as "system topics" and in the pages on
# delayed publish, exclusive and shared subscriptions, file transfer and event messages.
_DOLLAR_TOPICS: Final = (
    "$SYS/#",
    "$delayed/#",
    "$event/#",
    "$events/#",
    "$exclusive/#",
    "$file/#",
    "$file-response/#",
    "$q/#",
    "$queue/#",
    "$s/#",
    "$share/#",
    "$stream/#",
)

_RESULT: Final = {Decision.ALLOW: "allow", Decision.DENY: "deny", Decision.CONTINUE: "ignore"}


class _Rule(msgspec.Struct):
    permission: str
    action: str
    topic: str


class _Answer(msgspec.Struct, omit_defaults=True):
    """EMQX's answer. *expire_at* and *acl* are read since EMQX 5.8.0."""

    result: str
    is_superuser: bool | None = None
    expire_at: int | None = None
    acl: tuple[_Rule, ...] = ()


def _answer(verdict: Verdict, topics: TopicPrefix | None = None) -> Reply:
    """Return EMQX's answer; with the client's own topics, if *topics* is given.

    EMQX admits whatever client ID it asked about, so a verdict that no client ID is bound to denies.
    """
    is_unbound = verdict.decision is Decision.ALLOW and not verdict.bound
    answer = _Answer(_RESULT[Decision.DENY if is_unbound else verdict.decision])
    if verdict.decision is Decision.ALLOW and not is_unbound:
        answer.is_superuser = False
        if verdict.expires_at is not None:
            answer.expire_at = int(verdict.expires_at.timestamp())
        if topics is not None and verdict.identity is not None and verdict.org_id is not None:
            prefix = topics.of(verdict.org_id, verdict.identity)
            denied = (_Rule("deny", "all", topic) for topic in ("#", *_DOLLAR_TOPICS))
            answer.acl = (_Rule("allow", "all", f"{prefix}#"), *denied)
    return json_reply(answer)


class _Names(Names, frozen=True):
    """The names in a question."""

    server_name: str | None = msgspec.field(default=None, name="serverName")
    client_id: str | None = msgspec.field(default=None, name="clientid")


class _EMQX(EncodingDialect):
    def encode(self, verdict: Verdict) -> Reply:
        return _answer(verdict)

    def names(self, request: Request) -> Names:
        return peek(request, _Names)


DIALECT: Final = _EMQX()


@question("GET", "POST", paths=["emqx"], summary="EMQX: the HTTP authenticator's question", statuses=[200])
def ask(call: Call) -> Reply:
    """Judge the certificate if the template sends `${cert_pem}` (since EMQX 5.7.1), else the names."""
    return _answer(_verdict(call), call.verifier.topic_prefix)


def _verdict(call: Call) -> Verdict:
    fields = dialect.read_fields(call.request)
    client_id = dialect.read_name(fields, "clientid")
    leaf = dialect.read_certificate(_read(fields, "cert_pem"), "cert_pem")
    common_name = _read(fields, "cert_common_name")
    if leaf is None and common_name is not None:
        named = NamedClient(common_name, client_id, listeners=dialect.read_listeners(call.request))
        return verify_names(call.verifier, call.credentials, named)
    client = ConnectingClient(
        server_name=_read(fields, "serverName"),
        client_id=client_id,
        certificate=leaf,
        tls=fields.get("tls") not in (False, "false"),
        leaf_only=True,
    )
    return verify_client(call.verifier, call.credentials, client)


def _read(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a field that EMQX fills in, not the client; None for a value or placeholder that EMQX does not know.

    Raises: WrongValue."""
    value = dialect.read_text(fields, name)
    return None if value == f"${{{name}}}" else value

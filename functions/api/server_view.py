"""A messaging server certificate as replies show it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from functions.api.certificate_view import (
    CertificateView,
    Stamped,
    Warned,
    certificate_fields,
    certificate_view,
    stamp_fields,
    warnings_view,
)
from functions.call import MemberCall
from shared.records import DEFAULT, Org
from shared.usecases.edges.reports import is_served_since
from shared.usecases.servers.documents import ParsedServerCertificate
from shared.usecases.servers.rules import served_hosts
from shared.validation.notices import Notice
from shared.x509.public_keys import describe_key


class ServerView(Stamped, frozen=True, kw_only=True):
    """A messaging server certificate, or a request that waits for its signature (status `csr`)."""

    id: str
    status: str  # "certificate" or "csr"
    source: str  # "default", "upload" or "csr"
    active: bool
    served_since: datetime | None
    names: tuple[str, ...]
    hosts: tuple[str, ...]  # the hosts of the organization that the certificate covers
    chain: tuple[CertificateView, ...]
    subject: str
    issuer: str | None
    serial_number: str | None
    not_before: datetime | None
    not_after: datetime | None
    fingerprint_sha256: str | None = msgspec.field(name="fingerprintSha256")
    key_algorithm: str
    comments: str
    csr: str | None  # PEM
    warnings: tuple[Warned, ...] | UnsetType = UNSET


def server_view(
    call: MemberCall, server: ParsedServerCertificate, warnings: Sequence[Notice] | None = None
) -> ServerView:
    """Return the server certificate, or the request, as a reply shows it."""
    org = call.member.org
    return ServerView(
        id=server.id,
        status="certificate" if server.leaf else "csr",
        source=server.source.value,
        active=org.activation.active == server.id,
        served_since=_served_since(server, org),
        names=tuple(server.names),
        hosts=tuple(served_hosts(call.context, org, server.leaf)),
        chain=tuple(certificate_view(cert) for cert in server.chain),
        comments=server.comments,
        csr=server.csr_pem,
        warnings=UNSET if warnings is None else warnings_view(warnings),
        **_leaf_fields(server),
        **stamp_fields(server.changed),
    )


def _leaf_fields(server: ParsedServerCertificate) -> dict[str, Any]:
    if server.leaf is not None:
        return certificate_fields(server.leaf)
    return {
        "subject": server.subject,
        "issuer": None,
        "serial_number": None,
        "not_before": None,
        "not_after": None,
        "fingerprint_sha256": None,
        "key_algorithm": describe_key(server.public_key),
    }


def _served_since(server: ParsedServerCertificate, org: Org) -> datetime | None:
    """Return when an edge first served the certificate since its activation; None while no edge does.

    The default certificate serves hosts beside the active one, so its date does not depend on an activation.
    """
    if server.id == DEFAULT:
        return server.served_since
    activated = org.activation.activated_at if org.activation.active == server.id else None
    return server.served_since if activated is not None and is_served_since(server.served_since, activated) else None

"""Judge live sessions again: which of them would be refused now.

An edge asks after a withdrawal, about the sessions that the withdrawal may concern. The documents of each organization
are read once for all its sessions: settings, CAs, deny list.
"""

import time
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from shared.records import DenialKind, Org
from shared.repository import Batch
from shared.usecases.callers import Credentials
from shared.usecases.cas.documents import CACertificates, is_trusted
from shared.usecases.context import Context
from shared.usecases.denials import DenyList
from shared.usecases.edges.callers import authenticate_edge
from shared.usecases.organization import Organization
from shared.validation.session import FINGERPRINT_DIGITS, Session, SessionFacts, find_refusal
from shared.x509.cache import read_registered
from shared.x509.digests import key_digest, serial_digest

SESSIONS_MAX: Final = 500  # in one call
_SECONDS: Final = 1.5  # for the documents of all organizations: the edge waits 2 s


def recheck(context: Context, credentials: Credentials, sessions: Sequence[Session]) -> list[bool]:
    """Return for each of *sessions* whether its client would be refused now.

    A session of an organization that is not the caller's would be refused. So would the sessions of organizations whose
    documents could not be read in time.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable.
    """
    deadline = time.monotonic() + _SECONDS
    org_ids = sorted({session.org_id for session in sessions})
    refs = [Organization(context.repository, org_id).ref for org_id in org_ids]
    caller, documents = authenticate_edge(context, credentials, *refs)
    own_ids = [org_id for org_id in org_ids if caller.scope.may_ask_about(org_id)]
    refused: dict[str, Collection[int]] = {}
    for org_id in own_ids:
        if time.monotonic() < deadline:
            own = [(number, session) for number, session in enumerate(sessions) if session.org_id == org_id]
            facts = _read_facts(context, org_id, documents)
            refused[org_id] = {number for number, session in own if _is_refused(context, session, facts)}
    return [
        session.org_id not in refused or number in refused[session.org_id] for number, session in enumerate(sessions)
    ]


def _is_refused(context: Context, session: Session, facts: SessionFacts | None) -> bool:
    return find_refusal(session, facts, platform_domain=context.platform_domain) is not None


def _read_facts(context: Context, org_id: str, documents: Batch) -> SessionFacts | None:
    """Return what must be known of an organization, whose document is in *documents*; None where it does not exist."""
    org = documents.get(Organization(context.repository, org_id).ref)
    return None if org is None else read_session_facts(context, org, at=context.clock())


def read_session_facts(context: Context, org: Org, *, at: datetime) -> SessionFacts:
    """Return what must be known of *org* to judge its sessions. Reads every CA and every entry of the deny list.

    Raises: StoreUnavailable.
    """
    valid: set[str] = set()
    invalid: set[str] = set()
    ca_keys: dict[str, str] = {}
    for ca_id, ca in CACertificates(context.repository, org.org_id).iterate():
        ca_keys[ca_id] = key_digest(read_registered(ca.der))
        (valid if is_trusted(ca, at) else invalid).add(ca_keys[ca_id])
    identities: set[str] = set()
    fingerprints: set[str] = set()
    serials: set[str] = set()
    for denial in DenyList(context.repository, org.org_id).iterate():
        match denial.kind:
            case DenialKind.IDENTITY:
                identities.add(denial.value)
            case DenialKind.FINGERPRINT:
                fingerprints.add(denial.value[:FINGERPRINT_DIGITS])
            case DenialKind.SERIAL:
                serial = int(denial.value.partition(":")[2], 16)
                serials.add(serial_digest(denial.issuer_key_hash or "", serial))
    return SessionFacts(
        suspended=org.suspended,
        custom_domains=org.settings.domains,
        type_certificates=org.settings.type_certificates,
        policy=org.policy,
        valid_keys=valid,
        invalid_keys=invalid,
        ca_keys=ca_keys,
        denied_identities=identities,
        denied_fingerprints=fingerprints,
        denied_serials=serials,
    )

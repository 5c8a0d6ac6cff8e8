"""Judge live sessions again: which of them would be refused now.

An edge asks after a withdrawal, about the sessions that the withdrawal may concern. The documents of each organization
are read once for all its sessions: settings, CAs, deny list.
"""

import time
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from shared.batch import Batch
from shared.records import DenialKind, Org
from shared.refs import org_ref
from shared.usecases.callers import Credentials
from shared.usecases.cas.documents import CACertificates, is_trusted
from shared.usecases.context import Context
from shared.usecases.denials import DenyList
from shared.usecases.edges.callers import authenticate_edge
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
    caller, documents = authenticate_edge(context, credentials, *map(org_ref, org_ids))
    refused: dict[str, Collection[int]] = {}
    for org_id in org_ids:
        org = _find_org(documents, org_id)
        if not caller.scope.may_ask_about(org_id, org.incarnation if org else None):
            continue
        if time.monotonic() < deadline:
            own = [(number, session) for number, session in enumerate(sessions) if session.org_id == org_id]
            facts = None if org is None else read_session_facts(context, org, at=context.clock())
            refused[org_id] = {number for number, session in own if _is_refused(context, session, facts)}
    return [
        session.org_id not in refused or number in refused[session.org_id] for number, session in enumerate(sessions)
    ]


def _is_refused(context: Context, session: Session, facts: SessionFacts | None) -> bool:
    return find_refusal(session, facts, platform_domain=context.platform_domain) is not None


def _find_org(documents: Batch, org_id: str) -> Org | None:
    """Return the organization, whose document is in *documents*; None where it does not exist."""
    org = documents.get(org_ref(org_id))
    return org if org is not None and org.deletion is None else None


def read_session_facts(context: Context, org: Org, *, at: datetime) -> SessionFacts:
    """Return what must be known of *org* to judge its sessions. Reads every CA and every entry of the deny list.

    Raises: StoreUnavailable.
    """
    valid: set[str] = set()
    invalid: set[str] = set()
    ca_keys: dict[str, str] = {}
    for ca_id, ca in CACertificates(context.of(org)).iterate():
        ca_keys[ca_id] = key_digest(read_registered(ca.der))
        (valid if is_trusted(ca, at) else invalid).add(ca_keys[ca_id])
    identities: set[str] = set()
    fingerprints: set[str] = set()
    serials: set[str] = set()
    for denial in DenyList(context.of(org)).iterate():
        match denial.kind:
            case DenialKind.IDENTITY:
                identities.add(denial.value)
            case DenialKind.FINGERPRINT:
                fingerprints.add(denial.value[:FINGERPRINT_DIGITS])
            case DenialKind.SERIAL:
                serial = int(denial.value.partition(":")[2], 16)
                serials.add(serial_digest(denial.issuer_key_hash or "", serial))
    return SessionFacts(
        incarnation=org.incarnation,
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

"""Judge live sessions again: which of them would be refused now.

An edge asks after a withdrawal, about the sessions that the withdrawal may concern. The documents of each organization
are read once for all its sessions: settings, CAs, deny list. One question may concern several organizations. So the
small ones are read first, and no organization takes more time than its share of what is left.
"""

import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Final

from shared.batch import Batch
from shared.records import CAStatus, DenialKind, Org
from shared.refs import Ref, ca_index_ref, deny_count_ref, org_ref
from shared.usecases.callers import Credentials
from shared.usecases.cas.documents import CACertificates, is_trusted, list_replacing
from shared.usecases.context import Context
from shared.usecases.denials import DenyList
from shared.usecases.edges.callers import authenticate_edge
from shared.validation.ca import has_no_limits
from shared.validation.names import is_org_id
from shared.validation.session import FINGERPRINT_DIGITS, Session, SessionFacts, find_refusal
from shared.x509.cache import read_registered
from shared.x509.digests import serial_digest

SESSIONS_MAX: Final = 500  # in one call
_SECONDS: Final = 1.5  # for the documents of all organizations: the edge waits 2 s
_DENIALS_PER_CA: Final = 10  # that take as long to read as a CA, roughly


class _OutOfTime(Exception):
    """The documents of an organization could not be read in its share of the time."""


def recheck(context: Context, credentials: Credentials, sessions: Sequence[Session]) -> list[bool]:
    """Return for each of *sessions* whether its client would be refused now.

    A session of an organization that is not the caller's would be refused. So would the sessions of organizations whose
    documents could not be read in time.

    Raises: NotAuthenticated, Forbidden, StoreUnavailable.
    """
    deadline = time.monotonic() + _SECONDS
    org_ids = {session.org_id for session in sessions if is_org_id(session.org_id)}
    caller, documents = authenticate_edge(context, credentials, *_refs_of(org_ids))
    ordered = sorted(org_ids, key=lambda org_id: (_size(documents, org_id) if len(org_ids) > 1 else 0, org_id))
    refused: dict[str, Collection[int]] = {}
    for done, org_id in enumerate(ordered):
        org = _find_org(documents, org_id)
        if not caller.scope.may_ask_about(org_id, org.incarnation if org else None):
            continue
        check_time = _limit_time((deadline - time.monotonic()) / (len(ordered) - done))
        try:
            facts = None if org is None else _read_session_facts(context, org, context.clock(), check_time)
        except _OutOfTime:
            continue
        own = [(number, session) for number, session in enumerate(sessions) if session.org_id == org_id]
        refused[org_id] = {number for number, session in own if _is_refused(context, session, facts)}
    return [
        session.org_id not in refused or number in refused[session.org_id] for number, session in enumerate(sessions)
    ]


def _refs_of(org_ids: Collection[str]) -> list[Ref[Any]]:
    """Return the organizations and, where there are several, what tells their sizes."""
    refs: list[Ref[Any]] = [*map(org_ref, org_ids)]
    if len(org_ids) > 1:
        refs += [*map(ca_index_ref, org_ids), *map(deny_count_ref, org_ids)]
    return refs


def _size(documents: Batch, org_id: str) -> int:
    """Return about how much there is to read of an organization, in entries of the deny list."""
    index, count = documents.get(ca_index_ref(org_id)), documents.get(deny_count_ref(org_id))
    return (len(index.cas) * _DENIALS_PER_CA if index else 0) + (count.entries if count else 0)


def _limit_time(seconds: float) -> Callable[[], None]:
    """Return a function that raises _OutOfTime from now + *seconds* on."""
    deadline = time.monotonic() + seconds

    def check_time() -> None:
        if time.monotonic() >= deadline:
            raise _OutOfTime

    return check_time


def _is_refused(context: Context, session: Session, facts: SessionFacts | None) -> bool:
    return find_refusal(session, facts, platform_domain=context.platform_domain) is not None


def _find_org(documents: Batch, org_id: str) -> Org | None:
    """Return the organization, whose document is in *documents*; None where it does not exist."""
    org = documents.get(org_ref(org_id))
    return org if org is not None and org.deletion is None else None


def _read_session_facts(context: Context, org: Org, at: datetime, check_time: Callable[[], None]) -> SessionFacts:
    """Return what must be known of *org* to judge its sessions. Reads every CA and every entry of the deny list.

    Raises: StoreUnavailable, and what *check_time* raises.
    """
    valid: set[str] = set()
    inactive: set[str] = set()
    unlimited: set[str] = set()
    vouched: set[str] = set()
    ca_keys: dict[str, str] = {}
    for document in CACertificates(context.of(org)).iterate_documents():
        for ca_id, ca in document.cas.items():
            check_time()  # a CA of many names takes milliseconds to read
            cert = read_registered(ca.der)
            ca_keys[ca_id] = cert.key_digest
            if is_trusted(ca, at):
                valid.add(ca_keys[ca_id])
                if has_no_limits(cert):
                    unlimited.add(ca_keys[ca_id])
            if is_trusted(ca, at) or list_replacing(document.cas, ca_id, at):
                vouched.add(ca_id)
            if ca.status is CAStatus.INACTIVE:
                inactive.add(ca_keys[ca_id])
    identities: set[str] = set()
    fingerprints: set[str] = set()
    serials: set[str] = set()
    keys: set[str] = set()
    for denial in DenyList(context.of(org)).iterate():
        check_time()
        match denial.kind:
            case DenialKind.KEY:
                keys.add(denial.key_digest or "")
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
        inactive_keys=inactive,
        ca_keys=ca_keys,
        unlimited_keys=unlimited,
        vouched_cas=vouched,
        denied_identities=identities,
        denied_fingerprints=fingerprints,
        denied_serials=serials,
        denied_keys=keys,
    )

"""activateServerCert: choose the server certificate that devices are shown."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from shared.errors import NotFound, RequestNotFulfilled
from shared.records import DEFAULT, Activation, Org
from shared.repository import org_ref
from shared.usecases.callers import Member
from shared.usecases.context import Context, check_version, entry, touched
from shared.usecases.edges.hosts import publish_hosts
from shared.usecases.servers.documents import ParsedServerCertificate, checked, get_server, place_of, served_hosts
from shared.validation.notices import Notice
from shared.validation.server_cert import is_chain_complete, root_of
from shared.x509.certificate import Certificate
from shared.x509.text import format_time


class Activated(msgspec.Struct, frozen=True):
    """What is active (or, after a preflight, what would be), and what to know of it."""

    activation: Activation
    version: str
    hosts: Sequence[str]
    not_after: datetime
    chain_complete: bool
    warnings: Sequence[Notice]


def activate_server_cert(
    context: Context, member: Member, certificate_id: str, *, seen: str | None = None, dry_run: bool = False
) -> Activated:
    """Show *certificate_id* to devices from now on; the one shown so far becomes `previous`.

    Activating the active one changes nothing. A pointer in the org's document, swapped by compare-and-set: exactly
    one is active at any instant, under any number of callers.

    Args:
        seen: the version of the activation the caller saw; None overrides.
        dry_run: the preflight: the same answer, and nothing is changed.

    Raises: NotFound, RequestNotFulfilled, CertificateExpired, CertificateNotYetValid, HostMismatch, Stale."""
    at = context.clock()
    wanted = get_server(context.repository, member.org, certificate_id)

    def alter(before: Org | None) -> Org:
        if before is None:
            raise NotFound(what="such organization")
        place_of(before, certificate_id)  # it may have been deleted since it was read
        check_version(before.activation_changed, seen)
        _check(context, before, wanted, at)
        active = before.activation.active
        if active == certificate_id:
            return before
        return msgspec.structs.replace(
            before,
            activation=Activation(certificate_id, previous=active, activated_at=at),
            activation_changed=touched(before.activation_changed, at, member.who),
            outbox=(entry(at, member.who, "activateServerCert", certificate=certificate_id, previous=active),),
        )

    if dry_run:
        org: Org | None = alter(member.org)
    else:
        org = context.repository.change(org_ref(member.org_id), alter, org_id=member.org_id)
        publish_hosts(context, member.org_id)  # also where nothing changed: who repeats a call that was cut short
    assert org is not None  # noqa: S101 - alter never removes
    return _told(context, org, member.org, wanted, at)


def active_of(org: Org) -> tuple[Activation, str]:
    """What is active, and its version."""
    return org.activation, org.activation_changed.version


def _check(context: Context, org: Org, wanted: ParsedServerCertificate, at: datetime) -> None:
    if wanted.leaf is None:
        raise RequestNotFulfilled
    if wanted.id == DEFAULT:
        wanted.leaf.check_dates(at)
    else:
        checked(context, org, wanted.leaf, wanted.chain, at)  # a custom domain may have gone, a key become weak


def _told(context: Context, org: Org, before: Org, wanted: ParsedServerCertificate, at: datetime) -> Activated:
    leaf = wanted.leaf
    assert leaf is not None  # noqa: S101 - _check has refused otherwise
    complete = is_chain_complete(leaf, wanted.chain)
    warnings = [] if wanted.id == DEFAULT else checked(context, org, leaf, wanted.chain, at)
    warnings += _new_root(context, before, wanted, leaf)
    if (left := (leaf.not_after - at).days) < 30:
        warnings.append(Notice("ends_soon", f"It ends {format_time(leaf.not_after)}, in {left} days."))
    return Activated(
        org.activation,
        org.activation_changed.version,
        served_hosts(context, org, leaf),
        leaf.not_after,
        complete,
        warnings,
    )


def _new_root(context: Context, before: Org, wanted: ParsedServerCertificate, leaf: Certificate) -> list[Notice]:
    """Devices that pin the root of what they are shown now must be told, where the new one has another."""
    if before.activation.active == wanted.id:
        return []
    try:
        now = get_server(context.repository, before, before.activation.active)
    except NotFound:
        return []
    if now.leaf is None:
        return []
    (old_digest, old_name), (new_digest, new_name) = root_of(now.leaf, now.chain), root_of(leaf, wanted.chain)
    if old_digest == new_digest:
        return []
    return [
        Notice(
            "new_root",
            f"New root {new_name}. Devices that trust only {old_name} will not connect; give them the new root first.",
        )
    ]

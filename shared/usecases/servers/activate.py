"""activateServerCert: choose the server certificate that devices receive."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from shared.batch import Batch
from shared.errors import NotFound
from shared.records import DEFAULT, Activation, Org
from shared.text import format_time
from shared.usecases.callers import Member
from shared.usecases.context import Context, check_version, make_entry, update_revision
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.organization import Organization
from shared.usecases.servers.documents import ParsedServerCertificate, ServerCertificates
from shared.usecases.servers.rules import check_for_org, served_hosts
from shared.validation.notices import Notice
from shared.validation.server_cert import is_chain_complete, root_of
from shared.x509.certificate import Certificate

_SOON_DAYS = 30


class ActivationResult(msgspec.Struct, frozen=True):
    """What is active, or what would be active after a preflight, with warnings."""

    activation: Activation
    version: str
    hosts: Sequence[str]
    not_after: datetime
    is_chain_complete: bool
    warnings: Sequence[Notice]


def activate_server_cert(
    context: Context,
    member: Member,
    certificate_id: str,
    *,
    expected_version: str | None = None,
    dry_run: bool = False,
) -> ActivationResult:
    """Activate a server certificate; the certificate that was active until now becomes `previous`.

    Activating the active certificate changes nothing. `activation` is a field of the organization's document, which
    changes by compare-and-set: exactly one certificate is active at any time.

    Args:
        expected_version: the version of the activation in If-Match; None overrides.
        dry_run: return the same result and change nothing (the preflight).

    Raises: NotFound, RequestNotFulfilled, CertificateExpired, CertificateNotYetValid, HostMismatch, Stale, TooBusy,
        StoreUnavailable.
    """
    at = context.clock()
    servers, hosts = ServerCertificates(context.of(member.org)), HostFeed(context)
    replaced_id = member.org.activation.active
    # The hosts are read before the organization changes: `HostFeed.publish_change` needs this order.
    documents = context.repository.read_batch(
        [servers.ref(certificate_id), servers.ref(replaced_id), hosts.ref(member.org_id)]
    )
    parsed = servers.pick(documents, member.org, certificate_id)
    if dry_run:
        warnings = _check(context, member.org, parsed, expected_version, at)
        org = _activate(member.org, certificate_id, at, member.who)
    else:
        for attempt in Organization(context.of(member.org)).changing():
            with attempt as stored:
                servers.check_listed(stored, certificate_id)  # the certificate may have been deleted meanwhile
                warnings = _check(context, stored, parsed, expected_version, at)
                org = _activate(stored, certificate_id, at, member.who)
                if org is not stored:
                    previous = stored.activation.active
                    activity = make_entry(
                        at, member.who, "activateServerCert", certificate=certificate_id, previous=previous
                    )
                    attempt.write(org, activity=activity)
        hosts.publish_change(org, documents)  # also when an interrupted call is repeated
    leaf = parsed.certificate
    if replaced_id != certificate_id:
        warnings += _warn_of_new_root(servers, documents, member.org, leaf, parsed.chain)
    days_left = (leaf.not_after - at).days
    if days_left < _SOON_DAYS:
        message = f"It ends {format_time(leaf.not_after)}, in {days_left} days."
        warnings.append(Notice("ends_soon", message))
    return ActivationResult(
        org.activation,
        org.activation_changed.version,
        served_hosts(context, org, leaf),
        leaf.not_after,
        is_chain_complete(leaf, parsed.chain),
        warnings,
    )


def get_activation(org: Org) -> tuple[Activation, str]:
    """Return what is active in *org*, and the version of the activation."""
    return org.activation, org.activation_changed.version


def _activate(org: Org, certificate_id: str, at: datetime, who: str) -> Org:
    """Return *org* with *certificate_id* active; the same object if the certificate is active already."""
    if org.activation.active == certificate_id:
        return org
    return msgspec.structs.replace(
        org,
        activation=Activation(certificate_id, previous=org.activation.active, activated_at=at),
        activation_changed=update_revision(org.activation_changed, at, who),
    )


def _check(
    context: Context, org: Org, parsed: ParsedServerCertificate, expected_version: str | None, at: datetime
) -> list[Notice]:
    """Refuse a certificate that *org* must not present to devices, and return warnings.

    The rules of an upload apply again: a custom domain may be gone since then, or a key may be known as weak.

    Raises: Stale, RequestNotFulfilled, Rejected (`shared.validation.server_cert`).
    """
    check_version(org.activation_changed, expected_version)
    if parsed.id == DEFAULT:
        parsed.certificate.check_dates(at)
        return []
    return check_for_org(context, org, parsed.certificate, parsed.chain, at)


def _warn_of_new_root(
    servers: ServerCertificates, documents: Batch, org: Org, leaf: Certificate, chain: Sequence[Certificate]
) -> list[Notice]:
    """Return a warning if the chain leads to another root than the active certificate's: devices may pin the root."""
    try:
        active = servers.pick(documents, org, org.activation.active)
    except NotFound:
        return []
    if active.leaf is None:
        return []
    (old_digest, old_name), (new_digest, new_name) = root_of(active.leaf, active.chain), root_of(leaf, chain)
    if old_digest == new_digest:
        return []
    message = f"New root {new_name}. Devices that trust only {old_name} will not connect; give them the new root first."
    return [Notice("new_root", message)]

"""Find what is unsafe in an installation, and what an upgrade changes: `functions.admin check`.

Each check is a function that yields findings, and `CHECKS` lists the checks. A check reads and never writes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from shared.records import Proof, Role
from shared.usecases.context import Context
from shared.usecases.organization import iterate_organizations, iterate_tombstones
from shared.usecases.orgs.api_keys import list_keys
from shared.validation.topics import DEVICE_PREFIX, GATEWAY_PREFIX, names_class, names_org


class Finding(msgspec.Struct, frozen=True):
    """One thing that the platform's operator should know.

    Args:
        code: names the kind of finding, for scripts.
        found: a sentence that says what was found.
        advice: a sentence that says what to do.
        is_unsafe: whether the installation is less safe than it could be. Otherwise only the behaviour changed.
    """

    code: str
    found: str
    advice: str
    is_unsafe: bool = False


Check = Callable[[Context], Iterator[Finding]]
"""Yields the findings of one kind in the store of a context."""


def check_installation(context: Context, checks: Iterable[Check]) -> list[Finding]:
    """Return the findings of *checks*, in their order.

    Args:
        checks: `CHECKS`, and checks of what only the caller knows, such as its settings.

    Raises: StoreUnavailable.
    """
    return [finding for check in checks for finding in check(context)]


def _check_broker_keys(context: Context) -> Iterator[Finding]:
    """Yield the keys that prove names on every listener of their broker."""
    for org in iterate_organizations(context.repository):
        for key in list_keys(context, org.org_id):
            if key.revoked_at is None and key.proof is Proof.BROKER and key.listener is None:
                yield Finding(
                    "key_names_no_listener",
                    f"The key {key.key} proves names on every listener of its broker.",
                    "Make a key with --proof broker --listener NAME (docs/brokers), and revoke this key.",
                    is_unsafe=True,
                )


def _check_deletions(context: Context) -> Iterator[Finding]:
    """Yield the deletions that were cut short."""
    for tombstone in iterate_tombstones(context.repository):
        if tombstone.is_deleting:
            yield Finding(
                "deletion_unfinished",
                f"The deletion of {tombstone.org_id} was cut short, or is in progress.",
                f"Repeat `org delete {tombstone.org_id}`, or run `sweep`.",
                is_unsafe=True,
            )


def _check_scoped_keys(context: Context) -> Iterator[Finding]:
    """Yield the platform keys for an organization that was deleted."""
    incarnations = {org.org_id: org.incarnation for org in iterate_organizations(context.repository)}
    for key in list_keys(context, None):
        for org_id in key.orgs if key.revoked_at is None else ():
            if incarnations.get(org_id) != key.incarnations.get(org_id, ""):
                yield Finding(
                    "key_of_a_deleted_org",
                    f"The key {key.key} was made for an organization {org_id} that was deleted.",
                    "The key does nothing for another organization of that id. Revoke it.",
                )


def check_topics(template: str | None, *, one_org_per_broker: bool) -> Check:
    """Return the check of the settings of topics.

    Args:
        template: TRUST_TOPIC_PREFIX, or None.
        one_org_per_broker: TRUST_ONE_ORG_PER_BROKER.
    """

    def check(context: Context) -> Iterator[Finding]:
        if template is None:
            yield Finding(
                "gateway_topics",
                f"Gateways have topics under {GATEWAY_PREFIX} and devices under {DEVICE_PREFIX}; version 0.1.0 had "
                f"{DEVICE_PREFIX} for both.",
                f"To keep the topics of gateways, set TRUST_TOPIC_PREFIX={DEVICE_PREFIX}; then a gateway and a device "
                "of the same type and id share topics.",
            )
            return
        if not names_class(template):
            yield Finding(
                "topics_of_two_classes",
                f"With TRUST_TOPIC_PREFIX={template} a gateway and a device of the same type and id share topics.",
                "Add {class} to it, or remove the setting.",
                is_unsafe=True,
            )
        if not names_org(template) and one_org_per_broker:
            for key in list_keys(context, None):
                if key.role is Role.BROKER and key.revoked_at is None and len(key.orgs) != 1:
                    yield Finding(
                        "topics_of_two_organizations",
                        f"The key {key.key} is for several organizations, whose devices share topics under "
                        f"TRUST_TOPIC_PREFIX={template}.",
                        "Add {orgId} to it, or give each broker a key of its organization.",
                        is_unsafe=True,
                    )

    return check


CHECKS: Final[tuple[Check, ...]] = (_check_broker_keys, _check_deletions, _check_scoped_keys)

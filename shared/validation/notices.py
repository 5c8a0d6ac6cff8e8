"""Warnings about certificates that are accepted."""

from collections.abc import Sequence

import msgspec


class Notice(msgspec.Struct, frozen=True):
    """A warning in an answer. *code* is stable."""

    code: str
    message: str


def reactivates(others: Sequence[str], *, is_active: bool) -> Notice:
    """Return the warning with a CA whose name and key are those of deactivated CAs, by their ids."""
    which = ", ".join(others)
    if is_active:
        return Notice(
            "reactivates",
            f"A deactivated CA has the same name and key ({which}). The new certificate is active, so devices of the "
            "deactivated CA are let in again. If they must stay out, deactivate the new certificate as well.",
        )
    return Notice(
        "reactivates",
        f"A deactivated CA has the same name and key ({which}), so the new certificate was stored and not activated. "
        "Activate the new certificate to let devices of that CA in again.",
    )


def devices_must_send_sni(host: str) -> Notice:
    """Return the warning with an org's first CA or server certificate (RFC 6066, section 3)."""
    return Notice(
        "sni_required",
        f"From now on devices must name {host} in TLS (SNI); clients that connect by host name do.",
    )


def chain_completed(count: int) -> Notice:
    """Return the notice about a stored server certificate that got its chain by a later upload.

    Args:
        count: the certificates of the chain.
    """
    certificates = "one certificate" if count == 1 else f"{count} certificates"
    return Notice("chain_completed", f"The chain of the stored certificate was completed: it has {certificates} now.")

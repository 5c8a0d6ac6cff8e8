"""Whether a certificate would be accepted, and the warnings about certificates that are accepted."""

from collections.abc import Sequence
from typing import Final

import msgspec

from shared.errors import TrustError

CHAIN_COMPLETED: Final = "chain_completed"
"""The code of the notice about a chain that a later upload completed."""


class Notice(msgspec.Struct, frozen=True):
    """A warning in an answer. *code* is stable."""

    code: str
    message: str


class Acceptance(msgspec.Struct, frozen=True):
    """Whether an upload would be accepted; *refusal* is the reason if not."""

    refusal: TrustError | None = None
    warnings: Sequence[Notice] = ()


def reactivates(others: Sequence[str], *, is_active: bool) -> Notice:
    """Return the warning with a CA whose name and key are those of deactivated CAs, by their ids."""
    which = ", ".join(others)
    if is_active:
        return Notice(
            "reactivates",
            f"A deactivated CA has the same name and key ({which}). The new certificate is active, so devices of the "
            "deactivated CA are allowed again. If they must stay out, deactivate the new certificate as well.",
        )
    return Notice(
        "reactivates",
        f"A deactivated CA has the same name and key ({which}), so the new certificate was stored and not activated. "
        "Activate the new certificate to allow the devices of that CA again.",
    )


def devices_must_send_sni(host: str) -> Notice:
    """Return the warning with an org's first CA or server certificate (RFC 6066, section 3)."""
    return Notice(
        "sni_required",
        f"From now on devices must name {host} in TLS (SNI); clients that connect by host name do.",
    )


def chain_completed(count: int) -> Notice:
    """Return the notice about a stored server certificate whose chain was completed or renewed by a later upload.

    Args:
        count: the certificates of the chain.
    """
    certificates = "one certificate" if count == 1 else f"{count} certificates"
    return Notice(CHAIN_COMPLETED, f"The stored certificate has the chain that was sent now: {certificates}.")


def chain_kept(subject: str, issuer: str, fingerprint: str) -> Notice:
    """Return the warning about a chain that was sent again and does not replace the stored chain.

    The sent file may have the certificate: of several forms of one CA, one is served. The cure leaves the certificate
    active until the other chain is, and needs no private key from the caller.

    Args:
        subject, issuer, fingerprint: of the first stored certificate that the new chain would not have.
    """
    return Notice(
        "chain_kept",
        "The certificate keeps its stored chain. The new chain, made from the sent certificates, would not have the "
        f"certificate of {subject}, issued by {issuer}, which devices may need (SHA-256 fingerprint {fingerprint}). "
        "To serve the new chain instead, renew the certificate, upload the same certificate with the sent chain for "
        "the new request, activate the result, and delete the old certificate.",
    )

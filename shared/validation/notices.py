"""Warnings about certificates that are accepted."""

import msgspec


class Notice(msgspec.Struct, frozen=True):
    """A warning in an answer. *code* is stable."""

    code: str
    message: str


def devices_must_send_sni(host: str) -> Notice:
    """Return the warning with an org's first CA or server certificate (RFC 6066, section 3)."""
    return Notice(
        "sni_required",
        f"From now on devices must name {host} in TLS (SNI); clients that connect by host name do.",
    )

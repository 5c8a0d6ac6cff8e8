"""The connection security policy: what a client must present (docs/rules.md, "Connection security policy").

`{default, rules: [{deviceType, level}]}`; a rule names one device type exactly and applies to its devices and gateways.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from shared.errors import InvalidPolicy
from shared.validation.names import is_name

RULES_MAX: Final = 500


class Level(StrEnum):
    """What a connection must show. The values are the words the API uses."""  # shown in the API's document

    TLS_OPTIONAL = "TLS Optional"
    TOKEN = "TLS with Token Authentication"
    CERTIFICATE = "TLS with Client Certificate Authentication"
    TOKEN_AND_CERTIFICATE = "TLS with Token and Client Certificate Authentication"
    CERTIFICATE_OR_TOKEN = "TLS with Client Certificate or Token"


class Decision(StrEnum):
    """The three decisions. CONTINUE means: the certificate part is satisfied, the broker's token check decides."""

    ALLOW = "allow"
    DENY = "deny"
    CONTINUE = "continue"


class Presence(StrEnum):
    """Whether a client presented a certificate, and whether it was valid. UNNAMED: valid, and it names no device."""

    VALID = "valid"
    INVALID = "invalid"
    NONE = "none"
    UNNAMED = "unnamed"


class Unnamed(StrEnum):
    """What becomes of a valid certificate that names no device: a refusal, or the broker asks for the token."""

    DENY = "deny"
    TOKEN = "token"


class Rule(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The level of one device type."""

    device_type: str
    level: Level


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What every device type must present (*default*), and the types with another level (*rules*).

    Stored without default values, because version 0.1.0 knows the first two fields only."""

    default: Level = Level.CERTIFICATE
    rules: tuple[Rule, ...] = ()
    unnamed_certificates: Unnamed = Unnamed.DENY

    def level_for(self, device_type: str | None) -> Level:
        """Return the level of *device_type*; the default where no rule names the type, or the type is unknown."""
        return next((rule.level for rule in self.rules if rule.device_type == device_type), self.default)


def check_policy(policy: Policy) -> None:
    """Refuse a policy with over 500 rules, an impossible device type, or two rules for one type.

    Raises: InvalidPolicy."""
    if len(policy.rules) > RULES_MAX:
        raise InvalidPolicy(
            part="rules",
            found=f"There are {len(policy.rules)} rules; at most {RULES_MAX} are kept",
            hint="Use the default level for most device types.",
        )
    named: set[str] = set()
    for number, rule in enumerate(policy.rules):
        part = f"rules[{number}].device_type"
        if not is_name(rule.device_type):
            raise InvalidPolicy(
                part=part,
                found="This is not a device type",
                hint="A device type has 1 to 36 characters of A-Z a-z 0-9 - _ . ",
            )
        if rule.device_type in named:
            raise InvalidPolicy(
                part=part, found=f"Two rules name the device type {rule.device_type}", hint="Keep one of them."
            )
        named.add(rule.device_type)


_WITH_VALID: Final = {
    Level.TLS_OPTIONAL: Decision.ALLOW,
    Level.TOKEN: Decision.CONTINUE,
    Level.CERTIFICATE: Decision.ALLOW,
    Level.TOKEN_AND_CERTIFICATE: Decision.CONTINUE,
    Level.CERTIFICATE_OR_TOKEN: Decision.ALLOW,
}
_WITH_NONE: Final = {
    Level.TLS_OPTIONAL: Decision.CONTINUE,
    Level.TOKEN: Decision.CONTINUE,
    Level.CERTIFICATE: Decision.DENY,
    Level.TOKEN_AND_CERTIFICATE: Decision.DENY,
    Level.CERTIFICATE_OR_TOKEN: Decision.CONTINUE,
}


_WITH_UNNAMED: Final = {
    Level.TLS_OPTIONAL: Decision.CONTINUE,
    Level.TOKEN: Decision.CONTINUE,
    Level.CERTIFICATE: Decision.DENY,
    Level.TOKEN_AND_CERTIFICATE: Decision.CONTINUE,
    Level.CERTIFICATE_OR_TOKEN: Decision.CONTINUE,
}


_RANK: Final = {Decision.ALLOW: 0, Decision.CONTINUE: 1, Decision.DENY: 2}  # what a client must do to connect


def needs_tls(level: Level) -> bool:
    """Whether *level* refuses a connection without TLS: every level but `TLS Optional` does."""
    return level is not Level.TLS_OPTIONAL


def outcome(level: Level, *, tls: bool, presence: Presence) -> Decision:
    """Return the decision in the table of docs/rules.md: level x (valid, unnamed, invalid, no certificate).

    A certificate counts within TLS only. UNNAMED is for policies with `Unnamed.TOKEN` alone."""
    if not tls and needs_tls(level):
        return Decision.DENY
    if not tls or presence is Presence.NONE:
        return _WITH_NONE[level]
    if presence is Presence.UNNAMED:
        return _WITH_UNNAMED[level]
    return _WITH_VALID[level] if presence is Presence.VALID else Decision.DENY


def outcome_for(policy: Policy, device_type: str | None, *, tls: bool, presence: Presence) -> Decision:
    """Return what *policy* decides on a client of *device_type*. See `outcome`."""
    if presence is Presence.UNNAMED and policy.unnamed_certificates is Unnamed.DENY:
        presence = Presence.INVALID
    return outcome(policy.level_for(device_type), tls=tls, presence=presence)


def is_stricter(before: Policy, after: Policy) -> bool:
    """Return whether *after* asks more of some client that *before* let connect: a certificate, or a token."""
    types = {None, *(rule.device_type for rule in (*before.rules, *after.rules))}
    return any(
        _RANK[outcome_for(after, kind, tls=True, presence=presence)]
        > _RANK[outcome_for(before, kind, tls=True, presence=presence)]
        for kind in types
        for presence in (Presence.VALID, Presence.UNNAMED, Presence.NONE)
    )


def changed_types(before: Policy, after: Policy, also: Sequence[str] = ()) -> list[tuple[str, Level, Level]]:
    """Return the device types whose level differs between two policies, with both levels.

    Compared are the types in the rules of either policy, and *also*, types known from connections."""
    named = {rule.device_type for rule in (*before.rules, *after.rules)} | set(also)
    pairs = ((name, before.level_for(name), after.level_for(name)) for name in sorted(named))
    return [(name, old, new) for name, old, new in pairs if old is not new]

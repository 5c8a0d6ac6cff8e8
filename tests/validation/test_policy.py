"""The connection security policy: five levels, exact rules."""

import msgspec
import pytest

from shared.errors import InvalidPolicy
from shared.validation.policy import (
    Decision,
    Level,
    Policy,
    Presence,
    Rule,
    Unnamed,
    changed_types,
    check_policy,
    is_stricter,
    outcome,
    outcome_for,
)

A, D, C = Decision.ALLOW, Decision.DENY, Decision.CONTINUE


@pytest.mark.parametrize(
    ("level", "valid", "invalid", "none", "unnamed"),
    [
        ("TLS Optional", A, D, C, C),
        ("TLS with Token Authentication", C, D, C, C),
        ("TLS with Client Certificate Authentication", A, D, D, D),
        ("TLS with Token and Client Certificate Authentication", C, D, D, C),
        ("TLS with Client Certificate or Token", A, D, C, C),
    ],
)
def test_the_table_of_levels(level: str, valid: Decision, invalid: Decision, none: Decision, unnamed: Decision) -> None:
    """With TLS as in the table. Without TLS, only TLS Optional leaves the decision to the token check."""
    every = (Presence.VALID, Presence.INVALID, Presence.NONE, Presence.UNNAMED)
    assert [outcome(Level(level), tls=True, presence=presence) for presence in every] == [valid, invalid, none, unnamed]
    without_setting, with_setting = Policy(Level(level)), Policy(Level(level), unnamed_certificates=Unnamed.TOKEN)
    assert outcome_for(without_setting, None, tls=True, presence=Presence.UNNAMED) is D
    assert outcome_for(with_setting, None, tls=True, presence=Presence.UNNAMED) is unnamed
    without = {outcome(Level(level), tls=False, presence=presence) for presence in Presence}
    assert without == ({C} if level == "TLS Optional" else {D})


def test_every_level_is_in_the_table() -> None:
    assert len(Level) == 5
    assert Policy().default is Level.CERTIFICATE


def test_a_rule_names_its_type_exactly() -> None:
    policy = Policy(Level.CERTIFICATE, (Rule("thermo", Level.TOKEN),))
    assert policy.level_for("thermo") is Level.TOKEN
    for other in ("Thermo", "thermo2", None):
        assert policy.level_for(other) is Level.CERTIFICATE


@pytest.mark.parametrize(
    "rules",
    [
        (Rule("no:type", Level.TOKEN),),
        (Rule("", Level.TOKEN),),
        (Rule("a", Level.TOKEN), Rule("a", Level.TLS_OPTIONAL)),
        tuple(Rule(f"t{number}", Level.TOKEN) for number in range(501)),
    ],
)
def test_impossible_policies_are_refused(rules: tuple[Rule, ...]) -> None:
    with pytest.raises(InvalidPolicy):
        check_policy(Policy(rules=rules))


def test_five_hundred_rules_fit() -> None:
    check_policy(Policy(rules=tuple(Rule(f"t{number}", Level.TOKEN) for number in range(500))))


def test_changes_are_listed_for_types_in_rules_and_types_that_connected() -> None:
    before = Policy(Level.CERTIFICATE, (Rule("a", Level.TOKEN), Rule("b", Level.TOKEN)))
    after = Policy(Level.TOKEN, (Rule("a", Level.CERTIFICATE),))
    changes = changed_types(before, after, ["c"])
    assert changes == [("a", Level.TOKEN, Level.CERTIFICATE), ("c", Level.CERTIFICATE, Level.TOKEN)]


def test_a_policy_is_stored_as_version_0_1_0_reads_it() -> None:
    """That version refuses a policy with a field that it does not know."""
    assert msgspec.json.encode(Policy()) == b"{}"
    stored = msgspec.json.encode(Policy(Level.TOKEN, (Rule("a", Level.TOKEN),)))
    assert set(msgspec.json.decode(stored)) == {"default", "rules"}


def test_a_policy_without_the_token_for_unnamed_certificates_is_stricter() -> None:
    """At the levels where the token would do, also where only a rule has such a level."""
    rule = (Rule("a", Level.TOKEN_AND_CERTIFICATE),)
    lenient, strict = Policy(rules=rule, unnamed_certificates=Unnamed.TOKEN), Policy(rules=rule)
    assert is_stricter(lenient, strict)
    assert not is_stricter(strict, lenient)
    assert not is_stricter(Policy(unnamed_certificates=Unnamed.TOKEN), Policy())

"""The connection security policy: five levels, exact rules."""

import pytest

from shared.errors import InvalidPolicy
from shared.validation.policy import Decision, Level, Policy, Presence, Rule, changed_types, check_policy, outcome

A, D, C = Decision.ALLOW, Decision.DENY, Decision.CONTINUE


@pytest.mark.parametrize(
    ("level", "valid", "invalid", "none"),
    [
        ("TLS Optional", A, D, C),
        ("TLS with Token Authentication", C, D, C),
        ("TLS with Client Certificate Authentication", A, D, D),
        ("TLS with Token and Client Certificate Authentication", C, D, D),
        ("TLS with Client Certificate or Token", A, D, C),
    ],
)
def test_the_table_of_levels(level: str, valid: Decision, invalid: Decision, none: Decision) -> None:
    """With TLS as in the table. Without TLS, only TLS Optional leaves the decision to the token check."""
    every = (Presence.VALID, Presence.INVALID, Presence.NONE)
    assert [outcome(Level(level), tls=True, presence=presence) for presence in every] == [valid, invalid, none]
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

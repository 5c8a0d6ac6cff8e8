"""Which sessions a withdrawal concerns, by their keys in HAProxy's table."""

import pytest

from edge.feed import WithdrawalEntry
from edge.sessions import RegisteredSession

CA = "0123456789abcdef-" + "c" * 32
K1, K2, K3 = "1" * 12, "2" * 12, "3" * 12
S1, S2 = "5" * 12, "6" * 12
# The key of the callout of the version before, recorded from it.
OLDER_KEY = f"10.0.0.1:4711|mtxpd0|d:thermo:1|{CA}|{'f' * 16},{'9' * 16}|0a1b|1821378114|{'a' * 16},{'b' * 16}"
KEY = f"{OLDER_KEY}|{K1},{K2},{K3}|{S1},{S2},|mtxpd0.messaging.example.com|allow"
SHORTENED_KEY = f"10.0.0.1:4711|mtxpd0|d:thermo:1|{CA}|{'f' * 16}|0a1b|1821378114||{K1},{K3},*|{S1},,*||"
TOKEN_KEY = "10.0.0.1:4711|mtxpd0|d:thermo:1|-||-|0||||mtxpd0.messaging.example.com|continue"


def parse(key: str) -> RegisteredSession:
    session = RegisteredSession.parse(key)
    assert session is not None
    return session


def depends(kind: str, value: str, org: str = "mtxpd0", key: str = KEY, **digests: str) -> bool:
    withdrawal = WithdrawalEntry(org, kind, value, **digests)
    session = parse(key)
    # Whatever the comparison finds, the agent asks about. Without the question it ends.
    assert session.may_depend_on(withdrawal) or not session.depends_on(withdrawal)
    assert session.must_end_unasked(withdrawal) or not session.depends_on(withdrawal)
    return session.depends_on(withdrawal)


@pytest.mark.parametrize("key", [OLDER_KEY, KEY])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("org", "mtxpd0"),
        ("identity", "d:thermo:1"),
        ("ca", CA),
        ("ca", "fedcba9876543210-" + "b" * 32),
        ("fingerprint", "f" * 64),
        ("fingerprint", "9" * 64),
        ("fingerprint", "a" * 64),
        ("fingerprint", "c" * 64),
        ("serial", f"{CA}:a1b"),
    ],
)
def test_a_session_depends_on_what_its_key_names(kind: str, value: str, key: str) -> None:
    """The organization, device, certificate, CA and the certificates that it sent."""
    assert depends(kind, value, key=key)
    assert not depends(kind, value, org="other1", key=key)


@pytest.mark.parametrize(
    ("kind", "digests"),
    [
        ("ca", {"key_digest": K2}),
        ("ca", {"key_digest": K3}),
        ("fingerprint", {"key_digest": K1}),
        ("fingerprint", {"serial_digest": S2}),
        ("serial", {"serial_digest": S1}),
    ],
)
def test_a_session_depends_on_what_decisions_compare(kind: str, digests: dict[str, str]) -> None:
    """A renewed or cross-signed certificate has another fingerprint, but the same subject and key, or the same issuer's
    key and serial number."""
    unknown = "0" * 16 + "-" + "0" * 32
    assert depends(kind, unknown, **digests)
    assert not depends(kind, unknown, org="other1", **digests)
    assert not depends(kind, unknown, key_digest="0" * 12, serial_digest="0" * 12)
    assert not depends(kind, unknown)  # the anchor's serial digest may be empty


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("identity", "d:thermo:11"),
        ("ca", "0123456789abcdef-" + "d" * 32),
        ("fingerprint", "e" * 64),
        ("serial", "0123456789abcdef-" + "d" * 32 + ":a1b"),
    ],
)
def test_other_sessions_are_not_concerned(kind: str, value: str) -> None:
    """A withdrawal does not affect other devices, and costs no question about them."""
    withdrawal = WithdrawalEntry("mtxpd0", kind, value)
    assert not depends(kind, value)
    assert not parse(KEY).may_depend_on(withdrawal)
    assert not depends(kind, value, key=OLDER_KEY)
    assert not parse(OLDER_KEY).must_end_unasked(withdrawal)


def test_a_kind_that_the_agent_does_not_know_makes_it_ask() -> None:
    """Without the question the session ends, as in the version before."""
    withdrawal = WithdrawalEntry("mtxpd0", "something new", "?")
    assert parse(KEY).may_depend_on(withdrawal)
    assert parse(KEY).must_end_unasked(withdrawal)
    assert not parse(KEY).may_depend_on(WithdrawalEntry("other1", "something new", "?"))


@pytest.mark.parametrize("kind", ["ca", "fingerprint", "serial"])
def test_a_session_whose_path_was_too_long_is_asked_about(kind: str) -> None:
    """Without the question it ends."""
    withdrawal = WithdrawalEntry("mtxpd0", kind, "0" * 16 + "-" + "0" * 32 + ":1")
    session = parse(SHORTENED_KEY)
    assert session.may_depend_on(withdrawal)
    assert session.must_end_unasked(withdrawal)
    assert not session.may_depend_on(WithdrawalEntry("mtxpd0", "identity", "d:thermo:2"))
    assert session.question()["complete"] is False


RENEWED = CA.partition("-")[0] + "-" + "e" * 32
OTHER = "0" * 16 + "-" + "e" * 32


@pytest.mark.parametrize(
    ("kind", "value", "sent_intermediates", "direct"),
    [
        ("ca", RENEWED, True, True),
        ("ca", OTHER, True, False),
        ("serial", f"{RENEWED}:a1b", True, True),
        ("serial", f"{RENEWED}:a1c", True, False),
        ("serial", f"{OTHER}:a1b", True, False),
        ("fingerprint", "e" * 64, False, False),
    ],
)
def test_a_session_of_an_earlier_callout_is_asked_about_in_doubt(
    kind: str, value: str, sent_intermediates: bool, direct: bool
) -> None:
    """The keys of its intermediates are unknown. Without intermediates, only a CA of the same subject name may be the
    issuer. Without the question the session stays, as in the version before."""
    withdrawal = WithdrawalEntry("mtxpd0", kind, value)
    session, without = parse(OLDER_KEY), parse(OLDER_KEY.rpartition("|")[0] + "|")
    assert session.may_depend_on(withdrawal) is sent_intermediates
    assert without.may_depend_on(withdrawal) is direct
    assert not session.must_end_unasked(withdrawal)
    assert session.question()["complete"] is False


def test_a_session_without_certificates_has_nothing_to_ask_about() -> None:
    """Its device has a token. Withdrawn certificates do not concern it; its identity and organization do."""
    session = parse(TOKEN_KEY)
    assert session.is_complete
    assert not session.may_depend_on(WithdrawalEntry("mtxpd0", "ca", CA, "", ""))
    assert session.may_depend_on(WithdrawalEntry("mtxpd0", "identity", "d:thermo:1"))
    assert "ca" not in session.question()


def test_the_key_of_an_earlier_callout_is_valid() -> None:
    """An earlier version wrote 64 digits for the device's certificate, and 32 for each further certificate."""
    key = OLDER_KEY.replace(f"{'f' * 16},{'9' * 16}", "f" * 64).replace("a" * 16, "a" * 32).replace("b" * 16, "b" * 32)
    assert all(depends("fingerprint", digit * 64, key=key) for digit in "fab")
    assert depends("ca", "fedcba9876543210-" + "b" * 32, key=key)
    assert not depends("fingerprint", "e" * 64, key=key)


def test_a_session_with_another_serial_number_is_not_concerned() -> None:
    """If the device sent no intermediate, the serial number can only be that of the device's certificate."""
    key = OLDER_KEY.rpartition("|")[0] + "|"
    assert depends("serial", f"{CA}:a1b", key=key)
    assert not depends("serial", f"{CA}:a1c", key=key)


@pytest.mark.parametrize("key", ["", "a|b", OLDER_KEY + "|more", KEY + "|more", KEY.replace("1821378114", "soon")])
def test_a_key_of_another_form_is_ignored(key: str) -> None:
    """Another program may use a table of the same name."""
    assert RegisteredSession.parse(key) is None

"""Names: matched whole, case-sensitive, bounded."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ClientIdInvalid
from shared.validation.names import ClientClass, ClientId, DeviceName, ServerName, is_domain, is_org_id

NAMES = st.text("ABCXYZabcxyz0189-_.", min_size=1, max_size=36)


@given(st.sampled_from("dg"), NAMES, NAMES)
def test_a_device_name_reads_back_as_it_was_written(letter: str, type_id: str, device_id: str) -> None:
    name = DeviceName.parse(f"{letter}:{type_id}:{device_id}")
    assert name == DeviceName(ClientClass(letter), type_id, device_id)
    assert str(name) == f"{letter}:{type_id}:{device_id}"


def test_an_empty_id_is_a_type_certificates_name() -> None:
    name = DeviceName.parse("d:thermo:")
    assert name is not None
    assert name.is_type


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d",
        "d:thermo",
        "d::42",
        "d:thermo:42:x",
        "D:thermo:42",
        "a:thermo:42",
        "d:thermo:42\n",
        "d:thermo:4\x002",
        " d:thermo:42",
        "d:thérmo:42",
        "d:thermo:４２",
        "d:" + "t" * 37 + ":42",
        "d:thermo:" + "4" * 37,
        "d:th/ermo:42",
    ],
)
def test_other_texts_are_not_device_names(text: str) -> None:
    """`fullmatch`: a trailing newline is not a name; no look-alike counts as its letter."""
    assert DeviceName.parse(text) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("d:mtxpd0:thermo:42", "d"),
        ("g:mtxpd0:thermo:42", "g"),
        ("a:mtxpd0:app", "a"),
        ("A:mtxpd0:app", "A"),
        ("A:mtxpd0:app:instance1", "A"),
    ],
)
def test_the_forms_of_a_client_id(text: str, kind: str) -> None:
    parsed = ClientId.parse(text)
    assert (parsed.org_id, parsed.client_class, parsed.text) == ("mtxpd0", kind, text)
    assert (parsed.device is not None) == (kind in "dg")


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "d:mtxpd0:thermo",
        "d:mtxpd0:thermo:",
        "d:MTXPD0:thermo:42",
        "d:mtxpd:thermo:42",
        "d:mtxpd0:thermo:42\n",
        "a:mtxpd0:app:instance",
        "A:mtxpd0:app:i:j",
        "A:mtxpd0:app:",
        "d:mtxpd0:thermo:" + "4" * 300,
    ],
)
def test_other_texts_are_not_client_ids(text: str) -> None:
    with pytest.raises(ClientIdInvalid):
        ClientId.parse(text)


@given(st.text(max_size=300))
def test_any_text_is_a_client_id_or_refused(text: str) -> None:
    with suppress(ClientIdInvalid):
        assert ClientId.parse(text).text == text


def test_server_names_compare_without_case_and_may_end_in_a_dot() -> None:
    """DNS names (RFC 4343); SNI has no root dot (RFC 6066, section 3), some clients send it."""
    assert ServerName.parse("MTXPD0.Messaging.Example.COM.") == ServerName("mtxpd0", "example.com")


@pytest.mark.parametrize(
    "text",
    [
        "mtxpd0.messaging",
        "mtxpd0.messaging.com",
        "mtxpd0.other.example.com",
        "mtxpd.messaging.example.com",
        ".messaging.example.com",
        "*.messaging.example.com",
        "mtxpd0.messaging.exam ple.com",
        "mtxpd0.messaging.example.com..",
        "mtxpd0\n.messaging.example.com",
        "192.0.2.1",
    ],
)
def test_other_texts_are_not_messaging_hosts(text: str) -> None:
    assert ServerName.parse(text) is None


def test_org_ids_and_domains() -> None:
    assert is_org_id("mtxpd0")
    assert not any(map(is_org_id, ("MTXPD0", "mtxpd0\n", "mtxpd", "mtxpd00", "mtx-d0", "mtxpd٠")))
    assert is_domain("xn--bcher-kva.example")
    assert not any(
        map(is_domain, ("example", "Example.com", "-a.com", "a-.com", "a..com", ".a.com", "a.com.", "a" * 64 + ".com"))
    )

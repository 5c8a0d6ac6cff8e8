"""DER is read strictly and written in its only form (X.690)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.x509.der import ELEMENTS_MAX, OCTET_STRING, SEQUENCE, NotDER, elements, encode, header


@pytest.mark.parametrize(
    "octets",
    ["30800201010000", "308103020101", "30820003020101", "3004020101", "1f0100", "30", "3085000000000130", "3081"],
)
def test_what_a_lax_reader_could_take_differently_is_not_der(octets: str) -> None:
    """Indefinite, long-winded or short lengths, and tags of several octets (X.690, 8.1.3 and 10.1)."""
    for read in (elements, lambda data: header(data, 0)):
        with pytest.raises(NotDER, match="not DER"):
            read(bytes.fromhex(octets))


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_what_is_written_is_read(contents: list[bytes]) -> None:
    [outer] = elements(encode(SEQUENCE, *(encode(OCTET_STRING, content) for content in contents)))
    assert [child.content for child in outer.children] == contents
    assert all(child.tag == OCTET_STRING for child in outer.children)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65_535, 65_536])
def test_lengths_are_in_their_shortest_form(size: int) -> None:
    written = encode(OCTET_STRING, bytes(size))
    assert header(written, 0) == (OCTET_STRING, len(written) - size, len(written))


def test_elements_on_one_level_are_bounded() -> None:
    assert len(elements(b"\5\0" * ELEMENTS_MAX)) == ELEMENTS_MAX
    with pytest.raises(NotDER, match="too many elements"):
        elements(b"\5\0" * (ELEMENTS_MAX + 1))


@given(st.binary(max_size=60))
def test_any_octets_are_elements_or_not_der(data: bytes) -> None:
    try:
        parsed = elements(data)
    except NotDER:
        return
    assert b"".join(element.whole for element in parsed) == data

"""Values of the certificate extensions that rules ask for (RFC 5280, 4.2.1), decoded from their octets.

A value is read as OpenSSL reads it where no rule can be affected: a DEFAULT value that is written out, or a path length
beside CA:FALSE, changes nothing. Each function raises NotDER, which names the extension.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from shared.x509 import der
from shared.x509.der import NotDER
from shared.x509.distinguished_name import DistinguishedName

BASIC_CONSTRAINTS: Final = der.encode_oid("2.5.29.19")
KEY_USAGE: Final = der.encode_oid("2.5.29.15")
EXTENDED_KEY_USAGE: Final = der.encode_oid("2.5.29.37")
SUBJECT_ALTERNATIVE_NAME: Final = der.encode_oid("2.5.29.17")
SUBJECT_KEY_IDENTIFIER: Final = der.encode_oid("2.5.29.14")
AUTHORITY_KEY_IDENTIFIER: Final = der.encode_oid("2.5.29.35")
NAME_CONSTRAINTS: Final = der.encode_oid("2.5.29.30")
CRL_DISTRIBUTION_POINTS: Final = der.encode_oid("2.5.29.31")
CERTIFICATE_POLICIES: Final = der.encode_oid("2.5.29.32")
POLICY_MAPPINGS: Final = der.encode_oid("2.5.29.33")
POLICY_CONSTRAINTS: Final = der.encode_oid("2.5.29.36")
INHIBIT_ANY_POLICY: Final = der.encode_oid("2.5.29.54")
ANY_POLICY: Final = "2.5.29.32.0"

DIGITAL_SIGNATURE: Final = 0x8000  # bits of KeyUsage (4.2.1.3), the first one highest
KEY_CERT_SIGN: Final = 0x0400

EMAIL: Final = 0x81  # tags of GeneralName (4.2.1.6): rfc822Name, ...
DNS: Final = 0x82
DIRECTORY_NAME: Final = 0xA4
URI: Final = 0x86
IP_ADDRESS: Final = 0x87
_GENERAL_NAMES: Final = {0xA0, EMAIL, DNS, 0xA3, DIRECTORY_NAME, 0xA5, URI, IP_ADDRESS, 0x88}

_NAMES_MAX: Final = 16_384  # 64 KiB, the most that a device may send, hold no more
_PURPOSES_MAX: Final = 1024
_POINTS_MAX: Final = 64
_POLICIES_MAX: Final = 4096
_KEPT: Final = 256  # values of each kind that a process keeps: a fleet has few different ones


class BasicConstraints(NamedTuple):
    """BasicConstraints (RFC 5280, 4.2.1.9); *path_length* is None without a limit."""

    is_ca: bool
    path_length: int | None


class AuthorityKeyIdentifier(NamedTuple):
    """AuthorityKeyIdentifier (RFC 5280, 4.2.1.1).

    Args:
        key_id: the identifier of the issuer's key, or None.
        issuer: the canonical form of the name of the issuer's own issuer, or None.
        serial_number: the serial number of the issuer's certificate, or None.
        is_usual: OpenSSL reads nothing else in the value.
    """

    key_id: bytes | None = None
    issuer: bytes | None = None
    serial_number: int | None = None
    is_usual: bool = True


@lru_cache(maxsize=_KEPT)
def read_basic_constraints(value: bytes) -> BasicConstraints:
    """Return BasicConstraints. Raises: NotDER."""
    field = "basicConstraints"
    at, end = der.expect_whole(value, der.SEQUENCE, field)
    is_ca, path_length = False, None
    if at < end and value[at] == der.BOOLEAN:
        start, at = der.expect(value, at, end, der.BOOLEAN, field)
        is_ca = der.read_boolean(value, start, at, field)
    if at < end:
        start, at = der.expect(value, at, end, der.INTEGER, field)
        path_length = der.read_integer(value, start, at, field)
        if path_length < 0:
            raise NotDER("has a negative path length", field)
    if at != end:
        raise NotDER("has something after the path length", field)
    return BasicConstraints(is_ca, path_length)


@lru_cache(maxsize=_KEPT)
def read_key_usage(value: bytes) -> int:
    """Return the first 16 bits of KeyUsage (RFC 5280, 4.2.1.3), of which 9 are defined. Raises: NotDER."""
    field = "keyUsage"
    start, end = der.expect_whole(value, der.BIT_STRING, field)
    if start == end or value[start] > (7 if end - start > 1 else 0):
        raise NotDER("has a number of unused bits that is not valid", field)
    if value[end - 1] & ((1 << value[start]) - 1) and end - start > 1:
        raise NotDER("has unused bits that are not 0", field)
    return int.from_bytes(value[start + 1 : min(end, start + 3)].ljust(2, b"\0"))


@lru_cache(maxsize=_KEPT)
def read_extended_key_usage(value: bytes) -> tuple[str, ...]:
    """Return the purposes as dotted object identifiers, at least one (RFC 5280, 4.2.1.12). Raises: NotDER."""
    field = "extKeyUsage"
    at, end = der.expect_whole(value, der.SEQUENCE, field)
    purposes = der.children(value, at, end, _PURPOSES_MAX, field)
    if not purposes or any(tag != der.OID for tag, _, _ in purposes):
        raise NotDER("is not a list of purposes", field)
    return tuple(der.read_oid(value[start:stop], field) for _, start, stop in purposes)


def read_general_names(value: bytes) -> tuple[tuple[int, bytes], ...]:
    """Return tag and content of each name in a SubjectAltName (RFC 5280, 4.2.1.6). Raises: NotDER."""
    field = "subjectAltName"
    at, end = der.expect_whole(value, der.SEQUENCE, field)
    names = der.children(value, at, end, _NAMES_MAX, field)
    for tag, _, _ in names:
        if tag not in _GENERAL_NAMES:
            raise NotDER(f"has a name of the type 0x{tag:02X}, which is not defined", field)
    return tuple((tag, value[start:stop]) for tag, start, stop in names)


def read_subject_key_identifier(value: bytes) -> bytes:
    """Return the identifier (RFC 5280, 4.2.1.2). Raises: NotDER."""
    start, end = der.expect_whole(value, der.OCTET_STRING, "subjectKeyIdentifier")
    return value[start:end]


@lru_cache(maxsize=_KEPT)
def read_authority_key_identifier(value: bytes) -> AuthorityKeyIdentifier:
    """Return the identifiers of the issuer's key, and whether they are usual ones. Raises: NotDER."""
    field = "authorityKeyIdentifier"
    at, end = der.expect_whole(value, der.SEQUENCE, field)
    parts = der.children(value, at, end, 3, field)
    by_tag = {tag: (start, stop) for tag, start, stop in parts}
    if list(by_tag) != [tag for tag in (0x80, 0xA1, 0x82) if tag in by_tag] or len(by_tag) != len(parts):
        raise NotDER("has other parts than a key identifier, an issuer and a serial number", field)
    key_id = issuer = serial_number = None
    is_usual = (0xA1 in by_tag) == (0x82 in by_tag)
    if 0x80 in by_tag:
        start, stop = by_tag[0x80]
        key_id = value[start:stop]
    if 0x82 in by_tag:
        serial_number = der.read_integer(value, *by_tag[0x82], field)
    if 0xA1 in by_tag:
        names = der.children(value, *by_tag[0xA1], _NAMES_MAX, field)
        directory_names = [value[start:stop] for tag, start, stop in names if tag == DIRECTORY_NAME]
        if len(names) == 1 and directory_names:
            name = DistinguishedName(directory_names[0], field)
            issuer = name.canonical
            is_usual = is_usual and name.has_usual_text
        else:
            is_usual = False
    return AuthorityKeyIdentifier(key_id, issuer, serial_number, is_usual)


def count_subtrees(value: bytes) -> int:
    """Return how many subtrees NameConstraints have (RFC 5280, 4.2.1.10). Raises: NotDER."""
    field = "nameConstraints"
    at, end = der.expect_whole(value, der.SEQUENCE, field)
    count = 0
    for tag, start, stop in der.children(value, at, end, 2, field):
        if tag not in (0xA0, 0xA1):
            raise NotDER("has other parts than permitted and excluded subtrees", field)
        count += len(der.children(value, start, stop, _NAMES_MAX, field))
    return count


@lru_cache(maxsize=_KEPT)
def read_policies(value: bytes) -> tuple[str, ...]:
    """Return the policies in CertificatePolicies (RFC 5280, 4.2.1.4); qualifiers are not read. Raises: NotDER."""
    field = "certificatePolicies"
    at, end = der.expect_whole(value, der.SEQUENCE, field)
    policies: dict[str, None] = {}
    for tag, start, stop in der.children(value, at, end, _POLICIES_MAX, field):
        parts = der.children(value, start, stop, 2, field)
        if tag != der.SEQUENCE or [part[0] for part in parts] not in ([der.OID], [der.OID, der.SEQUENCE]):
            raise NotDER("is not a list of policies", field)
        policy = der.read_oid(value[parts[0][1] : parts[0][2]], field)
        if policy in policies:
            raise NotDER(f"names the policy {policy} twice", field)
        policies[policy] = None
    if not policies:
        raise NotDER("names no policy", field)
    return tuple(policies)


@lru_cache(maxsize=_KEPT)
def read_policy_mappings(value: bytes) -> tuple[tuple[str, str], ...]:
    """Return pairs of a policy of the issuer and one of the subject (RFC 5280, 4.2.1.5). Raises: NotDER."""
    field = "policyMappings"
    at, end = der.expect_whole(value, der.SEQUENCE, field)
    pairs: list[tuple[str, str]] = []
    for tag, start, stop in der.children(value, at, end, _POLICIES_MAX, field):
        parts = der.children(value, start, stop, 2, field)
        if tag != der.SEQUENCE or [part[0] for part in parts] != [der.OID, der.OID]:
            raise NotDER("is not a list of pairs of policies", field)
        pair = der.read_oid(value[parts[0][1] : parts[0][2]], field), der.read_oid(value[parts[1][1] : stop], field)
        if ANY_POLICY in pair:  # 6.1.4 (a)
            raise NotDER("maps anyPolicy", field)
        pairs.append(pair)
    if not pairs:
        raise NotDER("names no policy", field)
    return tuple(pairs)


@lru_cache(maxsize=_KEPT)
def read_policy_constraints(value: bytes) -> tuple[int | None, int | None]:
    """Return requireExplicitPolicy and inhibitPolicyMapping, each None if absent (RFC 5280, 4.2.1.11).

    Raises: NotDER."""
    field = "policyConstraints"
    at, end = der.expect_whole(value, der.SEQUENCE, field)
    parts = der.children(value, at, end, 2, field)
    if [tag for tag, _, _ in parts] not in ([0x80], [0x81], [0x80, 0x81]):
        raise NotDER("has other parts than requireExplicitPolicy and inhibitPolicyMapping", field)
    skips = {tag: _read_skip(value, start, stop, field) for tag, start, stop in parts}
    return skips.get(0x80), skips.get(0x81)


@lru_cache(maxsize=_KEPT)
def read_inhibit_any_policy(value: bytes) -> int:
    """Return the number of InhibitAnyPolicy (RFC 5280, 4.2.1.14). Raises: NotDER."""
    field = "inhibitAnyPolicy"
    start, stop = der.expect_whole(value, der.INTEGER, field)
    return _read_skip(value, start, stop, field)


def _read_skip(value: bytes, start: int, stop: int, field: str) -> int:
    skip = der.read_integer(value, start, stop, field)
    if skip < 0:
        raise NotDER("has a negative number of certificates", field)
    return skip


@lru_cache(maxsize=_KEPT)
def are_addresses(value: bytes) -> bool:
    """Whether CRL distribution points (RFC 5280, 4.2.1.13) are URIs and nothing else.

    OpenSSL refuses a certificate whose distribution points it cannot decode, critical or not, so it judges all others.
    """
    field = "cRLDistributionPoints"
    try:
        at, end = der.expect_whole(value, der.SEQUENCE, field)
        points = der.children(value, at, end, _POINTS_MAX, field)
        return bool(points) and all(tag == der.SEQUENCE and _is_uri(value, at, end) for tag, at, end in points)
    except NotDER:
        return False


def _is_uri(value: bytes, at: int, end: int) -> bool:
    """Whether a DistributionPoint is a fullName with URIs, without reasons and issuer. Raises: NotDER."""
    field = "cRLDistributionPoints"
    start, stop = der.expect(value, at, end, der.CONTEXT_0, field)
    inner, inner_end = der.expect(value, start, stop, der.CONTEXT_0, field)
    names = der.children(value, inner, inner_end, _POINTS_MAX, field)
    is_alone = stop == end and inner_end == stop
    return is_alone and bool(names) and all(tag == URI and value[a:b].isascii() for tag, a, b in names)

"""Which device a certificate identifies (docs/rules.md, step 10).

Candidates are the subject's CN and every rfc822Name of the SubjectAltName that reads `d:typeId:deviceId` or
`g:typeId:deviceId`. Nothing else in the certificate names a device: not a DNS name, not a URI, not an orgId.
"""

from typing import Final

from shared.errors import IdentityMismatch, IdentityMissing, TypeCertificateRefused
from shared.validation.names import DeviceName
from shared.x509.certificate import Certificate

_SHOWN_MAX: Final = 3  # names in a refusal


def candidates(cert: Certificate) -> tuple[DeviceName, ...]:
    """Return the identities in *cert* without duplicates, the CN's first.

    A subject with more than one CN gives none from it (RFC 5280 does not say which would count). Text with NUL or
    non-ASCII characters cannot match the pattern of a name, nor can a CN that is not text (BIT STRING)."""
    common_names = cert.subject.common_names
    texts = [*(common_names if len(common_names) == 1 else ()), *cert.email_names]
    return tuple(dict.fromkeys(name for text in texts if (name := DeviceName.parse(text)) is not None))


def single(identities: tuple[DeviceName, ...]) -> DeviceName | None:
    """Return the only device among *identities*, for a client without client ID; None for no device or several."""
    devices = [name for name in identities if not name.is_type]
    return devices[0] if len(devices) == 1 else None


def match(
    cert: Certificate,
    identities: tuple[DeviceName, ...],
    expected: DeviceName | None,
    *,
    type_certificates: bool,
    org_id: str,
) -> DeviceName:
    """Return the device that *cert*, in which *identities* are, identifies.

    Args:
        expected: the device the client ID names; None before a client ID is known.
        type_certificates: whether the org accepts `d:type:` for every device of the type.
        org_id: of the client ID that a refusal advises.

    Raises: IdentityMissing, IdentityMismatch, TypeCertificateRefused."""
    if not identities:
        raise IdentityMissing(
            cert=cert, found="neither CN nor an e-mail SAN is of the form d:type:device", name=_example(expected)
        )
    if expected is None:
        return _match_single(cert, identities, type_certificates)
    if expected in identities:
        return expected
    if expected.of_type() in identities:
        if type_certificates:
            return expected
        raise TypeCertificateRefused(cert=cert, type=expected.type_id)
    raise mismatch(identities, expected, org_id, cert)


def mismatch(
    identities: tuple[DeviceName, ...], expected: DeviceName, org_id: str, cert: Certificate | None = None
) -> IdentityMismatch:
    """Return the refusal of a client ID of *expected* that has a certificate for *identities*."""
    by_case = [name for name in identities if str(name).lower() == str(expected).lower()]
    kind, _, rest = str((by_case or identities)[0]).partition(":")
    return IdentityMismatch(
        cert=cert,
        found=_format(identities),
        expected=str(expected),
        case=" They differ in upper and lower case only." if by_case else "",
        client=f"{kind}:{org_id}:{rest}",
    )


def _match_single(cert: Certificate, identities: tuple[DeviceName, ...], type_certificates: bool) -> DeviceName:
    """Return the only device among *identities*, where no client ID is known."""
    if (device := single(identities)) is not None:
        return device
    types = [name for name in identities if name.is_type]
    if len(types) == len(identities):
        if not type_certificates:
            raise TypeCertificateRefused(cert=cert, type=types[0].type_id)
        raise IdentityMissing(
            cert=cert,
            found=f"{_format(identities)} is for a whole device type, and no client ID is known",
            name=_example(None),
        )
    raise IdentityMissing(
        cert=cert, found=f"it names several ({_format(identities)}), and no client ID is known", name=_example(None)
    )


def _example(expected: DeviceName | None) -> str:
    return "d:type:device" if expected is None else str(expected)


def _format(identities: tuple[DeviceName, ...]) -> str:
    more = len(identities) - _SHOWN_MAX
    return ", ".join(map(str, identities[:_SHOWN_MAX])) + (f" and {more} more" if more > 0 else "")

"""Which device a certificate speaks for (docs/rules.md, step 10).

Candidates are the subject's CN and every rfc822Name of the SubjectAltName that reads `d:typeId:deviceId` or
`g:typeId:deviceId`. Nothing else in the certificate names a device: not a DNS name, not a URI, not an orgId.
"""

from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from shared.errors import IdentityMismatch, IdentityMissing, TypeCertificateRefused
from shared.validation.names import DeviceName
from shared.x509.certificate import Certificate

_SHOWN_MAX: Final = 3  # names told in a refusal


def candidates(cert: Certificate) -> tuple[DeviceName, ...]:
    """The identities *cert* carries, each once, the CN's first.

    A subject with more than one CN gives none from it (RFC 5280 does not say which would count); text with NUL or
    non-ASCII characters cannot match the pattern of a name, and a CN that is not text (BIT STRING) is none."""
    common_names = cert.subject_name.get_attributes_for_oid(NameOID.COMMON_NAME)
    texts = [str(common_names[0].value)] if len(common_names) == 1 else []
    if cert.names is not None:
        texts += cert.names.get_values_for_type(x509.RFC822Name)
    return tuple(dict.fromkeys(found for text in texts if (found := DeviceName.parse(text)) is not None))


def single(found: tuple[DeviceName, ...]) -> DeviceName | None:
    """The one device a certificate names where no client ID does; None where there is none, or more than one."""
    devices = [one for one in found if not one.is_type]
    return devices[0] if len(devices) == 1 else None


def match(
    cert: x509.Certificate,
    found: tuple[DeviceName, ...],
    expected: DeviceName | None,
    *,
    type_certificates: bool,
) -> DeviceName:
    """The device that *cert*, carrying *found*, speaks for.

    Args:
        expected: the device the client ID names; None before a client ID is known.
        type_certificates: whether the org lets `d:type:` speak for every device of the type.

    Raises: IdentityMissing, IdentityMismatch, TypeCertificateRefused."""
    if not found:
        raise IdentityMissing(
            cert=cert, found="neither CN nor an e-mail SAN is of the form d:type:device", **_as(expected)
        )
    if expected is None:
        return _alone(cert, found, type_certificates)
    if expected in found:
        return expected
    if expected.of_type() in found:
        if type_certificates:
            return expected
        raise TypeCertificateRefused(cert=cert, type=expected.type_id)
    raise IdentityMismatch(cert=cert, found=_listed(found), expected=str(expected))


def _alone(cert: x509.Certificate, found: tuple[DeviceName, ...], type_certificates: bool) -> DeviceName:
    if (device := single(found)) is not None:
        return device
    types = [one for one in found if one.is_type]
    if len(types) == len(found):
        if not type_certificates:
            raise TypeCertificateRefused(cert=cert, type=types[0].type_id)
        raise IdentityMissing(
            cert=cert, found=f"{_listed(found)} stands for a type, and no client ID is known", **_as(None)
        )
    raise IdentityMissing(
        cert=cert, found=f"it names several ({_listed(found)}), and no client ID is known", **_as(None)
    )


def _as(expected: DeviceName | None) -> dict[str, str]:
    if expected is None:
        return {"name": "d:type:device"}
    return {"name": str(expected)}


def _listed(found: tuple[DeviceName, ...]) -> str:
    more = len(found) - _SHOWN_MAX
    return ", ".join(map(str, found[:_SHOWN_MAX])) + (f" and {more} more" if more > 0 else "")

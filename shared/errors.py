"""Everything this project can refuse, as one tree.

    TrustError                 has a stable `code`, a sentence that says what is wrong, and one that mends it
    ├── BadRequest             400  the request cannot be read: JSON, multipart, base64, a field's name or type
    ├── NotAuthenticated       401
    ├── Forbidden              403
    ├── NotFound               404
    ├── MethodNotAllowed       405
    ├── Conflict               409  the request is fine, the state of things is against it
    ├── Stale                  412  somebody changed it first
    ├── TooLarge               413
    ├── UnsupportedMediaType   415
    ├── PreconditionRequired   428
    ├── RateLimited            429
    ├── StoreUnavailable       503  nothing was changed, or it is safe to repeat
    ├── IssuerUnavailable      503  the OIDC issuer does not answer
    ├── Rejected               422  a judgement on what was sent
    │   └── Refused                 a judgement that is also an answer to a connecting device (verifyClient)

What is wrong is `says`, what to do about it is `mend`; both are templates, filled from the *facts* given where the
error is raised. Facts are shown to users: a key, passphrase or token is never a fact. The sentences are the ones the
console shows, so they are written once, here.

functions/web/http.py maps the first level to HTTP statuses in one table.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol


class FaultyCertificate(Protocol):
    """What an error shows of the certificate at fault; `shared.x509.certificate.Certificate` has more."""

    @property
    def subject_text(self) -> str:
        """The subject for people."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal."""


class TrustError(Exception):
    """Base of all that is refused on purpose.

    Args:
        field: the request's field at fault, for an error about the request.
        part: the part of what was sent that a rule refuses, in snake case: `private_key`, `rules[0].device_type`.
        cert: the certificate at fault.
        facts: what the templates `says` and `mend` name, all printable strings or numbers.
    """

    code: ClassVar[str]
    says: ClassVar[str]
    mend: ClassVar[str]

    def __init__(
        self,
        *,
        field: str | None = None,
        part: str | None = None,
        cert: FaultyCertificate | None = None,
        **facts: str | int,
    ) -> None:
        self.part = part
        self.field = field if part is None else _camel_case(part)
        self.cert = cert
        self.facts: dict[str, str | int] = facts
        super().__init__(f"{self.reason} {self.advice}".strip())

    @property
    def reason(self) -> str:
        """One sentence: what is wrong."""
        return self.says.format_map(_Facts(self.facts))

    @property
    def advice(self) -> str:
        """One sentence or two: how to mend it. May be empty."""
        return self.mend.format_map(_Facts(self.facts))


def _camel_case(part: str) -> str:
    """Return the name of the API's field for a part: `private_key` -> `privateKey`."""
    first, *rest = part.split("_")
    return first + "".join(word.capitalize() for word in rest)


class _Facts(dict[str, Any]):
    """Facts for a template: one that was not given reads as its own name, so that a sentence is never lost."""

    def __missing__(self, key: str) -> str:
        return key


def every_error() -> Iterator[type[TrustError]]:
    """Each error that has a code, in the order of this file."""
    pending: list[type[TrustError]] = [TrustError]
    while pending:
        kind = pending.pop(0)
        pending[:0] = kind.__subclasses__()
        if "code" in vars(kind):
            yield kind


# ---------------------------------------------------------------------------------------- the request itself


class BadRequest(TrustError):
    """400: what was sent cannot be read as this call's fields."""


class MalformedBody(BadRequest):
    code = "malformed_body"
    says = "The body cannot be read as {format}: {found}."
    mend = "Send {format} as the documentation of this call shows."


class MalformedBase64(BadRequest):
    code = "malformed_base64"
    says = "{field_name} is neither PEM text nor base64."
    mend = "Send PEM as text, or DER in base64."


class UnknownField(BadRequest):
    code = "unknown_field"
    says = "This call has no field {name}."
    mend = "It takes {known}."


class WrongValue(BadRequest):
    code = "wrong_value"
    says = "{found}."
    mend = ""


class MissingField(BadRequest):
    code = "missing_field"
    says = "The field {name} is missing."
    mend = "Send it."


class NotAuthenticated(TrustError):
    """401: nobody known is calling."""

    code = "not_authenticated"
    says = "Key or token is not right."
    mend = "Send the API key as user name and its token as password. If the token is lost, create a new key."


class TokenRefused(NotAuthenticated):
    """A token of the OIDC issuer that is not believed."""

    code = "token_refused"
    says = "The sign-in is not accepted: {found}."
    mend = "Sign in again."


class Forbidden(TrustError):
    """403: known, but not allowed to do this."""

    code = "forbidden"
    says = "This key has the role {role}; this call needs {needed}."
    mend = "Use a key of that role."


class RoleNotGranted(Forbidden):
    """A sign-in that is right, and yet gives no role here."""

    code = "role_not_granted"
    says = "Your sign-in names {found}."
    mend = "Ask whoever runs it for one organization that is here, and the role viewer or operator."


class InsecureTransport(Forbidden):
    code = "insecure_transport"
    says = "Private keys are handed out over TLS only, or to this very machine."
    mend = "Ask over https."


class NotFound(TrustError):
    """404: there is no such thing, or it is not the caller's to know."""

    code = "not_found"
    says = "There is no {what} here."
    mend = "Look at the list for what is there."


class MethodNotAllowed(TrustError):
    """405."""

    code = "method_not_allowed"
    says = "{method} is not a method of this address."
    mend = "It takes {allowed}."


class Conflict(TrustError):
    """409: refused because of how things stand."""


class Stale(TrustError):
    """412: the version the caller saw is no longer the current one."""

    code = "stale"
    says = "{who} changed this at {when}."
    mend = "Read it again, then repeat the change with the new version in If-Match."


class TooLarge(TrustError):
    """413."""

    code = "file_too_large"
    says = "{size} were sent; at most {limit} are taken."
    mend = "{hint}"


class UnsupportedMediaType(TrustError):
    """415."""

    code = "unsupported_media_type"
    says = "The content type {found} is not taken here."
    mend = "Send application/json or multipart/form-data."


class PreconditionRequired(TrustError):
    """428 (RFC 6585, section 3)."""

    code = "precondition_required"
    says = "A change needs the version it is based on."
    mend = "Send If-Match with the version you read, or If-Match: * to override."


class RateLimited(TrustError):
    """429 (RFC 6585, section 4). The fact `seconds` becomes Retry-After."""

    code = "rate_limited"
    says = "More than {limit} new {what} in a minute."
    mend = "Try again in {seconds} seconds."


class StoreUnavailable(TrustError):
    """503: the store does not answer."""

    code = "unavailable"
    says = "The store does not answer; nothing was changed, or the change is safe to repeat."
    mend = "Try again in a few seconds."


class KeysUnavailable(StoreUnavailable):
    """The service that keeps the master keys does not answer, or will not let this function use them."""

    code = "keys_unavailable"
    says = "The key service does not answer; nothing was changed, or the change is safe to repeat."


class IssuerUnavailable(TrustError):
    """503: whether a token is to be believed cannot be known now."""

    code = "issuer_unavailable"
    says = "The sign-in service does not answer."
    mend = "Try again in a minute, or use an API key."


# ------------------------------------------------------------------------------- how things stand: conflicts


class TooManyCAs(Conflict):
    code = "too_many_cas"
    says = "This organization has {limit} CA certificates already."
    mend = "Delete one that no device needs any more."


class TooManyCAsOfOneName(Conflict):
    code = "too_many_cas_of_one_name"
    says = "{limit} CA certificates named {subject} are here already."
    mend = "Delete an old one first."


class TooManyServerCertificates(Conflict):
    code = "too_many_server_certificates"
    says = "This organization has {limit} server certificates and requests already."
    mend = "Delete one that is not needed any more."


class ActiveCertificate(Conflict):
    code = "active_certificate"
    says = "This certificate is the one shown to devices."
    mend = "Activate another first."


class RequestNotFulfilled(Conflict):
    code = "csr_not_fulfilled"
    says = "This is a request that waits for its signature."
    mend = "Have it signed and upload the certificate to it first."


class AlreadyFulfilled(Conflict):
    code = "already_fulfilled"
    says = "Another certificate has been put in this request's place already."
    mend = "To replace it, renew it: that makes a new request on the same key."


class DomainInUse(Conflict):
    code = "domain_in_use"
    says = "The active server certificate is for {host}."
    mend = "Activate another certificate first, then remove {domain}."


class TooManyHosts(Conflict):
    code = "too_many_hosts"
    says = "More than {limit} hosts do not fit one list of listeners."
    mend = "Give this Envoy a key for some of the organizations (--orgs), or use the HAProxy edge."


class OrgSuspended(Forbidden):
    """Also an answer to a device: step 1 of verifyClient."""

    step: ClassVar[int] = 1

    code = "org_suspended"
    says = "The organization is suspended."
    mend = "Ask the platform's operator."


class DocumentTooLarge(Conflict):
    """What is kept together would outgrow the one limit that every store keeps (shared.ports.MAX_BODY_BYTES)."""

    code = "document_too_large"
    says = "With this, {size} bytes would be kept together; {limit} fit."
    mend = "Delete what is not needed any more, or shorten comments, then repeat."


class RotationRefused(Conflict):
    code = "rotation_refused"
    says = "The master key {key} cannot be rotated: {found}."
    mend = "{hint}"


class TooBusy(Conflict):
    code = "too_busy"
    says = "Too many changes were made at the same moment; this one was not."
    mend = "Repeat it."


# ------------------------------------------------------------------------------- what was sent: rejections


class Rejected(TrustError):
    """422: read, understood, and not acceptable."""


class Refused(Rejected):
    """A judgement that may also be the answer to a device.

    *step*: which of the ten steps of verifyClient refuses with it, counted from 1 (docs/rules.md)."""

    step: ClassVar[int]


class NotACertificate(Rejected):
    code = "not_a_certificate"
    says = "{found}."
    mend = "{hint}"

    def __init__(
        self,
        *,
        part: str | None = None,
        found: str = "No certificate found in the file",
        hint: str = "Choose PEM or DER.",
    ) -> None:
        super().__init__(part=part, found=found, hint=hint)


class SeveralCertificates(Rejected):
    code = "several_certificates"
    says = "{n} certificates are in the file."
    mend = "Save the CA alone."


class PrivateKeyGiven(Rejected):
    code = "private_key_given"
    says = "A private key is in this file; it was not kept."
    mend = "Choose the certificate alone. If others may have seen this file, make a new key."


class CSRGiven(Rejected):
    code = "csr_given"
    says = "This is a certificate request, not a certificate."
    mend = "Have it signed first."


class NotACA(Rejected):
    code = "not_a_ca"
    says = "Not a CA: {found}."
    mend = "{hint}"


class SelfSignatureInvalid(Rejected):
    code = "self_signature_invalid"
    says = "Its own signature fails."
    mend = "Export it again."


class PrivateKeyMissing(Rejected):
    code = "private_key_missing"
    says = "The certificate's private key is missing."
    mend = "Add the private key file."


class NotAKey(Rejected):
    code = "not_a_key"
    says = "{found}."
    mend = "{hint}"

    def __init__(
        self,
        *,
        part: str | None = None,
        found: str = "No private key found in it",
        hint: str = "Choose the key in PEM or DER: PKCS#8, PKCS#1 or SEC1.",
    ) -> None:
        super().__init__(part=part, found=found, hint=hint)


class KeyUnsupported(Rejected):
    code = "key_unsupported"
    says = "{key} is not a key MQTT servers take."
    mend = "Use RSA 2048-4096, P-256 or P-384."


class PassphraseRequired(Rejected):
    code = "passphrase_required"
    says = "This key is encrypted."
    mend = "Give its passphrase."


class PassphraseWrong(Rejected):
    code = "passphrase_wrong"
    says = "Wrong passphrase."
    mend = "Type it again; the files are fine as they are."


class PassphraseUnneeded(Rejected):
    code = "passphrase_unneeded"
    says = "This key has no passphrase."
    mend = "Leave the passphrase empty."


class KdfTooCostly(Rejected):
    code = "kdf_too_costly"
    says = "Opening this key would cost {found}; at most {limit} is done here."
    mend = "Re-encrypt the key with fewer rounds."


class KeyMismatch(Rejected):
    code = "key_mismatch"
    says = "The key belongs to another certificate."
    mend = "Choose the key that was made for this certificate."


class ChainBroken(Rejected):
    code = "chain_broken"
    says = "{subject} did not sign the certificate before it."
    mend = "Send the leaf with the certificates that lead from it to its root, and no others."


class ChainTooLong(Rejected):
    code = "chain_too_long"
    says = "{n} certificates were sent; at most {limit} are taken."
    mend = "Send only those that lead from the leaf to its root."


class HostMismatch(Rejected):
    code = "host_mismatch"
    says = "For {names}; yours is {host}{note}."
    mend = "Have it issued for {host} in CN or as DNS name."


class UseFulfil(Rejected):
    code = "use_fulfil"
    says = "Belongs to the waiting request {id}."
    mend = "Upload it there; its key is here already."


class DomainReserved(Rejected):
    code = "domain_reserved"
    says = "{domain} belongs to the platform."
    mend = "List a domain of your own."


class NotAHost(Rejected):
    code = "host_not_allowed"
    says = "{host} is not a host of this organization."
    mend = "Use {hosts}; a custom domain is listed in the settings first."


class Misplaced(Rejected):
    """An upload to an object store, in a place that means nothing."""

    code = "upload_misplaced"
    says = "{place} is no place for an upload."
    mend = "Put it under {org}/ca/, {org}/server/ or, named by the request's id, {org}/csr/."


class InvalidPolicy(Rejected):
    code = "policy_invalid"
    says = "{found}."
    mend = "{hint}"


class InvalidDenial(Rejected):
    code = "denial_invalid"
    says = "{found}."
    mend = "{hint}"


class UseRefused(Rejected):
    """An answer to a broker that asks for one topic, queue or virtual host."""

    code = "use_refused"
    says = "This is not {device}'s to use."
    mend = "A client may use topics under {prefix}, and nothing else."


class InvalidSubject(Rejected):
    """A subject field of a certificate request that no CA would take."""

    code = "subject_invalid"
    says = "{found}."
    mend = "{hint}"


# --------------------------------------------- judgements on a device, in the order of the ten steps (docs/rules.md)


class SNIMissing(Refused):
    step = 1
    code = "sni_missing"
    says = "The device named no server."
    mend = "Connect to {host} by name."


class SNIUnknown(Refused):
    step = 1
    code = "sni_unknown"
    says = "{name} is not a host of this service."
    mend = "Use {host}."


class OrgUnknown(Refused):
    step = 1
    code = "org_unknown"
    says = "Neither server name nor client ID names an org that is here."
    mend = "Connect to <orgId>.messaging.{domain}, with a client ID that begins with d:<orgId>: ."


class ClientIdInvalid(Refused):
    step = 2
    code = "client_id_invalid"
    says = "The client ID is not of a form this service knows."
    mend = "Write d:{org}:type:device."


class OrgMismatch(Refused):
    step = 2
    code = "org_mismatch"
    says = "{what} says {a}, {where} {b}."
    mend = "Use one org."


class TLSRequired(Refused):
    step = 3
    code = "tls_required"
    says = "{level} needs TLS."
    mend = "Connect with it."


class CertificateMissing(Refused):
    step = 3
    code = "certificate_missing"
    says = "{level} needs a certificate."
    mend = "Give the device its own."


class CertificateMalformed(Refused):
    step = 4
    code = "certificate_malformed"
    says = "The certificate cannot be read: {found}."
    mend = "Export it again as PEM or DER."


class KeyUnreadable(CertificateMalformed):
    """A certificate whose public key cannot be read; its other fields can."""


class NoTrustedCA(Refused):
    step = 5
    code = "no_trusted_ca"
    says = "No CA is active."
    mend = "Add the CA that signs your devices' certificates."


class UntrustedIssuer(Refused):
    step = 6
    code = "untrusted_issuer"
    says = "Issued by {issuer}, not among your CAs."
    mend = "If it is yours, add it; or let the device send its intermediates."


class SignatureInvalid(Refused):
    step = 6
    code = "signature_invalid"
    says = "Not signed by {issuer}'s key: forged, or another CA of that name."
    mend = "Add that one only if it is yours."


class ChainInvalid(Refused):
    step = 6
    code = "chain_invalid"
    says = "{subject} may not sign this: {limit}."
    mend = "Reissue."


class WeakKey(Refused):
    step = 6
    code = "weak_key"
    says = "{found} is weak or of an unsupported kind."
    mend = "Reissue with RSA 2048 or P-256 and SHA-256."


class WeakSignature(Refused):
    step = 6
    code = "weak_signature"
    says = "Signed with {found}."
    mend = "Reissue with SHA-256."


class CAInactive(Refused):
    step = 6
    code = "ca_inactive"
    says = "{subject} is deactivated{when}."
    mend = "Activate it if that was wrong."


class CertificateExpired(Refused):
    step = 7
    code = "certificate_expired"
    says = "Ended {time}."
    mend = "Issue a new one."


class CertificateNotYetValid(Refused):
    step = 7
    code = "certificate_not_yet_valid"
    says = "Begins {time}."
    mend = "Check the issuer's clock."


class CAExpired(Refused):
    step = 7
    code = "ca_expired"
    says = "CA {subject} ended {time}."
    mend = "Add its successor."


class WrongKeyUsage(Refused):
    step = 8
    code = "wrong_key_usage"
    says = "{found}."
    mend = "Reissue as a {wanted}."


class CertificateRevoked(Refused):
    step = 9
    code = "certificate_revoked"
    says = "Denied since {time}."
    mend = "If that was wrong, take it off the deny list."


class IdentityMissing(Refused):
    step = 10
    code = "identity_missing"
    says = "The certificate names no device: {found}."
    mend = "Reissue with CN {name}."


class IdentityMismatch(Refused):
    step = 10
    code = "identity_mismatch"
    says = "It is {found}; the client ID says {expected}."
    mend = "Connect as the one it is. Case counts."


class TypeCertificateRefused(Refused):
    step = 10
    code = "type_certificate_refused"
    says = "Stands for every {type}."
    mend = "Switch type certificates on, or give each device its own."

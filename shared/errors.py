"""All errors that this project returns to callers, as one tree.

    TrustError                 has a stable `code`, a sentence about the error, and a sentence of advice
    ├── BadRequest             400  the request cannot be decoded: JSON, multipart, base64, a field's name or type
    ├── NotAuthenticated       401
    ├── Forbidden              403
    ├── NotFound               404
    ├── Conflict               409  the request is valid, but the current state does not allow it
    ├── Stale                  412  the resource was changed by another caller
    ├── TooLarge               413
    ├── RateLimited            429
    ├── StoreUnavailable       503  nothing was changed, or the change may be repeated
    ├── Overloaded             503  too much waits, or takes too long; nothing was changed
    ├── IssuerUnavailable      503  the OIDC issuer does not answer
    ├── Rejected               422  the content of the request is not acceptable
    │   └── Refused                 the same, and also a refusal of a connecting device (verifyClient)

`says` describes the error and `mend` gives advice. Both are templates, filled with the *facts* that are given where the
error is raised. Facts are visible to users: a key, passphrase or token is never a fact. The console shows the same
sentences; this module is their only source.

functions/web/problem.py maps the first level of the tree to HTTP statuses, in one table.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol


class FaultyCertificate(Protocol):
    """What an error shows of a certificate; `shared.x509.certificate.Certificate` has more."""

    @property
    def subject_text(self) -> str:
        """The subject for people."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal."""


class TrustError(Exception):
    """Base of all errors that are returned to callers.

    Args:
        field: the request field that caused the error, or None.
        part: for an error of a rule, the part of what was sent that caused the error, in snake case: `private_key`,
            `rules[0].device_type`. The request field of a part has the same name in camel case.
        cert: the certificate that caused the error, or None.
        facts: values for the templates `says` and `mend`, printable strings or numbers.
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
        """The error in one sentence."""
        return self.says.format_map(_Facts(self.facts))

    @property
    def advice(self) -> str:
        """Advice in one or two sentences; may be empty."""
        return self.mend.format_map(_Facts(self.facts))


def _camel_case(part: str) -> str:
    first, *rest = part.split("_")
    return first + "".join(word.capitalize() for word in rest)


class _Facts(dict[str, Any]):
    """Facts for a template. A missing fact is replaced by its own name, so that formatting never fails."""

    def __missing__(self, key: str) -> str:
        return key


def every_error() -> Iterator[type[TrustError]]:
    """Yield each error class that has a code, in the order of this module."""
    pending: list[type[TrustError]] = [TrustError]
    while pending:
        kind = pending.pop(0)
        pending[:0] = kind.__subclasses__()
        if "code" in vars(kind):
            yield kind


# ---------------------------------------------------------------------------------------- the request itself


class BadRequest(TrustError):
    """400: the request cannot be decoded as the fields of its endpoint."""


class WrongValue(BadRequest):
    """A field's value has the wrong type, or is outside the field's range."""

    code = "wrong_value"
    says = "{found}."
    mend = ""


class NotAuthenticated(TrustError):
    """401: the caller has no valid API key or token."""

    code = "not_authenticated"
    says = "The API key or its token is wrong."
    mend = (
        "Send the API key as user name and its token as password (HTTP Basic). If the token is lost, create a new key."
    )


class TokenRefused(NotAuthenticated):
    """A token of the OIDC issuer that is not valid."""

    code = "token_refused"
    says = "The sign-in is not accepted: {found}."
    mend = "Sign in again."


class Forbidden(TrustError):
    """403: the caller is known and not allowed to make this call."""

    code = "forbidden"
    says = "This API key has the role {role}; this call needs the role {needed}."
    mend = "Use an API key with the role {needed}."


class RoleNotGranted(Forbidden):
    """A valid token that names no organization and role of this service."""

    code = "role_not_granted"
    says = "Your sign-in names {found}."
    mend = (
        "Ask the administrator of the sign-in service for an organization that exists here, "
        "and for the role viewer or operator."
    )


class NotFound(TrustError):
    """404: the resource does not exist, or the caller may not know about it."""

    code = "not_found"
    says = "There is no {what} here."
    mend = "Look at the list for what is there."


class OrgGone(NotFound):
    """The organization was deleted while a call of one of its members ran, also if its id was created again."""

    code = "org_gone"
    says = "The organization {org} was deleted."
    mend = "Nothing can be changed in it any more. If the id was created again, use a key of the new organization."


class Conflict(TrustError):
    """409: the current state does not allow the change."""


class Stale(TrustError):
    """412: the resource is not at the caller's version any more."""

    code = "stale"
    says = "{who} changed this record at {when}."
    mend = "Read the record again, then repeat the change with the new version in If-Match."


class TooLarge(TrustError):
    """413: the request is too large."""

    code = "file_too_large"
    says = "{size} were sent; at most {limit} are taken."
    mend = "{hint}"


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
    """The key service does not answer, or does not allow this function to use the master key."""

    code = "keys_unavailable"
    says = "The key service does not answer; nothing was changed, or the change is safe to repeat."


class Overloaded(TrustError):
    """503: this service has too much to do. Nothing was changed."""

    code = "overloaded"
    says = "Too many requests are waiting; this one was not started."
    mend = "Try again in a few seconds."


class KeyWorkUnavailable(Overloaded):
    """A private key was not opened or made in time."""

    code = "key_work_unavailable"
    says = "The private key could not be opened or made in time; nothing was changed."
    mend = "Try again in a minute."


class IssuerUnavailable(TrustError):
    """503: a token cannot be verified, because the OIDC issuer does not answer."""

    code = "issuer_unavailable"
    says = "The sign-in service does not answer."
    mend = "Try again in a minute, or use an API key."


# ------------------------------------------------------------------------------------------------------------ conflicts


class TooManyCAs(Conflict):
    """The organization has the largest number of CA certificates."""

    code = "too_many_cas"
    says = "The organization has {limit} CA certificates already; at most {limit} are allowed."
    mend = "Delete a CA certificate that no device needs any more, then add this CA certificate again."


class TooManyCAsOfOneName(Conflict):
    """The organization has the largest number of CA certificates with the same subject."""

    code = "too_many_cas_of_one_name"
    says = (
        "The organization has {limit} CA certificates with the subject {subject} already; at most {limit} CA "
        "certificates may have the same subject."
    )
    mend = (
        "Delete a CA certificate with this subject that no device needs any more, then add this CA certificate again."
    )


class TooManyDenials(Conflict):
    """The organization has the largest number of entries on its deny list."""

    code = "too_many_denials"
    says = "The deny list of this organization has {limit} entries already."
    mend = (
        "Take entries off the list that are no longer needed, for example those of certificates that have expired. "
        "To refuse many devices at once, deny or deactivate the CA that issued their certificates."
    )


class TooManyServerCertificates(Conflict):
    """The organization has the largest number of server certificates and requests."""

    code = "too_many_server_certificates"
    says = "The organization has {limit} server certificates and requests already; at most {limit} are allowed."
    mend = "Delete a server certificate or a request that is not needed any more, then repeat the call."


class ActiveCertificate(Conflict):
    """The active server certificate cannot be deleted."""

    code = "active_certificate"
    says = "This certificate is active: devices see it when they connect."
    mend = "Activate another certificate first."


class RequestNotFulfilled(Conflict):
    """A certificate request that has no certificate yet."""

    code = "csr_not_fulfilled"
    says = "This is a certificate request, and its certificate is missing."
    mend = "Have the request signed by your CA, and upload the certificate to the request first."


class AlreadyFulfilled(Conflict):
    """A certificate request that has another certificate already."""

    code = "already_fulfilled"
    says = "This request has another certificate already."
    mend = "To replace that certificate, renew it: a renewal makes a new request with the same key."


class DomainInUse(Conflict):
    """A custom domain that the active server certificate is for cannot be removed."""

    code = "domain_in_use"
    says = "The active server certificate is for {host}."
    mend = "Activate another certificate first, then remove {domain}."


class OrgSuspended(Forbidden):
    """The organization is suspended. Also a refusal of a device: step 1 of verifyClient."""

    step: ClassVar[int] = 1
    code = "org_suspended"
    says = "The organization is suspended."
    mend = "Ask the platform's operator."


class DocumentTooLarge(Conflict):
    """A document would exceed the limit of all stores (shared.ports.MAX_BODY_BYTES)."""

    code = "document_too_large"
    says = "With this, {size} bytes would be kept together; {limit} fit."
    mend = "Delete what is not needed any more, or shorten comments, then repeat."


class RotationRefused(Conflict):
    """The key service does not allow the rotation of the master key."""

    code = "rotation_refused"
    says = "The master key {key} cannot be rotated: {found}."
    mend = "{hint}"


class TooBusy(Conflict):
    """A change lost against concurrent changes too often."""

    code = "too_busy"
    says = "Other calls changed the same record each time this call tried to change it; this change was not made."
    mend = "Repeat the call in a few seconds."


# ----------------------------------------------------------------------------------------------------------- rejections


class Rejected(TrustError):
    """422: the request can be decoded, and its content is not acceptable."""


class Refused(Rejected):
    """A rejection that is also a refusal of a device.

    *step*: the step of verifyClient that refuses with it, from 1 to 10 (docs/rules.md)."""

    step: ClassVar[int]


class NotACertificate(Rejected):
    """A file that contains no certificate, or an invalid certificate."""

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
    """A file with several certificates, where one is expected."""

    code = "several_certificates"
    says = "{n} certificates are in the file."
    mend = "Save the CA certificate alone in a file."


class TooComplex(Rejected):
    """A certificate with more parts than a decision can afford to read (`shared.x509.budget`)."""

    code = "too_complex"
    says = "The certificate has {found}."
    mend = "Have the certificate issued with fewer of them."


class PrivateKeyGiven(Rejected):
    """A file with a private key, where a certificate is expected."""

    code = "private_key_given"
    says = "A private key is in this file; it was not kept."
    mend = "Choose the certificate alone. If others may have seen this file, make a new key."


class CSRGiven(Rejected):
    """A file with a certificate request, where a certificate is expected."""

    code = "csr_given"
    says = "This is a certificate request, not a certificate."
    mend = "Have the request signed by your CA, and upload the certificate."


class NotACA(Rejected):
    """A certificate that is not a CA certificate (RFC 5280, 4.2.1.3 and 4.2.1.9)."""

    code = "not_a_ca"
    says = "This is not a CA certificate: {found}."
    mend = "{hint}"


class SelfSignatureInvalid(Rejected):
    """A self-signed certificate whose signature is not valid."""

    code = "self_signature_invalid"
    says = "The certificate's own signature is not valid."
    mend = "Copy the certificate again from where it was made."


class PrivateKeyMissing(Rejected):
    """A server certificate without its private key."""

    code = "private_key_missing"
    says = "The certificate's private key is missing."
    mend = "Add the private key file."


class NotAKey(Rejected):
    """A file that contains no private key, or an invalid private key."""

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
    """A key whose algorithm or size is not supported."""

    code = "key_unsupported"
    says = "{key} is not a key that MQTT servers can use."
    mend = "Use a key of RSA 2048 to 4096 bits, P-256 or P-384."


class PassphraseRequired(Rejected):
    """An encrypted private key without a passphrase."""

    code = "passphrase_required"
    says = "This private key is encrypted."
    mend = "Enter the passphrase of the key."


class PassphraseWrong(Rejected):
    """A passphrase that does not decrypt the private key."""

    code = "passphrase_wrong"
    says = "{found}."
    mend = "{hint}"

    def __init__(
        self,
        *,
        part: str | None = None,
        found: str = "The passphrase does not open the key",
        hint: str = "Type the passphrase again; the files are fine as they are.",
    ) -> None:
        super().__init__(part=part, found=found, hint=hint)


class PassphraseUnneeded(Rejected):
    """A passphrase for a private key that is not encrypted."""

    code = "passphrase_unneeded"
    says = "This private key is not encrypted."
    mend = "Leave the passphrase empty."


class KdfTooCostly(Rejected):
    """An encrypted private key whose key derivation would take too much time or memory."""

    code = "kdf_too_costly"
    says = "To open this key takes {found} of key derivation; the limit is {limit}."
    mend = "Encrypt the key again: {command}"


class KeyMismatch(Rejected):
    """A private key that does not belong to the certificate."""

    code = "key_mismatch"
    says = "{found}."
    mend = "{hint}"

    def __init__(
        self,
        *,
        part: str | None = None,
        cert: FaultyCertificate | None = None,
        found: str = "The key belongs to another certificate",
        hint: str = "Choose the key that was made for this certificate.",
    ) -> None:
        super().__init__(part=part, cert=cert, found=found, hint=hint)


class ChainBroken(Rejected):
    """A chain with a certificate that did not sign the certificate before it."""

    code = "chain_broken"
    says = "{subject} did not sign the certificate before it."
    mend = "Send the leaf with the certificates that lead from it to its root, and no others."


class ChainTooLong(Rejected):
    """A chain with too many certificates."""

    code = "chain_too_long"
    says = "{n} certificates were sent; at most {limit} are taken."
    mend = "Send only those that lead from the leaf to its root."


class HostMismatch(Rejected):
    """A server certificate that is not valid for the organization's host."""

    code = "host_mismatch"
    says = "The certificate is for {names}; the host of this organization is {host}{note}."
    mend = "Have a certificate issued with {host} as DNS name or CN."


class UseFulfil(Rejected):
    """An upload of a certificate that belongs to a waiting request."""

    code = "use_fulfil"
    says = "This certificate belongs to the request {id}, which has no certificate yet."
    mend = "Upload the certificate to that request; the request has the private key."


class DomainReserved(Rejected):
    """A custom domain that belongs to the platform."""

    code = "domain_reserved"
    says = "{domain} belongs to the platform."
    mend = "List a domain of your own."


class NotAHost(Rejected):
    """A common name that is not a host of the organization."""

    code = "host_not_allowed"
    says = "{host} is not a host of this organization."
    mend = "Use {hosts}. For a custom domain, list the domain in the settings first."


class Misplaced(Rejected):
    """An upload to an object store under a key with no meaning."""

    code = "upload_misplaced"
    says = "{place} is no place for an upload."
    mend = "Put it under {org}/ca/, {org}/server/ or, named by the request's id, {org}/csr/."


class InvalidPolicy(Rejected):
    """A connection policy that is not valid."""

    code = "policy_invalid"
    says = "{found}."
    mend = "{hint}"


class InvalidDenial(Rejected):
    """An entry of the deny list that is not valid."""

    code = "denial_invalid"
    says = "{found}."
    mend = "{hint}"


class UseRefused(Rejected):
    """A refusal to a broker that asks about one topic, queue or virtual host."""

    code = "use_refused"
    says = "The topic, queue or virtual host does not belong to {device}."
    mend = "Let the client use topics under {prefix} only."


class InvalidSubject(Rejected):
    """A subject field of a certificate request that CAs refuse (RFC 5280, appendix A.1)."""

    code = "subject_invalid"
    says = "{found}."
    mend = "{hint}"


# -------------------------------------------------- refusals of a device, in the order of the ten steps (docs/rules.md)


class SNIMissing(Refused):
    """The device sent no server name (RFC 6066, section 3)."""

    step = 1
    code = "sni_missing"
    says = "The device sent no server name (SNI): it connects by IP address, or its MQTT library has SNI off."
    mend = "Connect to {host}."


class SNIUnknown(Refused):
    """The server name is not a host of this service."""

    step = 1
    code = "sni_unknown"
    says = "{name} is not a host of this service."
    mend = "Connect to {host}."


class DomainSwitchedOff(SNIUnknown):
    """The server name is on a custom domain that is listed, and custom domains are switched off."""

    says = "The custom domain {domain} is listed, but custom domains are switched off."
    mend = "Switch custom domains on under Connection security, or connect to {host}."


class OrgUnknown(Refused):
    """Neither the server name nor the client ID names an existing organization."""

    step = 1
    code = "org_unknown"
    says = "Neither the server name nor the client ID names an organization of this service."
    mend = "Connect to <orgId>.messaging.{domain}, with a client ID that begins with d:<orgId>: ."


class ClientIdInvalid(Refused):
    """The client ID does not have a known form."""

    step = 2
    code = "client_id_invalid"
    says = "The client ID has none of the forms that this service knows.{unnamed}"
    mend = "Set the client ID to d:{org}:type:device, with the type and the id of the device.{also}"

    def __init__(self, *, is_unnamed: bool = False, **facts: Any) -> None:
        unnamed = " The certificate names no device either." if is_unnamed else ""
        also = " Issue the certificate again with CN d:type:device of the same device." if is_unnamed else ""
        super().__init__(unnamed=unnamed, also=also, **facts)


class OrgMismatch(Refused):
    """Two parts of the connection name different organizations."""

    step = 2
    code = "org_mismatch"
    says = "The {what} names the organization {a}, and the {where} names {b}."
    mend = "Use the same organization in both."


class TLSRequired(Refused):
    """The organization's policy requires TLS."""

    step = 3
    code = "tls_required"
    says = "The security level of this device, {level}, requires TLS."
    mend = "Connect with TLS."


class CertificateMissing(Refused):
    """The organization's policy requires a client certificate."""

    step = 3
    code = "certificate_missing"
    says = "The security level of this device, {level}, requires a certificate, and the device sent none."
    mend = "Give the device a certificate of its own, or change the security level."


class CertificateMalformed(Refused):
    """The client certificate cannot be decoded."""

    step = 4
    code = "certificate_malformed"
    says = "The certificate cannot be read: {found}."
    mend = "{hint}"

    def __init__(
        self,
        *,
        found: str,
        hint: str = "Issue a new certificate with software that follows RFC 5280, such as OpenSSL.",
        cert: FaultyCertificate | None = None,
    ) -> None:
        super().__init__(found=found, hint=hint, cert=cert)


class NoTrustedCA(Refused):
    """The organization has no active CA certificate."""

    step = 5
    code = "no_trusted_ca"
    says = "No CA certificate of this organization is active."
    mend = "{hint}"

    def __init__(self, *, hint: str = "Add the CA certificate that signs your devices' certificates.") -> None:
        super().__init__(hint=hint)


class UntrustedIssuer(Refused):
    """The issuer is not among the organization's CA certificates."""

    step = 6
    code = "untrusted_issuer"
    says = "The certificate was issued by {issuer}, which is not among your CA certificates."
    mend = "If {issuer} is your CA, add its certificate, or let the device send its intermediate certificates."


class IssuerNotPassed(UntrustedIssuer):
    """The issuer is not registered, and the broker passes no certificate but the device's own."""

    mend = (
        "If {issuer} is your CA, add its certificate. This broker passes the device's own certificate alone, so the "
        "intermediate certificates that the device sends do not arrive."
    )


class SelfSigned(UntrustedIssuer):
    """The certificate was signed with its own key, so no CA vouches for it."""

    says = "The certificate is self-signed: {issuer} is its own issuer, and no CA vouches for it."
    mend = "Issue the device's certificate from a CA, and add that CA's certificate."


class SignatureInvalid(Refused):
    """The signature was not made by the CA's key."""

    step = 6
    code = "signature_invalid"
    says = "A CA named {issuer} is registered, but this certificate was signed with another key."
    mend = "If you created that CA again, add the new CA certificate; the registered one can stay."


class ChainInvalid(Refused):
    """A certificate of the path may not sign the next one (RFC 5280, section 6.1.4)."""

    step = 6
    code = "chain_invalid"
    says = "{subject} may not sign this certificate: {limit}."
    mend = "Issue the certificates again without that limit."


class ChainTooCostly(ChainInvalid):
    """Judging the certificates costs more than one decision may cost (`shared.x509.budget`)."""

    says = "The certificates are too costly to check: a decision takes at most {limit}."
    mend = "{hint}"


class WeakKey(Refused):
    """A key of the path is weak or not supported."""

    step = 6
    code = "weak_key"
    says = "The key {found} is weak, or of a kind that is not supported."
    mend = "Issue the certificate again with a new key of RSA 2048 bits or P-256."


class WeakSignature(Refused):
    """A signature of the path uses a weak algorithm."""

    step = 6
    code = "weak_signature"
    says = "The certificate is signed with {found}, which is not secure."
    mend = "Issue the certificate again, signed with SHA-256."


class CAInactive(Refused):
    """The CA certificate is deactivated."""

    step = 6
    code = "ca_inactive"
    says = "The CA certificate {subject} is deactivated{when}."
    mend = "If its devices may connect, activate the CA certificate."


class CertificateExpired(Refused):
    """The client certificate is expired."""

    step = 7
    code = "certificate_expired"
    says = "The certificate expired {age} ({time})."
    mend = "Issue a new certificate."


class CertificateNotYetValid(Refused):
    """The client certificate is not valid yet."""

    step = 7
    code = "certificate_not_yet_valid"
    says = "The certificate is valid only from {time} ({age})."
    mend = "Wait, or correct the clock of the machine that issues certificates and issue the certificate again."


class CAExpired(Refused):
    """The CA certificate is expired."""

    step = 7
    code = "ca_expired"
    says = "The CA certificate {subject} expired {age} ({time})."
    mend = "Add the CA certificate that replaces it."


class WrongKeyUsage(Refused):
    """The client certificate may not be used for client authentication (RFC 5280, 4.2.1.3 and 4.2.1.12)."""

    step = 8
    code = "wrong_key_usage"
    says = "{found}."
    mend = "Issue the certificate again {wanted}."


class CertificateRevoked(Refused):
    """The client certificate is on the organization's deny list."""

    step = 9
    code = "certificate_revoked"
    says = "The device or its certificate is on the deny list since {time}."
    mend = "If that is wrong, remove the entry from the deny list."


class IdentityMissing(Refused):
    """The client certificate contains no device identity."""

    step = 10
    code = "identity_missing"
    says = "The certificate names no device: {found}."
    mend = "Issue the certificate again with CN {name}."


class IdentityMismatch(Refused):
    """The client certificate's identity is not that of the client ID."""

    step = 10
    code = "identity_mismatch"
    says = "The certificate is for {found}, and the client ID is for {expected}.{case}"
    mend = "Set the client ID to {client}, or issue a certificate with CN {expected}."


class TypeCertificateRefused(Refused):
    """The client certificate is for a device type, and the policy does not allow this."""

    step = 10
    code = "type_certificate_refused"
    says = "The certificate is for every device of the type {type}, and type certificates are switched off."
    mend = "Switch type certificates on, or give each device a certificate of its own."

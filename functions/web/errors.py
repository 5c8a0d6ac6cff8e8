"""Refusals of HTTP itself: the request cannot be read, or HTTP does not allow it."""

from shared.errors import BadRequest, Forbidden, TrustError


class MalformedBody(BadRequest):
    """The body is not valid JSON or multipart/form-data."""

    code = "malformed_body"
    says = "The body cannot be read as {format}: {found}."
    mend = "Send {format} as the documentation of this call shows."


class TooManyFields(BadRequest):
    """A query or a form has more fields or escapes than any request of this API."""

    code = "too_many_fields"
    says = "The query or form has more than {fields} fields, or more than {escapes} characters that are escaped with %."
    mend = "Send the documented fields only, a large one in a JSON body."


class BodyLate(TrustError):
    """408 (RFC 9110, 15.5.9): the body did not arrive in time."""

    code = "request_timeout"
    says = "The body did not arrive within {seconds} s."
    mend = "Send the request again."


class MalformedBase64(BadRequest):
    """A field is neither PEM text nor base64."""

    code = "malformed_base64"
    says = "{field_name} is neither PEM text nor base64."
    mend = "Send PEM as text, or DER in base64."


class UnknownField(BadRequest):
    """A field that the endpoint does not have."""

    code = "unknown_field"
    says = "This call has no field {name}."
    mend = "It takes {known}."


class MissingField(BadRequest):
    """A required field is missing."""

    code = "missing_field"
    says = "The request has no field {name}, which this call requires."
    mend = "Send the request again with the field {name}."


class InsecureTransport(Forbidden):
    """A private key, or a page of the feed, was requested over plain HTTP."""

    code = "insecure_transport"
    says = "The request came over plain HTTP, and the service sends this answer over TLS only."
    mend = (
        "Send the request again with an address that begins with https://. For an edge on the same machine as the "
        "functions, without a proxy between them, set TRUST_EDGE_PLAIN=loopback at the functions."
    )


class MethodNotAllowed(TrustError):
    """405: the path does not have this method."""

    code = "method_not_allowed"
    says = "{method} is not a method of this address."
    mend = "It takes {allowed}."


class UnsupportedMediaType(TrustError):
    """415: the content type is not supported."""

    code = "unsupported_media_type"
    says = "The content type {found} is not taken here."
    mend = "Send application/json or multipart/form-data."


class PreconditionRequired(TrustError):
    """428 (RFC 6585, section 3): the If-Match header is missing."""

    code = "precondition_required"
    says = "A change needs the version it is based on."
    mend = "Send If-Match with the version you read, or If-Match: * to override."

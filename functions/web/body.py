"""Request bodies as typed values: JSON and multipart/form-data, with the same fields."""

import base64
import binascii
import re
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from functions.web.errors import MalformedBase64, MalformedBody, MissingField, UnknownField, UnsupportedMediaType
from functions.web.message import JSON, Request
from shared.errors import BadRequest, TooLarge, WrongValue

BODY_MAX: Final = 256 * 1024  # bytes of one request
_PARTS_MAX: Final = 8  # of multipart/form-data: no form of this API has more fields
_CONTENT_TYPE_MAX: Final = 1024  # characters: its parameters take longer to read than most of a form
_VALUES_MAX: Final = 40_000  # of a JSON body

FORM_DATA: Final = "multipart/form-data"

Comments = Annotated[str, Meta(max_length=1000, description="Up to 1,000 characters")]
File = Annotated[str, Meta(description="PEM as text, or DER in base64")]
"""A file in a field. In multipart/form-data it is the file itself."""
Short = Annotated[str, Meta(max_length=256)]

T = TypeVar("T")


class Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of request bodies: camelCase names; unknown fields are refused."""


def read_body(request: Request, kind: type[T], *, values_max: int = _VALUES_MAX) -> T:
    """Return the body of *request* as *kind*, a msgspec Struct. *values_max*: see `parse_json_object`.

    Raises: MalformedBody, UnknownField, MissingField, WrongValue, TooLarge, UnsupportedMediaType.
    """
    check_size(request)
    media = media_type(request)
    if is_json(media):
        return convert(parse_json_object(request.body, values_max=values_max), kind)
    if media == FORM_DATA:
        return convert(_parse_form(request.headers["content-type"], request.body), kind, from_text=True)
    raise UnsupportedMediaType(found=media[:100] or "(none)")


def check_size(request: Request) -> None:
    """Refuse a body that is larger than BODY_MAX. Raises: TooLarge."""
    if len(request.body) > BODY_MAX:
        raise body_too_large(len(request.body))


def body_too_large(size: int | None = None) -> TooLarge:
    """Return the refusal of a body of *size* bytes, or of unknown size."""
    return TooLarge(
        size=f"{size:,} bytes" if size else f"More than {BODY_MAX:,} bytes",
        limit=f"{BODY_MAX:,} bytes (256 KiB)",
        hint="Send the certificate alone.",
    )


def media_type(request: Request) -> str:
    """Return the media type of the body without parameters, in lower case; JSON if the request names none."""
    return request.headers.get("content-type", JSON).partition(";")[0].strip().lower()


def is_json(media: str) -> bool:
    """Whether *media* is JSON or a format based on JSON (RFC 6839, 3.1)."""
    return media == JSON or media.endswith("+json")


def parse_json_object(body: bytes, *, reason: str | None = None, values_max: int = _VALUES_MAX) -> dict[str, Any]:
    """Return the JSON object in *body*.

    Args:
        values_max: how many values the body may have, in objects and arrays.
        reason: what a refusal of malformed JSON says in place of the parser's message.

    The values are counted first, because each costs far more time and memory than its few bytes. A bracket or comma in
    a text counts as well.

    Raises: MalformedBody.
    """
    if sum(map(body.count, (b"[", b"{", b","))) > values_max:
        raise MalformedBody(format="JSON", found=f"it has more than {values_max:,} values")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        message = "it is empty" if not body else str(error)[:200] or "it is nested too deep"
        raise MalformedBody(format="JSON", found=reason or message) from None
    if not isinstance(value, dict):
        raise MalformedBody(format="JSON", found="it is no object")
    return value


class _FormFields:
    """Callbacks of the multipart parser. A file's bytes become base64, as JSON carries DER."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.is_complete = False

    def add_field(self, part: Any) -> None:
        self.values[_name(part.field_name)] = (part.value or b"").decode("utf-8", "replace")

    def add_file(self, part: Any) -> None:
        part.file_object.seek(0)
        self.values[_name(part.field_name)] = base64.b64encode(part.file_object.read()).decode()
        part.close()

    def end(self) -> None:
        self.is_complete = True


def _name(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


def _parse_form(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of a multipart/form-data body (RFC 7578). Raises: MalformedBody."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import FormParser, parse_options_header

    fields = _FormFields()
    if len(content_type) > _CONTENT_TYPE_MAX:
        raise MalformedBody(format="multipart/form-data", found="its Content-Type is too long")
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    try:
        if not boundary:
            raise FormParserError("its boundary is missing")
        if body.count(b"--" + boundary) > _PARTS_MAX + 1:  # the last ends the form
            raise FormParserError(f"it has more than {_PARTS_MAX} parts")
        parser = FormParser("multipart/form-data", fields.add_field, fields.add_file, fields.end, boundary=boundary)
        parser.write(body)
        parser.finalize()
        if body and not fields.is_complete:  # the part that was cut off may have been a field
            raise FormParserError("its end is missing")
    except FormParserError as error:
        raise MalformedBody(format="multipart/form-data", found=str(error)[:200]) from None
    if not fields.values and body.strip(b"-\r\n \t"):
        raise MalformedBody(format="multipart/form-data", found="there is no field in it")
    return fields.values


# The forms of msgspec's messages (its documentation, "Usage", "Typed Decoding").
_PATH: Final = r" - at `\$\.?(.*?)`$"
_UNKNOWN: Final = r"(?s)Object contains unknown field `(.*?)`"
_MISSING: Final = r"Object missing required field `(.*?)`"


def convert(value: object, kind: type[T], *, from_text: bool = False) -> T:
    """Return *value*, decoded JSON, as *kind*.

    Args:
        from_text: all values are text, as a form sends them.

    Raises: UnknownField, MissingField, WrongValue.
    """
    try:
        return msgspec.convert(value, kind, strict=not from_text)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), kind) from None


def _refusal(message: str, kind: type) -> BadRequest:
    """Return the refusal for one of msgspec's messages."""
    path = match[1] if (match := re.search(_PATH, message)) else ""
    message = re.sub(_PATH, "", message)
    prefix = f"{path}." if path else ""
    if unknown := re.search(_UNKNOWN, message):
        name = unknown[1][:64]
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(kind)) if not path else "others"
        return UnknownField(field=prefix + name, name=prefix + name, known=known)
    if missing := re.search(_MISSING, message):
        return MissingField(field=prefix + missing[1], name=prefix + missing[1])
    return WrongValue(field=path or None, found=f"{path or 'The body'} {_words(message, kind, path)}")


_ENUM: Final = r"(?s)Invalid enum value (.*)"
_TYPE: Final = r"Expected `([^`]*)`, got `([^`]*)`"
_LENGTH: Final = r"Expected `(?:str|array|object)` of length (<=|>=) (\d+)"
_TYPES: Final = {  # JSON's types in words
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def _words(message: str, kind: type, path: str) -> str:
    """Return one of msgspec's messages about a value as the rest of a sentence."""
    if invalid := re.search(_ENUM, message):
        choices = _choices(msgspec.inspect.type_info(kind), path)
        value = invalid[1].rstrip(".").strip("'\"")[:64]
        return f"cannot be {value!r}. It takes one of: {', '.join(choices)}" if choices else f"cannot be {value!r}"
    if length := re.search(_LENGTH, message):
        return f"takes {'at most' if length[1] == '<=' else 'at least'} {int(length[2]):,} characters or parts"
    if expected := re.search(_TYPE, message):
        wanted = " or ".join(_TYPES.get(name.strip(), name.strip()) for name in expected[1].split("|"))
        return f"takes {wanted}, not {_TYPES.get(expected[2], expected[2])}"
    return f"is not valid: {message[:300]}"


def _choices(kind: msgspec.inspect.Type, path: str) -> list[str]:
    """Return the values that the field at *path* takes; empty where it is no choice."""
    for name in re.findall(r"[^.\[\]]+|\[\.\.\.\]|\[\d+\]", path):
        if isinstance(kind, msgspec.inspect.UnionType):
            kind = next((each for each in kind.types if not isinstance(each, msgspec.inspect.NoneType)), kind)
        if isinstance(kind, msgspec.inspect.StructType):
            kind = next((field.type for field in kind.fields if field.encode_name == name), kind)
        elif isinstance(kind, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
            kind = kind.item_type
    if isinstance(kind, msgspec.inspect.UnionType):
        kind = next((each for each in kind.types if isinstance(each, msgspec.inspect.EnumType)), kind)
    return [str(member.value) for member in kind.cls] if isinstance(kind, msgspec.inspect.EnumType) else []


_BASE64: Final = r"[A-Za-z0-9+/]*={0,2}"


def file_bytes(value: str, name: str) -> bytes:
    """Return the file in the field *name*: PEM as text, or DER in base64.

    Text that is neither is returned as it is; the rule that parses the file reports what is wrong.

    Raises: MalformedBase64.
    """
    if "-----BEGIN" in value:
        return value.encode()
    packed = "".join(value.split())
    if not re.fullmatch(_BASE64, packed):
        return value.encode("utf-8", "replace")
    try:
        return base64.b64decode(packed, validate=True)
    except binascii.Error:
        raise MalformedBase64(field=name, field_name=name) from None

"""The API reference as one page of HTML, made from the API's description (`infra.openapi`)."""

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from infra.doc_page import doc_page

_PREFIX: Final = "/api/v0002"
_INTRODUCTION: Final = f"""\
<p>Every address begins with <code>{_PREFIX}</code>, except those that are written here from the root. The same
description for programs, in OpenAPI 3.1: <a href="../openapi.json">openapi.json</a>.</p>
<h2>Callers</h2>
<p>Send an API key and its token with HTTP Basic, the key as user name and the token as password. Members of an
organization may also send a token of the OpenID Connect issuer (<code>Authorization: Bearer</code>), where the service
has one. The organization follows from the key or the token. An operator may do everything that a viewer may.</p>
<h2>Versions</h2>
<p>The answer about a stored thing has its version in the header <code>ETag</code>. A change sends the version that was
read in <code>If-Match</code>: a change that another caller made meanwhile is then not lost.</p>
<h2>Errors</h2>
<p>An error is a problem document (RFC 9457): <code>detail</code> says what is wrong and what to do, <code>code</code>
is for programs, and <code>violations</code> names the fields. <a href="errors/">Each code has a page.</a></p>
<h2>Lists</h2>
<p>A list has <code>results</code> and a <code>bookmark</code>. Send the bookmark to get the next page; the last
page has none.</p>
"""


def api_page(document: Mapping[str, Any]) -> str:
    """Return the page. *document*: the API's description."""
    operations: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            operations.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    schemas = document["components"]["schemas"]
    contents = "".join(
        f'<li><a href="#function-{tag}">{tag}</a><ul>{"".join(map(_link, listed))}</ul></li>\n'
        for tag, listed in operations.items()
    )
    parts = [
        f'{_INTRODUCTION}<nav aria-label="Operations"><h2>Functions</h2>\n<ul class="contents">{contents}</ul></nav>\n'
    ]
    for tag, listed in operations.items():
        parts.append(f'<section aria-labelledby="function-{tag}"><h2 id="function-{tag}">{tag}</h2>\n')
        parts += [_operation(method, path, operation, schemas) for method, path, operation in listed]
        parts.append("</section>\n")
    parts.append('<section aria-labelledby="things"><h2 id="things">Things</h2>\n')
    parts += [_schema(name, schema) for name, schema in sorted(schemas.items()) if name != "Code"]
    parts.append("</section>\n")
    return doc_page("API reference", "".join(parts), root="../")


def _link(listed: tuple[str, str, Mapping[str, Any]]) -> str:
    method, path, operation = listed
    return f'<li><a href="#{operation["operationId"]}">{method} {html.escape(_short(path))}</a></li>'


def _short(path: str) -> str:
    return path.removeprefix(_PREFIX)


def _operation(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    name = operation["operationId"]
    parts = [
        f'<article aria-labelledby="{name}"><h3 id="{name}"><code>{method} {html.escape(_short(path))}</code></h3>\n',
        f"<p>{html.escape(operation['summary'])}.</p>\n",
        f'<p class="muted">{html.escape(operation.get("description", "No caller is needed."))}</p>\n',
    ]
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [(item["name"], item["in"], item.get("description", "")) for item in parameters]
        parts.append(_table("Parameters", ("Name", "In", "Meaning"), rows))
    if "requestBody" in operation:
        media = " or ".join(operation["requestBody"]["content"])
        schema = next(iter(operation["requestBody"]["content"].values()))["schema"]
        parts.append(f"<p>Body ({html.escape(media)}): {_type(schema)}</p>\n")
    answers, refusals = [], []
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        if "application/problem+json" in content:
            refusals.append(f"<li>{status}: {', '.join(map(_code, response['description'].split(', ')))}</li>")
        else:
            kinds = " or ".join(
                _type(item["schema"]) if "json" in media else html.escape(media.partition(";")[0])
                for media, item in content.items()
            )
            answers.append(f"<li>{status} {html.escape(response['description'])}{': ' + kinds if kinds else ''}</li>")
    parts.append(f"<p>Answers:</p>\n<ul>{''.join(answers)}</ul>\n")
    if refusals:
        parts.append(f"<details><summary>Errors</summary><ul>{''.join(refusals)}</ul></details>\n")
    return "".join(parts) + "</article>\n"


def _code(code: str) -> str:
    return f'<a href="errors/{html.escape(code)}">{html.escape(code)}</a>'


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f'<article aria-labelledby="{name}"><h3 id="{name}">{name}</h3>\n']
    if schema.get("description"):
        parts.append(f"<p>{_marked(schema['description'])}</p>\n")
    if "properties" in schema:
        required = schema.get("required", [])
        rows = []
        for field, kind in schema["properties"].items():
            notes = [kind.get("description", ""), "" if field in required else "Optional."]
            if kind.get("default") not in (None, "", [], {}):
                notes.append(f"Default: {kind['default']}.")
            rows.append((field, _Markup(_type(kind)), " ".join(filter(None, notes))))
        parts.append(_table("Fields", ("Field", "Type", "Meaning"), rows))
    else:
        parts.append(f"<p>{_type(schema)}</p>\n")
    return "".join(parts) + "</article>\n"


class _Markup(str):
    """A text that is HTML already."""


def _table(caption: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    lines = "".join(f"<tr>{''.join(_cells(row))}</tr>\n" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table class="fields">'
        f'<caption class="sr">{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>\n"
    )


def _cells(row: tuple[str, ...]) -> Iterator[str]:
    yield f'<th scope="row"><code>{html.escape(row[0])}</code></th>'
    for value in row[1:]:
        yield f"<td>{value if isinstance(value, _Markup) else html.escape(value)}</td>"


def _type(schema: Mapping[str, Any]) -> str:
    """Return the type of a value as HTML, with links to the things that it is made of."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{name}</a>'
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(map(_type, schema[key]))
    if "enum" in schema:
        return " or ".join(f"<code>{html.escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("items")
        return f"list of {_type(items)}" if items else "list"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return html.escape(str(schema.get("type", "any value")))


def _marked(text: str) -> str:
    """Return a description as HTML: names of fields between asterisks, values between backquotes."""
    escaped = html.escape(" ".join(text.split()))
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", re.sub(r"\*([A-Za-z0-9]+)\*", r"<code>\1</code>", escaped))

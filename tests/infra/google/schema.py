"""Read the schema of hashicorp/google's resources from the npm package that was generated from it.

HashiCorp's provider is not available everywhere, but `@cdktf/provider-google` is. The package has a class for each
resource, with a table of its arguments (`synthesizeHclAttributes`), nested blocks as functions of the same form,
required arguments as TypeScript types, and computed attributes as getters. No part of the package is stored here.
"""

import re
from pathlib import Path
from typing import Any, Final

_SIMPLE: Final = {"string": "string", "number": "number", "boolean": "bool"}
_COLLECTION: Final = {"List": "list", "Set": "set", "Map": "map"}
_ARGUMENT: Final = re.compile(
    r'(\w+): \{\s*value: (.*?),\s*isBlock: (true|false),\s*type: "(\w+)",\s*storageClassType: "(\w+)"', re.S
)
_BLOCK: Final = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}", re.S | re.M)
_OUTPUTS: Final = re.compile(r"^class (\w+)OutputReference extends.*?\{\n(.*?)^\}", re.S | re.M)
_CLASS: Final = re.compile(r"^class (\w+) extends cdktf\.Terraform(?:Resource|DataSource) \{\n(.*?)^\}", re.S | re.M)
_INTERFACE: Final = re.compile(r"^export interface (\w+)(?: extends [\w.]+)? \{\n(.*?)^\}", re.S | re.M)
_PROPERTY: Final = re.compile(r"/\*\*((?:(?!\*/).)*)\*/\s*readonly (\w+)(\??): ([^;]+);", re.S)
_GETTER: Final = re.compile(r"this\.get(\w+)Attribute\('(\w+)'\)")
_NESTED: Final = re.compile(r'this\._\w+ = new [\w.]+\(this, "(\w+)"')
_COMPUTED: Final = {
    "String": "string",
    "Number": "number",
    "Boolean": "bool",
    "List": ["list", "string"],
    "StringMap": ["map", "string"],
    "NumberList": ["list", "number"],
}

Schema = dict[str, Any]


def find_types(folder: Path) -> set[str]:
    """Return the types in a folder of Terraform files: `google_kms_key_ring`, `data.google_project`."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.tf")))
    declarations = re.findall(r'^(resource|data) "(google_\w+)"', text, re.M)
    return {name if kind == "resource" else f"data.{name}" for kind, name in declarations}


def read_schema(package: Path, types: set[str]) -> Schema:
    """Return the attributes and blocks of each type. *package* is node_modules/@cdktf/provider-google."""
    return {name: _read_resource(package / "lib" / _folder(name), name) for name in sorted(types)}


def _folder(name: str) -> str:
    kind, _, rest = name.partition("google_")
    return ("data-google-" if kind else "") + rest.replace("_", "-")


def _read_resource(folder: Path, name: str) -> Schema:
    source = (folder / "index.js").read_text(encoding="utf-8")
    declaration = re.search(r'tfResourceType = "(\w+)"', source)
    assert declaration is not None, name
    assert declaration[1] == name.removeprefix("data."), name
    return _Resource(source, (folder / "index.d.ts").read_text(encoding="utf-8")).schema()


class _Resource:
    def __init__(self, source: str, types: str) -> None:
        self._functions = {match[1]: match[2] for match in _BLOCK.finditer(source)}
        self._outputs = {match[1].lower(): match[2] for match in _OUTPUTS.finditer(source)}
        whole = _CLASS.search(source)
        assert whole is not None
        self._name, self._class = whole[1], whole[2]
        # Interface -> argument -> (required, repeatable)
        self._declared = {
            match[1].lower(): {
                _argument(comment, name): (not optional, "[]" in kind)
                for comment, name, optional, kind in _PROPERTY.findall(match[2])
            }
            for match in _INTERFACE.finditer(types)
        }

    def schema(self) -> Schema:
        outputs, _, arguments = self._class.partition("synthesizeHclAttributes() {")
        return self._block(arguments, f"{self._name}Config", outputs)

    def _block(self, arguments: str, interface: str, outputs: str) -> Schema:
        attributes: Schema = {}
        blocks: Schema = {}
        for name, value, is_block, kind, stored in _ARGUMENT.findall(arguments):
            required, many = self._declared.get(interface.lower(), {}).get(name, (False, False))
            if is_block == "true":
                inner = re.findall(r"(?<!\.)\b(\w+)ToHclTerraform", value)[-1]
                blocks[name] = {
                    "nesting": {"struct": "single"}.get(kind, kind),
                    "required": required,
                    "max": 0 if many or kind == "struct" else 1,
                    "block": self._block(self._functions[inner], inner, self._outputs.get(inner.lower(), "")),
                }
            else:
                attributes[name] = {"type": _type(kind, stored), "required": required, "optional": not required}
        for kind, name in _GETTER.findall(outputs):
            if name not in attributes and name not in blocks:
                attributes[name] = {"type": _COMPUTED.get(kind, "dynamic"), "computed": True}
        for name in _NESTED.findall(outputs):
            if name not in attributes and name not in blocks:
                attributes[name] = {"type": "dynamic", "computed": True}
        return {"attributes": attributes, "blocks": blocks}


def _argument(comment: str, name: str) -> str:
    """Return the argument's name in Terraform, which the link in the comment ends with."""
    link = re.search(r"docs/(?:resources|data-sources)/\w+#(\w+)", comment)
    return link[1] if link else re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match[1].lower(), name)


def _type(kind: str, stored: str) -> Any:
    if kind == "simple":
        return _SIMPLE.get(stored, "dynamic")
    match = re.fullmatch(r"(string|number|boolean)(List|Map|Set)?", stored)
    if match is None:
        return "dynamic"
    return [kind if kind in ("list", "set", "map") else _COLLECTION[match[2]], _SIMPLE[match[1]]]

"""What hashicorp/google's resources are made of, read from the npm package that was generated from its schema.

HashiCorp's provider cannot be had everywhere; its names, types and required arguments can: `@cdktf/provider-google`
holds a class for each resource, with a table of its arguments (`synthesizeHclAttributes`), nested blocks as functions
of the same form, what is required as TypeScript types, and computed attributes as getters. Nothing of it is kept here.
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


def used(folder: Path) -> set[str]:
    """The types in a folder of Terraform files: `google_kms_key_ring`, `data.google_project`."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.tf")))
    found = re.findall(r'^(resource|data) "(google_\w+)"', text, re.M)
    return {name if kind == "resource" else f"data.{name}" for kind, name in found}


def schema(package: Path, types: set[str]) -> Schema:
    """Type -> its attributes and blocks. *package* is node_modules/@cdktf/provider-google."""
    return {name: _of(package / "lib" / _folder(name), name) for name in sorted(types)}


def _folder(name: str) -> str:
    kind, _, rest = name.partition("google_")
    return ("data-google-" if kind else "") + rest.replace("_", "-")


def _of(folder: Path, name: str) -> Schema:
    source = (folder / "index.js").read_text(encoding="utf-8")
    declared = re.search(r'tfResourceType = "(\w+)"', source)
    assert declared is not None, name
    assert declared[1] == name.removeprefix("data."), name
    return _Resource(source, (folder / "index.d.ts").read_text(encoding="utf-8")).schema()


class _Resource:
    def __init__(self, source: str, types: str) -> None:
        self._functions = {found[1]: found[2] for found in _BLOCK.finditer(source)}
        self._outputs = {found[1].lower(): found[2] for found in _OUTPUTS.finditer(source)}
        whole = _CLASS.search(source)
        assert whole is not None
        self._name, self._class = whole[1], whole[2]
        # Interface -> argument -> (required, may stand several times)
        self._declared = {
            found[1].lower(): {
                _argument(comment, name): (not optional, "[]" in kind)
                for comment, name, optional, kind in _PROPERTY.findall(found[2])
            }
            for found in _INTERFACE.finditer(types)
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
    """The argument's name in Terraform; the comment's link ends in it."""
    link = re.search(r"docs/(?:resources|data-sources)/\w+#(\w+)", comment)
    return link[1] if link else re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: "_" + found[1].lower(), name)


def _type(kind: str, stored: str) -> Any:
    if kind == "simple":
        return _SIMPLE.get(stored, "dynamic")
    found = re.fullmatch(r"(string|number|boolean)(List|Map|Set)?", stored)
    if found is None:
        return "dynamic"
    return [kind if kind in ("list", "set", "map") else _COLLECTION[found[2]], _SIMPLE[found[1]]]

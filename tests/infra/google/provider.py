"""A stand-in for the provider hashicorp/google: Terraform validates, plans and "applies" against it.

The stand-in has the real names and types (schema.py), and a memory in place of a cloud. It verifies names, types,
required arguments and references, but nothing of what Google itself would check.

It runs in a Python of its own (requirements.txt beside it): Terraform's plugin protocol needs an older protobuf.
"""

import json
import os
from pathlib import Path
from typing import Any

import msgpack
import tf.provider
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc
from tf.runner import run_provider

SCHEMA = json.loads(Path(os.environ["TRUST_TEST_GOOGLE_SCHEMA"]).read_text(encoding="utf-8"))
UNKNOWN = msgpack.ExtType(0, b"\x00")
# What Google fills in if it is not given: the generated classes do not distinguish optional from optional and computed.
FILLED = {"id", "project", "region", "location", "generation", "etag"}
NESTING = pb.Schema.NestedBlock


def is_computed(name: str, attribute: dict[str, Any]) -> bool:
    return bool(attribute.get("computed")) or (name in FILLED and not attribute.get("required"))


def make_block(schema: dict[str, Any]) -> Any:
    return pb.Schema.Block(
        attributes=[
            pb.Schema.Attribute(
                name=name,
                type=json.dumps(attribute["type"]).encode(),
                required=bool(attribute.get("required")),
                optional=bool(attribute.get("optional")) and not attribute.get("required"),
                computed=is_computed(name, attribute),
            )
            for name, attribute in schema["attributes"].items()
        ],
        block_types=[make_nested_block(name, nested) for name, nested in schema["blocks"].items()],
    )


def make_nested_block(name: str, nested: dict[str, Any]) -> Any:
    kinds = {"list": NESTING.LIST, "set": NESTING.SET, "single": NESTING.SINGLE, "map": NESTING.MAP}
    single = nested["nesting"] == "single"
    return NESTING(
        type_name=name,
        block=make_block(nested["block"]),
        nesting=kinds[nested["nesting"]],
        min_items=1 if nested["required"] and not single else 0,
        max_items=0 if single else nested["max"],
    )


def fill_computed(schema: dict[str, Any], planned: Any, before: Any, value: Any) -> Any:
    """Return *planned* with its computed attributes: as they were before, or else value(name, type)."""
    if not isinstance(planned, dict):
        return planned
    known = before if isinstance(before, dict) else {}
    result = dict(planned)
    for name, attribute in schema["attributes"].items():
        if is_computed(name, attribute) and (result.get(name) is None or isinstance(result[name], msgpack.ExtType)):
            result[name] = known[name] if known.get(name) is not None else value(name, attribute["type"])
    for name, nested in schema["blocks"].items():
        inner, old = result.get(name), known.get(name)
        if isinstance(inner, list):
            olds = old if isinstance(old, list) else []
            result[name] = [
                fill_computed(nested["block"], item, olds[at] if at < len(olds) else None, value)
                for at, item in enumerate(inner)
            ]
        elif isinstance(inner, dict):
            result[name] = fill_computed(nested["block"], inner, old, value)
    return result


def invent_value(name: str, kind: Any) -> Any:
    if isinstance(kind, list):
        return {} if kind[0] == "map" else []
    return {"string": f"stub-{name}", "number": 0, "bool": False}.get(kind)


def mark_unknown(name: str, kind: Any) -> Any:
    return None if kind == "dynamic" else UNKNOWN


def decode(value: Any) -> Any:
    if value.msgpack:
        return msgpack.unpackb(value.msgpack, ext_hook=msgpack.ExtType, strict_map_key=False)
    return json.loads(value.json) if value.json else None


def encode(value: Any) -> Any:
    return pb.DynamicValue(msgpack=msgpack.packb(value))


class Provider(rpc.ProviderServicer):  # type: ignore[misc]
    """Terraform's plugin protocol, version 6."""

    def GetMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's names
        return pb.GetMetadata.Response()

    def GetProviderSchema(self, request: Any, context: Any) -> Any:  # noqa: N802
        own = [pb.Schema.Attribute(name=name, type=b'"string"', optional=True) for name in ("project", "region")]
        return pb.GetProviderSchema.Response(
            provider=pb.Schema(block=pb.Schema.Block(attributes=own)),
            provider_meta=pb.Schema(block=pb.Schema.Block()),
            resource_schemas={
                name: pb.Schema(block=make_block(schema))
                for name, schema in SCHEMA.items()
                if not name.startswith("data.")
            },
            data_source_schemas={
                name.removeprefix("data."): pb.Schema(block=make_block(schema))
                for name, schema in SCHEMA.items()
                if name.startswith("data.")
            },
        )

    def ValidateProviderConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ValidateDataResourceConfig.Response()

    def ConfigureProvider(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ConfigureProvider.Response()

    def UpgradeResourceState(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.UpgradeResourceState.Response(upgraded_state=pb.DynamicValue(json=request.raw_state.json))

    def ReadResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ReadResource.Response(new_state=request.current_state)

    def PlanResourceChange(self, request: Any, context: Any) -> Any:  # noqa: N802
        new, old = decode(request.proposed_new_state), decode(request.prior_state)
        if new is None:
            return pb.PlanResourceChange.Response(planned_state=request.proposed_new_state)
        planned = fill_computed(SCHEMA[request.type_name], new, old, mark_unknown)
        return pb.PlanResourceChange.Response(planned_state=encode(planned))

    def ApplyResourceChange(self, request: Any, context: Any) -> Any:  # noqa: N802
        new = decode(request.planned_state)
        if new is not None:
            named = new.get("name") or new.get("account_id") or new.get("secret_id")
            new = fill_computed(
                SCHEMA[request.type_name],
                new,
                None,
                lambda name, kind: f"{request.type_name}/{named}" if name == "id" else invent_value(name, kind),
            )
        return pb.ApplyResourceChange.Response(new_state=encode(new))

    def ReadDataSource(self, request: Any, context: Any) -> Any:  # noqa: N802
        schema = SCHEMA[f"data.{request.type_name}"]
        state = fill_computed(schema, decode(request.config), None, invent_value)
        return pb.ReadDataSource.Response(state=encode(state))

    def StopProvider(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.StopProvider.Response()


if __name__ == "__main__":
    tf.provider.ProviderServicer = lambda provider: Provider()
    run_provider(None)

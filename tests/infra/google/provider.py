"""A stand-in for the provider hashicorp/google: Terraform validates, plans and "applies" against it.

It has the real names and types (schema.py), and a memory in place of a cloud: it proves names, types, required
arguments and references; nothing of what Google would say.

Runs in a Python of its own (requirements.txt beside it): Terraform's plugin protocol needs an older protobuf.
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
# What Google fills in where it is not given: the generated classes do not tell optional from optional and computed.
FILLED = {"id", "project", "region", "location", "generation", "etag"}
NESTING = pb.Schema.NestedBlock


def is_computed(name: str, attribute: dict[str, Any]) -> bool:
    return bool(attribute.get("computed")) or (name in FILLED and not attribute.get("required"))


def block(made_of: dict[str, Any]) -> Any:
    return pb.Schema.Block(
        attributes=[
            pb.Schema.Attribute(
                name=name,
                type=json.dumps(one["type"]).encode(),
                required=bool(one.get("required")),
                optional=bool(one.get("optional")) and not one.get("required"),
                computed=is_computed(name, one),
            )
            for name, one in made_of["attributes"].items()
        ],
        block_types=[nested(name, one) for name, one in made_of["blocks"].items()],
    )


def nested(name: str, one: dict[str, Any]) -> Any:
    kinds = {"list": NESTING.LIST, "set": NESTING.SET, "single": NESTING.SINGLE, "map": NESTING.MAP}
    single = one["nesting"] == "single"
    return NESTING(
        type_name=name,
        block=block(one["block"]),
        nesting=kinds[one["nesting"]],
        min_items=1 if one["required"] and not single else 0,
        max_items=0 if single else one["max"],
    )


def filled(made_of: dict[str, Any], wanted: Any, before: Any, value: Any) -> Any:
    """*wanted* with its computed attributes: as they were before, else value(name, type)."""
    if not isinstance(wanted, dict):
        return wanted
    known = before if isinstance(before, dict) else {}
    made = dict(wanted)
    for name, one in made_of["attributes"].items():
        if is_computed(name, one) and (made.get(name) is None or isinstance(made[name], msgpack.ExtType)):
            made[name] = known[name] if known.get(name) is not None else value(name, one["type"])
    for name, one in made_of["blocks"].items():
        inner, old = made.get(name), known.get(name)
        if isinstance(inner, list):
            olds = old if isinstance(old, list) else []
            made[name] = [
                filled(one["block"], each, olds[at] if at < len(olds) else None, value) for at, each in enumerate(inner)
            ]
        elif isinstance(inner, dict):
            made[name] = filled(one["block"], inner, old, value)
    return made


def invented(name: str, kind: Any) -> Any:
    if isinstance(kind, list):
        return {} if kind[0] == "map" else []
    return {"string": f"stub-{name}", "number": 0, "bool": False}.get(kind)


def later(name: str, kind: Any) -> Any:
    return None if kind == "dynamic" else UNKNOWN


def opened(value: Any) -> Any:
    if value.msgpack:
        return msgpack.unpackb(value.msgpack, ext_hook=msgpack.ExtType, strict_map_key=False)
    return json.loads(value.json) if value.json else None


def closed(value: Any) -> Any:
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
                name: pb.Schema(block=block(one)) for name, one in SCHEMA.items() if not name.startswith("data.")
            },
            data_source_schemas={
                name.removeprefix("data."): pb.Schema(block=block(one))
                for name, one in SCHEMA.items()
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
        new, old = opened(request.proposed_new_state), opened(request.prior_state)
        if new is None:
            return pb.PlanResourceChange.Response(planned_state=request.proposed_new_state)
        return pb.PlanResourceChange.Response(planned_state=closed(filled(SCHEMA[request.type_name], new, old, later)))

    def ApplyResourceChange(self, request: Any, context: Any) -> Any:  # noqa: N802
        new = opened(request.planned_state)
        if new is not None:
            named = new.get("name") or new.get("account_id") or new.get("secret_id")
            new = filled(
                SCHEMA[request.type_name],
                new,
                None,
                lambda name, kind: f"{request.type_name}/{named}" if name == "id" else invented(name, kind),
            )
        return pb.ApplyResourceChange.Response(new_state=closed(new))

    def ReadDataSource(self, request: Any, context: Any) -> Any:  # noqa: N802
        made_of = SCHEMA[f"data.{request.type_name}"]
        return pb.ReadDataSource.Response(state=closed(filled(made_of, opened(request.config), None, invented)))

    def StopProvider(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.StopProvider.Response()


if __name__ == "__main__":
    tf.provider.ProviderServicer = lambda provider: Provider()
    run_provider(None)

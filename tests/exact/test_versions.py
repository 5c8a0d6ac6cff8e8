"""No document that a verdict reads is written because of a connection: else every connection would forget verdicts."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from shared.ports import Key, Version
from tests.exact.world import DENY_LIST, World, opened
from tests.support.stores import Place

STEPS, STEP = 20, timedelta(seconds=3)  # a minute of the clock that the test moves


def versions_of(world: World) -> Mapping[Key, Version]:
    """Return the version of every document below the partitions that verdicts read."""
    store = world.changing.store
    partitions = ("org", "ca/mtxpd0", "deny/mtxpd0", "key/mtxpd0", "key/platform", "caindex", "denycount/mtxpd0")
    found = {partition: store.list(partition, limit=1000) for partition in partitions}
    assert all(found.values()), "a partition has another name"
    return {document.key: document.version for documents in found.values() for document in documents}


@pytest.mark.stores("sqlite")  # which documents are written does not depend on the store
def test_connections_write_nothing_that_a_verdict_reads(tmp_path: Path, place: Place) -> None:
    """Allowed, refused and continued clients connect for a minute; their events are delivered each second."""
    with opened(tmp_path, place) as world:
        world.operator.post(DENY_LIST, {"kind": "identity", "value": "d:thermo:denied"}).ok(201)
        before = versions_of(world)
        for step in range(STEPS):
            world.clock.now += STEP
            for request in world.questions():
                world.compare(request)
            if step % 5 == 4:
                world.remembering.queue.flush()
                world.fresh.queue.flush()
        assert {"allowed", "untrusted_issuer", "certificate_missing"} <= set(world.codes)
        assert versions_of(world) == before
        day = world.clock.now.strftime("%Y-%m-%d")
        assert world.changing.store.get_many([Key("usage/mtxpd0", day)]), "the connections were recorded"

"""The certificates that clients presented, apart from the refusals that name them: a ring for each organization.

Anyone can present a certificate, and as many as he likes. So each certificate is stored once, by its fingerprint, and
an organization has 500 of them at most. Of these, strangers hold 100 at most: clients whose path reached no CA of the
organization. Allowed devices hold 400 at most, spread over their CAs and types. The newest certificates stay.

A certificate is stored with the last connection of its client: once a day, and on the same day when the client connects
in another way (server name, client ID, chain, outcome), CHANGES_MAX times. A client that connects often in the same way
causes no write.

    shownindex/{orgId}          the ring: the line of each certificate
    shown/{orgId}/{fingerprint} the certificate with its chain

The index is written first. A call that is cut short leaves a line without a certificate, or a certificate without a
line, which the store deletes when it expires. No verdict reads either.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Final

import msgspec
from msgspec.structs import replace

from shared.connection_records import ConnectionEvent, ShownChain, ShownIndex, ShownKind, ShownLine
from shared.org_repository import OrgRepository
from shared.refs import shown_index_ref, shown_ref
from shared.repository import KEEP_USAGE
from shared.validation.presented import split_presented

CERTIFICATES_MAX: Final = 500  # of an organization
KIND_MAX: Final = {ShownKind.STRANGER: 100, ShownKind.ALLOWED: 400, ShownKind.REFUSED: CERTIFICATES_MAX}
CHAIN_MAX: Final = 16 * 1024  # bytes of DER of one chain
BATCH_MAX: Final = 6  # chains in one batch of connection events, of 256 KiB at most (Amazon SQS)
_READ_AT_ONCE: Final = 100  # of at most 16 KiB each
CHANGES_MAX: Final = 24  # times a day that a certificate is stored again, because its client connects in another way
_WAY_DIGITS: Final = 12
_REMEMBERED_MAX: Final = 8192  # certificates that a process sent

_FIRST: Final = {ShownKind.REFUSED: 0, ShownKind.ALLOWED: 1, ShownKind.STRANGER: 2}


class ShownCertificates:
    """The owner of the certificates that the clients of one organization presented."""

    def __init__(self, repository: OrgRepository) -> None:
        self._repository = repository
        self._org_id = repository.org_id

    def chains(self, fingerprints: Collection[str]) -> Mapping[str, Sequence[bytes]]:
        """Return what was sent with each of the leaves *fingerprints* that is stored, leaf first, in one read."""
        refs = {fingerprint: shown_ref(self._org_id, fingerprint) for fingerprint in fingerprints}
        if not refs:
            return {}
        batch = self._repository.read_batch(refs.values())
        stored = {fingerprint: batch.get(ref) for fingerprint, ref in refs.items()}
        return {fingerprint: shown.chain for fingerprint, shown in stored.items() if shown and shown.chain}

    def newest_first(self) -> Iterator[ShownChain]:
        """Yield what is stored with a chain, the newest first. Raises: StoreUnavailable."""
        index = self._repository.get(shown_index_ref(self._org_id))
        lines = sorted(index.lines.items() if index else (), key=lambda item: item[1].at, reverse=True)
        for start in range(0, len(lines), _READ_AT_ONCE):
            refs = [shown_ref(self._org_id, fingerprint) for fingerprint, _ in lines[start : start + _READ_AT_ONCE]]
            batch = self._repository.read_batch(refs)
            yield from (shown for ref in refs if (shown := batch.get(ref)) is not None and shown.chain)

    def add(self, chains: Sequence[ShownChain]) -> None:
        """Store those of *chains* that are new or renew what is stored; delete what the ring has no room for.

        Raises: OrgGone, TooBusy, StoreUnavailable."""
        if not chains:
            return
        expires = max(shown.at for shown in chains) + KEEP_USAGE
        new: list[ShownChain] = []
        dropped: list[str] = []
        for attempt in self._repository.changing(shown_index_ref(self._org_id), expires=expires):
            with attempt as index:
                lines, new, dropped = add_lines(index.lines if index else {}, chains)
                if new:
                    attempt.write(ShownIndex(lines))
        for shown in new:
            for write in self._repository.changing(
                shown_ref(self._org_id, shown.fingerprint), expires=shown.at + KEEP_USAGE
            ):
                with write:
                    write.write(shown)
        for fingerprint in dropped:
            self._repository.delete(shown_ref(self._org_id, fingerprint))


def add_lines(
    lines: Mapping[str, ShownLine], chains: Iterable[ShownChain]
) -> tuple[dict[str, ShownLine], list[ShownChain], list[str]]:
    """Return the ring with *chains*, those of them that must be stored, and the fingerprints that must be deleted."""
    ring, new, dropped = dict(lines), dict[str, ShownChain](), list[str]()
    newest = max((shown.at for shown in chains), default=None)
    for fingerprint, line in lines.items():
        if newest is not None and line.at + KEEP_USAGE < newest:  # the store deletes the certificate
            del ring[fingerprint]
    for shown in chains:
        before = ring.pop(shown.fingerprint, None)
        if before is not None and not _renews(shown, before):
            ring[shown.fingerprint] = before
            continue
        if before is None:
            for fingerprint in _make_room(ring, shown.kind):
                del ring[fingerprint]
                if new.pop(fingerprint, None) is None:
                    dropped.append(fingerprint)
        line = _line_of(shown, before)
        ring[shown.fingerprint] = line
        new[shown.fingerprint] = replace(shown, kind=line.kind, group=line.group, at=line.at)
    return ring, list(new.values()), [fingerprint for fingerprint in dropped if fingerprint not in ring]


def _renews(shown: ShownChain, before: ShownLine) -> bool:
    """Return whether *shown* is stored although the ring has its certificate.

    Any change of a client's way to connect is stored, so that the last connection counts; not more often than
    CHANGES_MAX a day, because a client may alternate, and devices may share a certificate."""
    if shown.at < before.last:  # a queue delivers late
        return False
    if before.kind is ShownKind.STRANGER and shown.kind is not ShownKind.STRANGER:
        return True
    is_now_strange = _is_now_strange(shown, before)
    is_new_day = shown.at.date() > before.last.date()
    if is_new_day and not is_now_strange:
        return True
    has_other_kind = shown.kind is not before.kind and not is_now_strange
    return (has_other_kind or _way_of(shown) != before.way) and (is_new_day or before.changes < CHANGES_MAX)


def _is_now_strange(shown: ShownChain, before: ShownLine | ShownChain) -> bool:
    """Return whether a certificate that reached a CA reaches none now: its CA is deleted, or its chain has less."""
    return shown.kind is ShownKind.STRANGER and before.kind is not ShownKind.STRANGER


def _line_of(shown: ShownChain, before: ShownLine | None) -> ShownLine:
    """Return the line of *shown*. A certificate that reaches no CA any more keeps its place, and gains no time."""
    is_same_day = before is not None and before.last.date() == shown.at.date()
    changes = before.changes + 1 if before is not None and is_same_day else 0
    if before is not None and _is_now_strange(shown, before):
        return ShownLine(before.kind, before.at, before.group, _way_of(shown), changes, last_at=shown.at)
    return ShownLine(shown.kind, shown.at, shown.group, _way_of(shown), changes)


def _way_of(shown: ShownChain) -> str:
    """Return a digest of everything that a verdict on the client depends on."""
    way = (shown.server_name, shown.client_id, shown.no_sni, shown.leaf_only, shown.is_cut, shown.chain)
    return sha256(msgspec.msgpack.encode(way)).hexdigest()[:_WAY_DIGITS]


def _make_room(ring: Mapping[str, ShownLine], kind: ShownKind) -> list[str]:
    """Return the fingerprint that must leave *ring* before a certificate of *kind* enters; empty if there is room."""
    of_kind = {fingerprint: line for fingerprint, line in ring.items() if line.kind is kind}
    if len(of_kind) >= KIND_MAX[kind]:
        candidates = of_kind
    elif len(ring) >= CERTIFICATES_MAX:
        candidates = dict(ring)
    else:
        return []
    sizes = Counter((line.kind, line.group) for line in candidates.values() if line.group)
    largest = max(sizes.values(), default=0)
    if kind is ShownKind.ALLOWED and largest > 1:  # the largest CA and type gives way to the others
        candidates = {key: line for key, line in candidates.items() if sizes[(line.kind, line.group)] == largest}
    return [min(candidates, key=lambda fingerprint: candidates[fingerprint].at)]


# -------------------------------------------------------------------------------------------------- what is sent


class ShownMemory:
    """What a process sent today, so that a device that connects often takes no place in each batch. Not thread-safe.

    A process does not know what others sent. So the store decides again, by the same rule."""

    def __init__(self) -> None:
        self._sent: OrderedDict[tuple[str, str], ShownLine] = OrderedDict()
        self._ways: dict[tuple[str, str], bytes] = {}  # `ConnectionEvent.way` of what was sent

    def take_new(self, org_id: str, events: Iterable[ConnectionEvent]) -> tuple[ShownChain, ...]:
        """Return the chains in *events* that are to be stored, BATCH_MAX at most: refused devices' first.

        Of several connections with one certificate, the last counts. A certificate that reached a CA is no stranger's,
        whatever its client sent last."""
        last: dict[str, ShownChain] = {}
        ways: dict[str, bytes] = {}
        skipped: dict[str, ShownLine] = {}  # connections that were sent before, of certificates without another one
        for event in events:
            if event.fingerprint is None:
                continue
            if event.fingerprint not in last and self._was_sent(org_id, event.fingerprint, event):
                skipped[event.fingerprint] = self._sent[org_id, event.fingerprint]
                continue
            shown = _shown(event)
            if shown is None:
                continue
            before = last.get(shown.fingerprint) or skipped.get(shown.fingerprint)
            if before is not None and _is_now_strange(shown, before):
                shown = replace(shown, kind=before.kind, group=before.group)
            last[shown.fingerprint], ways[shown.fingerprint] = shown, event.way
        new = [shown for shown in last.values() if self._is_new(org_id, shown)]
        new = sorted(new, key=lambda shown: (_FIRST[shown.kind], -shown.at.timestamp()))[:BATCH_MAX]
        for shown in new:
            key = (org_id, shown.fingerprint)
            self._sent[key] = _line_of(shown, self._sent.get(key))
            self._sent.move_to_end(key)
            self._ways[key] = ways[shown.fingerprint]
            if len(self._sent) > _REMEMBERED_MAX:
                oldest, _ = self._sent.popitem(last=False)
                self._ways.pop(oldest, None)
        return tuple(new)

    def _was_sent(self, org_id: str, fingerprint: str, event: ConnectionEvent) -> bool:
        """Return whether the same connection of today was sent last. Most connections are such, and cost no more."""
        key = (org_id, fingerprint)
        sent = self._sent.get(key)
        has_chain = event.unread is not None or bool(event.chain)  # a full buffer drops chains
        if sent is None or not has_chain or not event.way or self._ways.get(key) != event.way:
            return False
        return sent.kind is _kind_of(event) and sent.last.date() == event.at.date()

    def _is_new(self, org_id: str, shown: ShownChain) -> bool:
        sent = self._sent.get((org_id, shown.fingerprint))
        return sent is None or shown.at.date() > sent.last.date() or _renews(shown, sent)


def _shown(event: ConnectionEvent) -> ShownChain | None:
    """Return the chain of *event*, cut to CHAIN_MAX; None without a certificate, or if the leaf is too large."""
    chain, size = [], 0
    sent = event.chain if event.unread is None else split_presented(*event.unread)
    for der in sent:
        size += len(der)
        if size > CHAIN_MAX:
            break
        chain.append(der)
    if not chain or event.fingerprint is None:
        return None
    kind = _kind_of(event)
    group = f"{event.ca_id}/{_type_of(event.identity)}" if kind is ShownKind.ALLOWED else ""
    return ShownChain(
        fingerprint=event.fingerprint,
        kind=kind,
        group=group,
        at=event.at,
        chain=tuple(chain),
        is_cut=event.is_cut or len(chain) < len(sent),
        server_name=event.server_name,
        client_id=event.client_id,
        no_sni=event.no_sni,
        leaf_only=event.leaf_only,
    )


def _kind_of(event: ConnectionEvent) -> ShownKind:
    if event.decision != "deny":
        return ShownKind.ALLOWED
    return ShownKind.REFUSED if event.reached_ca else ShownKind.STRANGER


def _type_of(identity: str | None) -> str:
    """Return the class and type of `d:type:device`."""
    return (identity or "").rpartition(":")[0]

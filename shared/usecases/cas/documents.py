"""The documents of an organization's CA certificates, and the only way to change them.

    ca/{orgId}/{name}   the CA certificates of one subject name. *name* is the beginning of the digest of that name, and
                        of the id of each CA, so that a verdict finds the CAs by the issuer name of a certificate
    caindex/{orgId}     the ids of all CA certificates, each with whether the CA is active. Holds the limits of an
                        organization under any number of concurrent uploads
    org/{orgId}         the flag `has_ca`: devices must name their server by SNI

A registration reserves a place in the index, then stores the CA, then sets the flag; a deletion goes the other way. So
the index may name a CA too many, which a sweep mends, but never misses one.

A CA that is on the deny list bears a mark (`denied_at`), because a client often does not send its CA. An upload and a
change of the deny list both write first and refresh the mark afterwards: the later of the two finds the other's write.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from shared.errors import NotFound, TooManyCAs, TooManyCAsOfOneName
from shared.records import CA, Activity, CAIndex, CAsOfOneName, CAStatus, Denial, DenialKind
from shared.repository import Attempt, Batch, Ref, Repository, ca_index_ref, cas_ref
from shared.usecases.context import count_in_window
from shared.usecases.denials import DenyList
from shared.usecases.organization import Organization
from shared.validation.deny_list import certificate_ids
from shared.validation.verdict import Anchor
from shared.x509.cache import read_registered
from shared.x509.certificate import Certificate

CAS_MAX: Final = 1_000  # of an organization
CAS_OF_ONE_NAME_MAX: Final = 10
_NAME: Final = 16  # hex digits of a subject name's digest: the id of a document, and the beginning of a CA's id
_FINGERPRINT: Final = 32  # hex digits of a certificate's SHA-256 at the end of a CA's id


class Added(msgspec.Struct, frozen=True):
    """The result of `CACertificates.add`: the stored CA.

    Args:
        is_new: whether the CA was not registered before.
        sets_sni: whether devices must name their server by SNI from now on, and did not have to before.
    """

    ca: CA
    is_new: bool
    sets_sni: bool


class CACertificates:
    """The registered CA certificates of one organization."""

    def __init__(self, repository: Repository, org_id: str) -> None:
        self._repository = repository
        self._org_id = org_id
        self._partition = f"ca/{org_id}"
        self.index_ref = ca_index_ref(org_id)

    def _ref(self, ca_id: str) -> Ref[CAsOfOneName]:
        """Return the ref of a CA's document. A digest of the subject name, or its beginning, serves as well."""
        return cas_ref(self._org_id, ca_id[:_NAME])

    # ------------------------------------------------------------------------------------------------- reading

    def find(self, ca_id: str) -> CA | None:
        return self.list_same_name(ca_id).get(ca_id)

    def get(self, ca_id: str) -> CA:
        """Raises: NotFound."""
        return _get(self.list_same_name(ca_id), ca_id)

    def list_same_name(self, ca_id: str) -> Mapping[str, CA]:
        """Return the CAs that have the subject name of *ca_id*, by id; *ca_id* itself is among them if it exists."""
        document = self._repository.get(self._ref(ca_id))
        return document.cas if document else {}

    def list_page(self, *, after: str, limit: int) -> list[tuple[str, CA]]:
        """Return at most *limit* pairs (id, CA) whose ids come after *after*, ordered by id."""
        cas: list[tuple[str, CA]] = []
        start = after[:_NAME]
        if start:
            cas += sorted((ca_id, ca) for ca_id, ca in self.list_same_name(after).items() if ca_id > after)
        while len(cas) < limit:
            page = self._repository.list(self._partition, CAsOfOneName, after=start, limit=limit)
            for _, document in page:
                cas += sorted(document.cas.items(), key=lambda item: item[0])
            if len(page) < limit:
                break
            start = page[-1][0]
        return cas[:limit]

    def iterate(self) -> Iterator[tuple[str, CA]]:
        """Yield every pair (id, CA)."""
        for document in self.iterate_documents():
            yield from document.cas.items()

    def iterate_documents(self) -> Iterator[CAsOfOneName]:
        return (document for _, document in self._repository.iterate(self._partition, CAsOfOneName))

    def has_active(self) -> bool:
        """Return whether the index names an active CA."""
        index = self._repository.get(self.index_ref)
        return index is not None and any(index.cas.values())

    # ------------------------------------------------------------------------------------ reading, for a verdict

    def refs_for(self, issuer_names: Iterable[str]) -> list[Ref[CAsOfOneName]]:
        """Return the refs that hold every CA with one of *issuer_names* (the beginnings of the names' digests)."""
        return [self._ref(name) for name in issuer_names]

    def anchors_for(self, issuer_names: Iterable[str], batch: Batch) -> list[Anchor]:
        """Return the CAs with one of *issuer_names*, from a batch that asked for `refs_for` them."""
        documents = [document for ref in self.refs_for(issuer_names) if (document := batch.get(ref)) is not None]
        return [_anchor(ca_id, ca) for document in documents for ca_id, ca in document.cas.items()]

    # ------------------------------------------------------------------------------------------------ changing

    def add(self, ca_id: str, ca: CA, *, rate_per_minute: int, activity: Activity) -> Added:
        """Register *ca*, or change nothing where *ca_id* is registered already.

        Each step may have been done before, by an upload that was cut short, or at the same moment by another upload.

        Raises: TooManyCAs, TooManyCAsOfOneName, RateLimited."""
        cert = Certificate.from_der(ca.der)
        ref, marks = self._ref(ca_id), self._mark_refs([cert])
        batch = self._repository.read_batch([self.index_ref, ref, *marks])
        self._reserve(ca_id, ca.changed.created_at, rate_per_minute, batch)
        # The decision not to write must rest on a read after the reservation; a write is protected in any case.
        first = batch if _has_room(batch.get(ref), ca_id) else None
        for attempt in self._repository.changing(ref, also=marks, first=first, activity_of=self._org_id):
            with attempt as document:
                cas = document.cas if document else {}
                is_new, has_room = ca_id not in cas, _has_room(document, ca_id)
                if has_room:
                    ca = msgspec.structs.replace(ca, denied_at=self._denied_since(cert, attempt.batch))
                    attempt.write(CAsOfOneName(cas={**cas, ca_id: ca}), activity=activity)
        if is_new and not has_room:
            self.release(ca_id)
            raise TooManyCAsOfOneName(limit=CAS_OF_ONE_NAME_MAX, subject=cert.subject_text)
        return Added(ca if is_new else cas[ca_id], is_new, self._confirm(ca_id, cert))

    def changing(self, ca_id: str, *, first: Batch | None = None) -> "Iterator[CAAttempt]":
        """Change one CA in a block, as `Repository.changing` does.

        Raises: NotFound, TooBusy, StoreUnavailable, and whatever the block raises."""
        for attempt in self._repository.changing(self._ref(ca_id), first=first, activity_of=self._org_id):
            yield CAAttempt(attempt, ca_id)

    def refresh_index(self, ca_id: str) -> None:
        """Make the index agree with a CA on whether the CA is active. The index only words a refusal."""
        ref = self._ref(ca_id)
        for attempt in self._repository.changing(self.index_ref, also=[ref]):
            with attempt as index:
                document = attempt.batch.get(ref)
                ca = document.cas.get(ca_id) if document else None
                if index is None or ca is None:
                    continue
                is_active = ca.status is CAStatus.ACTIVE
                if index.cas.get(ca_id) != is_active:
                    attempt.write(msgspec.structs.replace(index, cas={**index.cas, ca_id: is_active}))

    def release(self, ca_id: str) -> bool:
        """Give the place of a deleted CA in the index back, and clear the flag if that was the last CA.

        Returns whether anything was left to do, which is what a deletion that was cut short leaves."""
        ref = self._ref(ca_id)
        batch = self._repository.read_batch([ref, self.index_ref])
        self._delete_if_empty(ref, batch)
        is_listed = False
        for attempt in self._repository.changing(self.index_ref, first=batch):
            with attempt as index:
                cas = index.cas if index else {}
                remaining = {key: is_active for key, is_active in cas.items() if key != ca_id}
                if index is not None and ca_id in cas:
                    is_listed = True
                    attempt.write(msgspec.structs.replace(index, cas=remaining))
        return (not remaining and self.refresh_flag()) or is_listed

    def refresh_flag(self) -> bool:
        """Make the organization agree with the index on whether there is a CA. Return whether it did not.

        After each write a second look follows: an upload that reserved its place in between saw the old flag."""
        is_changed = False
        while self._write_flag():
            is_changed = True
        return is_changed

    # ------------------------------------------------------------------------------- marks of the deny list

    def list_meant_by(self, denials: Sequence[Denial]) -> Mapping[str, CA]:
        """Return the CAs that one of *denials* may mean, by id. Whether it does is for `refresh_marks` to find."""
        meant = _Meant(denials)
        return {ca_id: ca for ca_id, ca in self.iterate() if meant.includes(ca)} if meant else {}

    def refresh_marks(self, cas: Mapping[str, CA]) -> None:
        """Make the marks of *cas* (by id) agree with the deny list."""
        by_name: dict[Ref[CAsOfOneName], dict[str, Certificate]] = {}
        for ca_id, ca in cas.items():
            by_name.setdefault(self._ref(ca_id), {})[ca_id] = Certificate.from_der(ca.der)
        if not by_name:
            return
        certs = [cert for same_name in by_name.values() for cert in same_name.values()]
        batch = self._repository.read_batch([*by_name, *self._mark_refs(certs)])
        for ref, same_name in by_name.items():
            self._mark(ref, same_name, batch)

    def refresh_every_mark(self) -> None:
        """Make the marks of all CAs agree with the deny list, where a change of the list was cut short before that."""
        meant = _Meant([*DenyList(self._repository, self._org_id).iterate()])
        self.refresh_marks({ca_id: ca for ca_id, ca in self.iterate() if ca.denied_at or meant.includes(ca)})

    # ------------------------------------------------------------------------------------------------- mending

    def mend_index(self) -> int:
        """Make the index name the CAs that exist, and no others. Return how many lines of the index were changed.

        An upload that is under way puts its place back after it has stored the CA (`add`)."""
        mended = 0
        for attempt in self._repository.changing(self.index_ref):
            with attempt as index:
                cas = self._list_statuses()  # read after the index, at each attempt
                listed = index.cas if index else {}
                mended = len(listed.items() ^ cas.items())
                if mended:
                    attempt.write(msgspec.structs.replace(index or CAIndex(), cas=cas))
        if not mended:
            return 0
        # A CA that was stored after the first look, and found its place still taken, is seen by a second look.
        for attempt in self._repository.changing(self.index_ref):
            with attempt as index:
                cas = self._list_statuses()
                listed = index.cas if index else {}
                if not cas.keys() <= listed.keys():
                    attempt.write(msgspec.structs.replace(index or CAIndex(), cas=cas | listed))
        return mended

    def delete_empty_documents(self) -> None:
        """Delete documents whose last CA was deleted by a call that was cut short."""
        for name, document in self._repository.iterate(self._partition, CAsOfOneName):
            if not document.cas:
                self._delete_if_empty(self._ref(name))

    # --------------------------------------------------------------------------------------------- the steps

    def _reserve(self, ca_id: str, at: datetime, rate_per_minute: int, first: Batch) -> None:
        """Reserve a place in the index. Raises: TooManyCAs, RateLimited."""
        for attempt in self._repository.changing(self.index_ref, first=first):
            with attempt as stored:
                index = stored or CAIndex()
                if ca_id in index.cas:
                    continue
                if len(index.cas) >= CAS_MAX:
                    raise TooManyCAs(limit=CAS_MAX)
                window = count_in_window(index.rate_window, at, rate_per_minute, "CA certificates")
                attempt.write(CAIndex({**index.cas, ca_id: True}, window))

    def _confirm(self, ca_id: str, cert: Certificate) -> bool:
        """Complete a registration after the CA was stored. Return whether devices must send SNI from now on.

        Meanwhile a sweep or a deletion may have given the place in the index back, and the deny list may have changed.
        """
        ref, org_ref = self._ref(ca_id), Organization(self._repository, self._org_id).ref
        batch = self._repository.read_batch([ref, self.index_ref, org_ref, *self._mark_refs([cert])])
        document = batch.get(ref)
        if document is None or ca_id not in document.cas:
            return False  # deleted by another caller
        self._keep_reserved(ca_id, document.cas[ca_id].status is CAStatus.ACTIVE, batch)
        self._mark(ref, {ca_id: cert}, batch)
        for attempt in self._repository.changing(org_ref, first=batch, activity_of=self._org_id):
            with attempt as org:
                sets_sni = org is not None and not org.requires_sni
                if org is not None and not org.has_ca:
                    attempt.write(msgspec.structs.replace(org, has_ca=True))
        return sets_sni

    def _keep_reserved(self, ca_id: str, is_active: bool, first: Batch) -> None:
        for attempt in self._repository.changing(self.index_ref, first=first):
            with attempt as stored:
                index = stored or CAIndex()
                if ca_id not in index.cas:
                    attempt.write(msgspec.structs.replace(index, cas={**index.cas, ca_id: is_active}))

    def _write_flag(self) -> bool:
        org_ref = Organization(self._repository, self._org_id).ref
        is_written = False
        for attempt in self._repository.changing(org_ref, also=[self.index_ref], activity_of=self._org_id):
            with attempt as org:
                index = attempt.batch.get(self.index_ref)
                has_ca = index is not None and bool(index.cas)
                if org is not None and org.has_ca != has_ca:
                    is_written = True
                    attempt.write(msgspec.structs.replace(org, has_ca=has_ca))
        return is_written

    def _mark(self, ref: Ref[CAsOfOneName], certs: Mapping[str, Certificate], first: Batch) -> None:
        """Make the marks of the CAs in one document agree with the deny list."""
        also = self._mark_refs(certs.values())
        for attempt in self._repository.changing(ref, also=also, first=first, activity_of=self._org_id):
            with attempt as document:
                cas = dict(document.cas) if document else {}
                for ca_id, cert in certs.items():
                    if ca_id in cas:
                        denied_at = self._denied_since(cert, attempt.batch)
                        cas[ca_id] = msgspec.structs.replace(cas[ca_id], denied_at=denied_at)
                if document is not None and cas != document.cas:
                    attempt.write(msgspec.structs.replace(document, cas=cas))

    def _mark_refs(self, certs: Iterable[Certificate]) -> list[Ref[Any]]:
        """Return the refs that `_denied_since` needs."""
        deny_list = DenyList(self._repository, self._org_id)
        refs: list[Ref[Any]] = []
        for cert in certs:
            refs += deny_list.refs(certificate_ids(cert))
            refs.append(self._ref(cert.issuer.digest))
        return refs

    def _denied_since(self, cert: Certificate, batch: Batch) -> datetime | None:
        """Return when the first entry of the deny list that means *cert* was made, or None."""
        denials = DenyList(self._repository, self._org_id).entries(batch, certificate_ids(cert))
        issuers = self._issuer_keys(cert, batch) if any(denial.issuer_key_hash for denial in denials) else set()
        return min(
            (
                denial.created_at
                for denial in denials
                if denial.issuer_key_hash is None or denial.issuer_key_hash in issuers
            ),
            default=None,
        )

    def _issuer_keys(self, cert: Certificate, batch: Batch) -> set[str]:
        """Return the key hashes of the registered CAs that did sign *cert*."""
        document = batch.get(self._ref(cert.issuer.digest))
        issuers = [Certificate.from_der(ca.der) for ca in document.cas.values()] if document else []
        return {issuer.key_hash for issuer in issuers if cert.is_signed_by(issuer)}

    def _delete_if_empty(self, ref: Ref[CAsOfOneName], first: Batch | None = None) -> None:
        for attempt in self._repository.changing(ref, first=first, activity_of=self._org_id):
            with attempt as document:
                if document is not None and not document.cas:
                    attempt.delete()

    def _list_statuses(self) -> dict[str, bool]:
        """Return whether each CA is active, by id."""
        return {ca_id: ca.status is CAStatus.ACTIVE for ca_id, ca in self.iterate()}


class CAAttempt:
    """One attempt at changing a CA: a block that receives the CA and may replace or delete the CA."""

    def __init__(self, attempt: Attempt[CAsOfOneName], ca_id: str) -> None:
        self._attempt = attempt
        self._ca_id = ca_id
        self._cas: Mapping[str, CA] = {}

    @property
    def batch(self) -> Batch:
        """The documents of the attempt, as `Attempt.batch`."""
        return self._attempt.batch

    def __enter__(self) -> CA:
        """Raises: NotFound."""
        document = self._attempt.__enter__()
        self._cas = document.cas if document else {}
        return _get(self._cas, self._ca_id)

    def write(self, ca: CA, *, activity: Activity | None = None) -> None:
        """Store *ca* at the end of the block; *activity* goes into the outbox of its document."""
        self._attempt.write(CAsOfOneName(cas={**self._cas, self._ca_id: ca}), activity=activity)

    def delete(self, *, activity: Activity) -> None:
        """Delete the CA at the end of the block. Its document stays until the outbox is copied."""
        remaining = {ca_id: ca for ca_id, ca in self._cas.items() if ca_id != self._ca_id}
        self._attempt.write(CAsOfOneName(cas=remaining), activity=activity)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._attempt.__exit__(kind, error, trace)


class _Meant:
    """Which CAs a list of denials may mean: by fingerprint, or by serial number whatever the issuer."""

    def __init__(self, denials: Sequence[Denial]) -> None:
        self._fingerprints = {denial.value for denial in denials if denial.kind is DenialKind.FINGERPRINT}
        self._serials = {
            int(denial.value.partition(":")[2], 16) for denial in denials if denial.kind is DenialKind.SERIAL
        }

    def __bool__(self) -> bool:
        return bool(self._fingerprints or self._serials)

    def includes(self, ca: CA) -> bool:
        cert = Certificate.from_der(ca.der)
        is_listed = not self._fingerprints.isdisjoint(cert.fingerprints)
        return is_listed or cert.serial_number in self._serials


def is_id_of(ca_id: str, fingerprint: str) -> bool:
    """Return whether *ca_id* is the id of the certificate whose SHA-256 is *fingerprint* (hex)."""
    return ca_id.endswith(fingerprint[:_FINGERPRINT])


def _get(cas: Mapping[str, CA], ca_id: str) -> CA:
    ca = cas.get(ca_id)
    if ca is None:
        raise NotFound(what="CA certificate of that id")
    return ca


def _has_room(document: CAsOfOneName | None, ca_id: str) -> bool:
    """Return whether *ca_id* is not in *document* and may be added."""
    return document is None or (ca_id not in document.cas and len(document.cas) < CAS_OF_ONE_NAME_MAX)


def _anchor(ca_id: str, ca: CA) -> Anchor:
    is_active = ca.status is CAStatus.ACTIVE
    return Anchor(ca_id, read_registered(ca.der), is_active, ca.denied_at, None if is_active else ca.changed.updated_at)

"""The documents of an organization's CA certificates, and the only way to change them.

    ca/{orgId}/{name}   the CA certificates of one subject name. *name* is the beginning of the digest of that name, and
                        of the id of each CA, so that a verdict finds the CAs by the issuer name of a certificate
    caindex/{orgId}     the index: a line for each CA, which says whether the CA is active. The index limits the CAs of
                        an organization under any number of concurrent uploads
    org/{orgId}         the flag `has_ca`: devices must name their server by SNI

A registration reserves a line in the index, stores the CA, and sets the flag. A deletion deletes the CA, removes the
line, and clears the flag after the last CA. An interrupted call may leave a line without a CA, which a sweep removes.

A CA that is on the deny list has a mark (`denied_at`), because a client often does not send its CA. Which mark a CA
needs is decided in `shared.usecases.cas.marks`.

Lines, flag and marks follow from other documents. A caller that changes a CA or the deny list makes them agree
afterwards, and reads again after each write until nothing differs. So of several concurrent callers, the last writer
has read the changes of all others.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from shared.batch import Batch
from shared.errors import NotFound, TooManyCAs, TooManyCAsOfOneName
from shared.org_repository import OrgRepository
from shared.records import CA, Activity, CAIndex, CAsOfOneName, CAStatus, Denial, Org, Withdrawal
from shared.refs import Ref, ca_index_ref, cas_partition, cas_ref, org_ref
from shared.repository import Attempt, Waiting
from shared.usecases.cas.marks import DenialFilter, Marks, withdraw_ca
from shared.usecases.context import count_in_window
from shared.usecases.denials import DenyList
from shared.usecases.organization import Organization
from shared.validation.ca import NAME_DIGITS, vouches_for_all_of
from shared.validation.deny_list import can_mean_certificate, certificate_ids
from shared.validation.facts import Anchor
from shared.x509.budget import REGISTERED_ELEMENTS_MAX, ElementCount
from shared.x509.cache import read_registered
from shared.x509.certificate import Certificate

T = TypeVar("T")

CAS_MAX: Final = 1_000  # of an organization
CAS_OF_ONE_NAME_MAX: Final = 10


class AddedCA(msgspec.Struct, frozen=True):
    """The result of `CACertificates.add`: the stored CA.

    Args:
        is_new: whether the CA was not registered before.
        reactivates: ids of inactive CAs with the name and key of a new one.
        sets_sni: whether devices must name their server by SNI from now on, and did not have to before.
    """

    ca: CA
    is_new: bool
    sets_sni: bool
    reactivates: Sequence[str] = ()


class CACertificates:
    """The registered CA certificates of one organization."""

    def __init__(self, repository: OrgRepository) -> None:
        self._repository = repository
        self._org_id = repository.org_id
        self._partition = cas_partition(self._org_id)
        self.index_ref = ca_index_ref(self._org_id)
        self._marks = Marks(repository)

    def _ref(self, ca_id: str) -> Ref[CAsOfOneName]:
        """Return the ref of a CA's document. A digest of the subject name, or its beginning, serves as well."""
        return cas_ref(self._org_id, ca_id[:NAME_DIGITS])

    # ------------------------------------------------------------------------------------------------- reading

    def find(self, ca_id: str) -> CA | None:
        """Return a CA, or None if it does not exist."""
        return self.list_same_name(ca_id).get(ca_id)

    def get(self, ca_id: str) -> CA:
        """Return a CA. Raises: NotFound."""
        return _get(self.list_same_name(ca_id), ca_id)

    def list_same_name(self, ca_id: str) -> Mapping[str, CA]:
        """Return the CAs that have the subject name of *ca_id*, by id: *ca_id* itself too, if it exists."""
        document = self._repository.get(self._ref(ca_id))
        return document.cas if document else {}

    def find_many(self, ca_ids: Collection[str]) -> dict[str, CA]:
        """Return those of *ca_ids* that exist, in one read."""
        refs = {self._ref(ca_id) for ca_id in ca_ids}
        batch = self._repository.read_batch(refs)
        documents = [document for ref in refs if (document := batch.get(ref)) is not None]
        stored = {ca_id: ca for document in documents for ca_id, ca in document.cas.items()}
        return {ca_id: stored[ca_id] for ca_id in sorted(ca_ids) if ca_id in stored}

    def list_page(self, *, after: str, limit: int) -> list[tuple[str, CA]]:
        """Return at most *limit* pairs (id, CA) whose ids come after *after*, ordered by id."""
        cas: list[tuple[str, CA]] = []
        start = after[:NAME_DIGITS]
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
        """Yield every document."""
        return (document for _, document in self._repository.iterate(self._partition, CAsOfOneName))

    def iterate_refs(self) -> Iterator[tuple[Ref[CAsOfOneName], CAsOfOneName]]:
        """Yield every document with its ref."""
        for name, document in self._repository.iterate(self._partition, CAsOfOneName):
            yield self._ref(name), document

    def list_active(self) -> set[str]:
        """Return the ids of the CAs that are active by the index."""
        index = self._repository.get(self.index_ref)
        return {ca_id for ca_id, is_active in index.cas.items() if is_active} if index else set()

    def has_active(self) -> bool:
        """Return whether the index names an active CA."""
        return bool(self.list_active())

    def list_anchors(self) -> list[Anchor]:
        """Return every CA as a verdict sees it."""
        return [_anchor(ca_id, ca) for ca_id, ca in self.iterate()]

    def check_room(self, ca_id: str, cert: Certificate) -> Mapping[str, CA]:
        """Refuse a CA that `add` would refuse for the number of CAs. Return the registered CAs of its name, by id.

        Raises: TooManyCAs, TooManyCAsOfOneName."""
        ref = self._ref(ca_id)
        batch = self._repository.read_batch([self.index_ref, ref])
        index, document = batch.get(self.index_ref), batch.get(ref)
        _check_number(index.cas if index else {}, ca_id)
        same_name = document.cas if document else {}
        _check_number_of_name(same_name, ca_id, cert)
        return same_name

    # ------------------------------------------------------------------------------------------------ changing

    def add(
        self, ca_id: str, ca: CA, *, rate_per_minute: int, activity: Activity, may_reactivate: bool = True
    ) -> AddedCA:
        """Register *ca*, or change nothing where *ca_id* is registered already.

        Args:
            may_reactivate: whether an active *ca* stays active where a CA with its name and key is inactive.

        Each step may have been done before, by an upload that was cut short, or at the same moment by another upload.

        Raises: TooManyCAs, TooManyCAsOfOneName, RateLimited."""
        cert = Certificate.from_der(ca.der)
        ref, marks = self._ref(ca_id), self._marks.refs([cert])
        self._reserve(ca_id, ca.changed.created_at, rate_per_minute)
        # The deny list is read after the reservation. A denial that this read misses finds the reservation, and makes
        # the write below a conflict (`list_meant_by`).
        try:
            for attempt in self._repository.changing(ref, also=marks, activity_of=self._org_id):
                with attempt as document:
                    cas = document.cas if document else {}
                    _check_number_of_name(cas, ca_id, cert)
                    is_new = ca_id not in cas
                    reactivated = list_inactive_twins(cas, cert) if ca.status is CAStatus.ACTIVE else []
                    if is_new:
                        status = CAStatus.INACTIVE if reactivated and not may_reactivate else ca.status
                        denied_at = self._marks.find_denied_at(cert, attempt.batch)
                        added = msgspec.structs.replace(ca, status=status, denied_at=denied_at)
                        attempt.write(
                            CAsOfOneName(cas={**cas, ca_id: added}),
                            activity=_note_reactivated(activity, added, reactivated),
                        )
        except TooManyCAsOfOneName:
            self.refresh_index(ca_id)  # takes the reservation back
            raise
        sets_sni = self._confirm(ca_id, cert)
        return AddedCA(added, is_new, sets_sni, reactivated) if is_new else AddedCA(cas[ca_id], is_new, sets_sni)

    def changing(self, ca_id: str, *, first: Batch | None = None) -> "Iterator[CAAttempt]":
        """Change one CA in a block, as `Repository.changing` does.

        Raises: NotFound, TooBusy, StoreUnavailable, and whatever the block raises."""
        for attempt in self._repository.changing(self._ref(ca_id), first=first, activity_of=self._org_id):
            yield CAAttempt(attempt, self._org_id, ca_id)

    def refresh_index(self, ca_id: str) -> bool:
        """Make the index agree with a CA, and the flag `has_ca` with the index.

        A document without CAs is deleted. Return whether index or flag differed, as an interrupted call leaves them."""
        ref, flag_ref = self._ref(ca_id), org_ref(self._org_id)
        is_changed = False
        while True:
            batch = self._repository.read_batch([ref, self.index_ref, flag_ref])
            self._delete_if_empty(ref, batch)
            if not self._write_line(ca_id, batch) and self._write_flag(batch) is None:
                return is_changed
            is_changed = True

    def refresh_flag(self) -> bool:
        """Make the flag `has_ca` agree with the index. Return whether the flag differed."""
        is_changed = False
        while self._write_flag() is not None:
            is_changed = True
        return is_changed

    # ------------------------------------------------------------------------------- marks of the deny list

    def list_meant_by(self, denials: Sequence[Denial]) -> Mapping[str, CA]:
        """Return the CAs, by id, that one of *denials* may mean. `refresh_marks` decides whether it does."""
        denial_filter = DenialFilter(denials)
        return (
            {ca_id: ca for ca_id, ca in self._list_with_uploads().items() if denial_filter.includes(ca)}
            if denial_filter
            else {}
        )

    def list_looked_up(self, look_up: str) -> Mapping[str, CA]:
        """Return the CAs, by id, that an entry may mean which *look_up* finds."""
        if not can_mean_certificate(look_up):
            return {}
        return {
            ca_id: ca
            for ca_id, ca in self._list_with_uploads().items()
            if look_up in certificate_ids(Certificate.from_der(ca.der))
        }

    def _list_with_uploads(self) -> Mapping[str, CA]:
        """Return every CA, by id, after a change of the deny list.

        An upload in flight may have read the deny list before the change. Its reservation names a CA that is not stored
        yet: the document of that CA is written as it is, so that the upload's write is a conflict and the upload reads
        the deny list again."""
        index = self._repository.get(self.index_ref) or CAIndex()  # before the CAs
        stored = dict(self.iterate())
        for ca_id in index.cas.keys() - stored.keys():
            for attempt in self._repository.changing(self._ref(ca_id), activity_of=self._org_id):
                with attempt as document:
                    cas = document.cas if document else {}
                    if ca_id not in cas:
                        attempt.write(CAsOfOneName(cas=cas))
            stored.update(cas)
        return stored

    def refresh_marks(self, cas: Mapping[str, CA]) -> list[Waiting]:
        """Make the marks of *cas* (by id) agree with the deny list.

        A CA that is marked is withdrawn. Return the withdrawals that are to be published."""
        by_name: dict[Ref[CAsOfOneName], dict[str, Certificate]] = {}
        for ca_id, ca in cas.items():
            by_name.setdefault(self._ref(ca_id), {})[ca_id] = Certificate.from_der(ca.der)
        if not by_name:
            return []
        certs = [cert for same_name in by_name.values() for cert in same_name.values()]
        batch = self._repository.read_batch([*by_name, *self._marks.refs(certs)])
        waiting: list[Waiting] = []
        for ref, same_name in by_name.items():
            is_written, attempt = self._write_marks(ref, same_name, batch)
            while is_written:
                is_written, attempt = self._write_marks(ref, same_name)
            waiting.append(attempt.waiting)
        return waiting

    def refresh_every_mark(self) -> None:
        """Make the marks of all CAs agree with the deny list: an interrupted change of the list may have left them."""
        denial_filter = DenialFilter([*DenyList(self._repository).iterate()])
        self.refresh_marks({ca_id: ca for ca_id, ca in self.iterate() if ca.denied_at or denial_filter.includes(ca)})

    # ------------------------------------------------------------------------------------------------- repairing

    def repair_index(self) -> int:
        """Make the index name the CAs that exist, and no others. Return how many lines of the index were changed.

        A concurrent upload writes its line again after it has stored the CA (`add`)."""
        repaired = 0
        for attempt in self._repository.changing(self.index_ref):
            with attempt as index:
                cas = self._list_statuses()  # read after the index, at each attempt
                listed = index.cas if index else {}
                repaired = len(listed.items() ^ cas.items())
                if repaired:
                    attempt.write(msgspec.structs.replace(index or CAIndex(), cas=cas))
        if not repaired:
            return 0
        # A concurrent upload may have stored its CA after the first look, and still have found its line. Look again.
        for attempt in self._repository.changing(self.index_ref):
            with attempt as index:
                cas = self._list_statuses()
                listed = index.cas if index else {}
                if not cas.keys() <= listed.keys():
                    attempt.write(msgspec.structs.replace(index or CAIndex(), cas=cas | listed))
        return repaired

    def delete_empty_documents(self) -> None:
        """Delete documents whose last CA was deleted by a call that was cut short."""
        for name, document in self._repository.iterate(self._partition, CAsOfOneName):
            if not document.cas:
                self._delete_if_empty(self._ref(name))

    # --------------------------------------------------------------------------------------------- the steps

    def _reserve(self, ca_id: str, at: datetime, rate_per_minute: int) -> None:
        """Reserve a line in the index. Raises: TooManyCAs, RateLimited."""
        for attempt in self._repository.changing(self.index_ref):
            with attempt as stored:
                index = stored or CAIndex()
                if ca_id in index.cas:
                    continue
                _check_number(index.cas, ca_id)
                window = count_in_window(index.rate_window, at, rate_per_minute, "CA certificates")
                attempt.write(CAIndex({**index.cas, ca_id: True}, window))

    def _confirm(self, ca_id: str, cert: Certificate) -> bool:
        """Complete a registration after the CA was stored. Return whether devices must send SNI from now on.

        Meanwhile a sweep or a deletion may have removed the CA's line in the index, and the deny list may have changed.
        """
        ref, flag_ref = self._ref(ca_id), org_ref(self._org_id)
        sets_sni = False
        while True:
            batch = self._repository.read_batch([ref, self.index_ref, flag_ref, *self._marks.refs([cert])])
            if self._write_line(ca_id, batch) or self._write_marks(ref, {ca_id: cert}, batch)[0]:
                continue
            replaced = self._write_flag(batch)
            if replaced is None:
                return sets_sni
            sets_sni = not replaced.requires_sni

    def _write_line(self, ca_id: str, first: Batch) -> bool:
        """Make the line of a CA in the index agree with the CA. Return whether an attempt wrote or removed the line.

        The line says whether the CA is active. A CA that does not exist has no line."""
        ref, is_written = self._ref(ca_id), False
        for attempt in self._repository.changing(self.index_ref, also=[ref], first=first):
            with attempt as stored:
                index, document = stored or CAIndex(), attempt.batch.get(ref)
                ca = document.cas.get(ca_id) if document else None
                lines = {listed_id: is_active for listed_id, is_active in index.cas.items() if listed_id != ca_id}
                if ca is not None:
                    lines[ca_id] = ca.status is CAStatus.ACTIVE
                if lines != index.cas:
                    is_written = True
                    attempt.write(msgspec.structs.replace(index, cas=lines))
        return is_written

    def _write_flag(self, first: Batch | None = None) -> Org | None:
        """Make the flag `has_ca` agree with the index. Return the replaced organization; None: nothing was written.

        Raises: OrgGone."""
        for attempt in Organization(self._repository).changing(also=[self.index_ref], first=first):
            with attempt as org:
                index = attempt.batch.get(self.index_ref)
                has_ca = index is not None and bool(index.cas)
                replaced = org if org.has_ca != has_ca else None
                if replaced is not None:
                    attempt.write(msgspec.structs.replace(replaced, has_ca=has_ca))
        return replaced

    def _write_marks(
        self, ref: Ref[CAsOfOneName], certs: Mapping[str, Certificate], first: Batch | None = None
    ) -> tuple[bool, Attempt[CAsOfOneName]]:
        """Make the marks of CAs in one document agree with the deny list.

        Return whether an attempt wrote a mark, and the last attempt."""
        mark_refs, is_written = self._marks.refs(certs.values()), False
        for attempt in self._repository.changing(ref, also=mark_refs, first=first, activity_of=self._org_id):
            with attempt as document:
                cas = document.cas if document else {}
                marked = self._marks.mark(cas, certs, attempt.batch)
                if marked != cas:
                    # A batch is not a snapshot. With the deny list read after the CAs, a mark that another caller
                    # writes for a newer entry makes this write a conflict.
                    marked = self._marks.mark(cas, certs, self._repository.read_batch(mark_refs))
                if marked != cas:
                    is_written = True
                    attempt.write(CAsOfOneName(cas=marked), withdrawals=self._marks.withdraw_marked(cas, marked, certs))
        return is_written, attempt

    def _delete_if_empty(self, ref: Ref[CAsOfOneName], first: Batch | None = None) -> None:
        for attempt in self._repository.changing(ref, first=first, activity_of=self._org_id):
            with attempt as document:
                if document is not None and not document.cas and not attempt.withdrawals:
                    attempt.delete()

    def _list_statuses(self) -> dict[str, bool]:
        """Return whether each CA is active, by id."""
        return {ca_id: ca.status is CAStatus.ACTIVE for ca_id, ca in self.iterate()}


class CAAttempt:
    """One attempt at changing a CA: a block that receives the CA and may replace or delete the CA."""

    def __init__(self, attempt: Attempt[CAsOfOneName], org_id: str, ca_id: str) -> None:
        self.document = attempt
        self._org_id = org_id
        self._ca_id = ca_id
        self._cas: Mapping[str, CA] = {}

    def __enter__(self) -> CA:
        """Return the stored CA. Raises: NotFound."""
        document = self.document.__enter__()
        self._cas = document.cas if document else {}
        return _get(self._cas, self._ca_id)

    def write(self, ca: CA, *, at: datetime, activity: Activity | None = None) -> None:
        """Store *ca* at the end of the block; *activity* goes into the outbox of its document.

        A CA that was active and is not any more is withdrawn, unless another CA allows its devices."""
        is_deactivated = self._cas[self._ca_id].status is CAStatus.ACTIVE and ca.status is not CAStatus.ACTIVE
        withdrawals: list[Withdrawal] = []
        if is_deactivated and not self._is_replaced(at):
            withdrawals.append(withdraw_ca(at, self._org_id, self._ca_id, Certificate.from_der(ca.der)))
        self.document.write(
            CAsOfOneName(cas={**self._cas, self._ca_id: ca}), activity=activity, withdrawals=withdrawals
        )

    def _is_replaced(self, at: datetime) -> bool:
        """Return whether another CA vouches for every certificate that this CA vouches for."""
        return bool(list_replacing(self._cas, self._ca_id, at))

    def delete(self, *, activity: Activity) -> None:
        """Delete the CA at the end of the block. Its document stays until the outbox is copied."""
        remaining = {ca_id: ca for ca_id, ca in self._cas.items() if ca_id != self._ca_id}
        self.document.write(CAsOfOneName(cas=remaining), activity=activity)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.document.__exit__(kind, error, trace)


def read_anchors(documents: Iterable[CAsOfOneName]) -> tuple[list[Anchor], bool]:
    """Return the CAs in *documents* as a verdict sees them, and whether some are left out.

    CAs are left out where there are more than one decision can read."""
    cas = [entry for document in documents for entry in document.cas.items()]
    readable = take_readable(cas, lambda entry: entry[1].der)
    return [_anchor(ca_id, ca) for ca_id, ca in readable], len(readable) < len(cas)


def take_readable(cas: Sequence[T], der_of: Callable[[T], bytes]) -> list[T]:
    """Return as many of *cas* as one decision can read."""
    count = ElementCount(REGISTERED_ELEMENTS_MAX, sum(len(der_of(ca)) for ca in cas))
    return [ca for ca in cas if count.takes(der_of(ca))]


def list_replacing(same_name: Mapping[str, CA], ca_id: str, at: datetime) -> list[str]:
    """Return the ids of those among the CAs of one name that vouch for whatever *ca_id* vouches for, at *at*."""
    own = read_registered(same_name[ca_id].der)
    return sorted(
        other_id
        for other_id, other in same_name.items()
        if other_id != ca_id and is_trusted(other, at) and vouches_for_all_of(read_registered(other.der), own)
    )


def is_trusted(ca: CA, at: datetime) -> bool:
    """Return whether *ca* may be an anchor at *at*: it is active, not denied, within its validity, and for clients."""
    if ca.status is not CAStatus.ACTIVE or ca.denied_at is not None:
        return False
    cert = read_registered(ca.der)
    return cert.not_before <= at <= cert.not_after and cert.is_for_clients


def _get(cas: Mapping[str, CA], ca_id: str) -> CA:
    ca = cas.get(ca_id)
    if ca is None:
        raise NotFound(what="CA certificate of that id")
    return ca


def list_inactive_twins(cas: Mapping[str, CA], cert: Certificate) -> list[str]:
    """Return the ids of the inactive CAs with the key of *cert*, among the CAs of its name."""
    return sorted(
        ca_id
        for ca_id, ca in cas.items()
        if ca.status is CAStatus.INACTIVE and read_registered(ca.der).key_hash == cert.key_hash
    )


def _note_reactivated(activity: Activity, added: CA, reactivated: Sequence[str]) -> Activity:
    """Return the entry of a registration with the inactive CAs whose devices it concerns."""
    detail = dict(activity.detail)
    if added.status is CAStatus.INACTIVE:
        detail["status"] = added.status.value
    if reactivated:
        detail["reactivates"] = ",".join(reactivated)
    return msgspec.structs.replace(activity, detail=detail)


def _check_number(lines: Collection[str], ca_id: str) -> None:
    """Refuse one more CA than an organization may have; *lines* are those of the index. Raises: TooManyCAs."""
    if ca_id not in lines and len(lines) >= CAS_MAX:
        raise TooManyCAs(limit=CAS_MAX)


def _check_number_of_name(same_name: Collection[str], ca_id: str, cert: Certificate) -> None:
    """Refuse one more CA than may have one name; *same_name* has the ids of the others. Raises: TooManyCAsOfOneName."""
    if ca_id not in same_name and len(same_name) >= CAS_OF_ONE_NAME_MAX:
        raise TooManyCAsOfOneName(limit=CAS_OF_ONE_NAME_MAX, subject=cert.subject_text)


def _anchor(ca_id: str, ca: CA) -> Anchor:
    is_active = ca.status is CAStatus.ACTIVE
    return Anchor(ca_id, read_registered(ca.der), is_active, ca.denied_at, None if is_active else ca.changed.updated_at)

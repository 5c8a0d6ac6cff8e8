"""The marks of CAs that the deny list means: which mark a CA needs, by documents that were read.

`shared.usecases.cas.documents` writes the marks. A CA that receives a mark is withdrawn.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from shared.batch import Batch
from shared.org_repository import OrgRepository
from shared.records import CA, CAsOfOneName, Denial, DenialKind, Withdrawal
from shared.refs import Ref, cas_ref
from shared.usecases.denials import DenyList, entry_of
from shared.usecases.edges.withdrawals import WithdrawalKind, make_withdrawal
from shared.validation.ca import NAME_DIGITS
from shared.validation.deny_list import certificate_ids, find_denied_at
from shared.x509.certificate import Certificate


class Marks:
    """The marks of the registered CAs of one organization. Nothing is read or written here."""

    def __init__(self, repository: OrgRepository) -> None:
        self._org_id = repository.org_id
        self._deny_list = DenyList(repository)

    def refs(self, certs: Iterable[Certificate]) -> list[Ref[Any]]:
        """Return the refs that the other methods need."""
        refs: list[Ref[Any]] = []
        for cert in certs:
            refs += self._deny_list.refs(certificate_ids(cert))
            refs.append(self._issuers_ref(cert))
        return refs

    def find_denied_at(self, cert: Certificate, batch: Batch) -> datetime | None:
        """Return when the first entry of the deny list that means *cert* was made, or None."""
        entries = list(map(entry_of, self._deny_list.entries(batch, certificate_ids(cert))))
        document = batch.get(self._issuers_ref(cert))
        cas = document.cas.values() if document else ()
        return find_denied_at(cert, entries, (Certificate.from_der(ca.der) for ca in cas))

    def mark(self, cas: Mapping[str, CA], certs: Mapping[str, Certificate], batch: Batch) -> dict[str, CA]:
        """Return *cas*, those among *certs* with the mark that the deny list in *batch* requires."""
        marked = {
            ca_id: msgspec.structs.replace(cas[ca_id], denied_at=self.find_denied_at(cert, batch))
            for ca_id, cert in certs.items()
            if ca_id in cas
        }
        return {**cas, **marked}

    def withdraw_marked(
        self, before: Mapping[str, CA], after: Mapping[str, CA], certs: Mapping[str, Certificate]
    ) -> list[Withdrawal]:
        """Return a withdrawal of each CA that has a mark *after* and had none *before*."""
        return [
            withdraw_ca(ca.denied_at, self._org_id, ca_id, certs[ca_id])
            for ca_id, ca in after.items()
            if ca.denied_at is not None and before[ca_id].denied_at is None
        ]

    def _issuers_ref(self, cert: Certificate) -> Ref[CAsOfOneName]:
        """Return the ref of the CAs that may have signed *cert*: those with the name of its issuer."""
        return cas_ref(self._org_id, cert.issuer.digest[:NAME_DIGITS])


class DenialFilter:
    """The CAs that a list of denials may mean: by fingerprint or key, or by serial number of any issuer."""

    def __init__(self, denials: Sequence[Denial]) -> None:
        self._fingerprints = {denial.value for denial in denials if denial.kind is DenialKind.FINGERPRINT}
        self._keys = {denial.value for denial in denials if denial.kind is DenialKind.KEY}
        self._serials = {
            int(denial.value.partition(":")[2], 16) for denial in denials if denial.kind is DenialKind.SERIAL
        }

    def __bool__(self) -> bool:
        return bool(self._fingerprints or self._serials or self._keys)

    def includes(self, ca: CA) -> bool:
        """Return whether a denial may mean *ca*."""
        cert = Certificate.from_der(ca.der)
        is_listed = not self._fingerprints.isdisjoint(cert.fingerprints) or cert.key_hash in self._keys
        return is_listed or cert.serial_number in self._serials


def withdraw_ca(at: datetime, org_id: str, ca_id: str, cert: Certificate) -> Withdrawal:
    """Return the withdrawal of a CA: of the sessions over any certificate with its subject and key."""
    return make_withdrawal(at, org_id, WithdrawalKind.CA, ca_id, key_digest=cert.key_digest)

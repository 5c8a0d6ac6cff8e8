"""expiryReport: once a day, report the certificates that expire soon or have expired; repair what a crash left behind.

The report has active CAs, server certificates and the platform's default certificate, if they expire within 30 days,
within 7 days, or have expired. A certificate that has expired is reported as long as it is in force (an active CA, the
active server certificate), and for 30 days otherwise.

Each day's report goes three ways, each of them once, even if the job runs several times:
1. the structured log: a line for each certificate;
2. the organization's activity list: one entry a day, whose id follows from the day;
3. the webhook: a message for each page of organizations with expiries. Delivered messages are remembered.

Organizations are read page by page, and the progress is stored, because the time of a function is limited: the next run
continues where a run was cut short. While an organization is read, what a crash left behind is repaired: activity
entries that were not copied out of their documents and, one day in seven, the rest
(`shared.usecases.jobs.maintenance`).
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from shared.ports import Webhook, WebhookFailed
from shared.records import (
    DEFAULT,
    PLATFORM,
    Activity,
    ActivityKind,
    CAStatus,
    DeliveredMessage,
    Org,
    RecordWithOutbox,
    ReportRun,
)
from shared.refs import activity_id, delivered_ref, report_run_ref
from shared.usecases.cas.documents import CACertificates
from shared.usecases.context import Context
from shared.usecases.denials import DenyList
from shared.usecases.jobs.maintenance import sweep_org
from shared.usecases.organization import OrgDocuments
from shared.usecases.orgs.deletion import complete_deletion
from shared.usecases.servers.documents import ServerCertificates
from shared.usecases.servers.platform_default import PlatformDefault
from shared.x509.certificate import Certificate

log = logging.getLogger(__name__)

WITHIN: Final = (7, 30)  # days
_STAGES: Final = ("ended", *(f"within{days}" for days in WITHIN))
_ENDED_DAYS: Final = 30  # for which an expired certificate that is not in force is reported
_PAGE: Final = 50  # organizations
_LISTED: Final = 20  # certificates of one organization in a webhook's message and in its activity entry
_SWEEP_EVERY: Final = 7  # days; the day of an organization follows from its id
_OUTBOX_AGE: Final = timedelta(days=8)  # older entries were copied by an earlier run
_KEEP_DELIVERED: Final = timedelta(days=3)


class Expiry(msgspec.Struct, frozen=True):
    """A certificate that expires soon, or has expired.

    Args:
        kind: "ca", "server" or "default".
        stage: "ended", "within7" or "within30".
    """

    org_id: str
    kind: str
    id: str
    ends: datetime
    stage: str
    in_force: bool

    def encode(self) -> dict[str, Any]:
        """Return the JSON object that the log and the webhook carry."""
        return {
            "kind": self.kind,
            "id": self.id,
            "notAfter": self.ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "stage": self.stage,
            "inForce": self.in_force,
        }


class Report(msgspec.Struct):
    """The result of a run.

    Args:
        expiries: how many certificates were reported.
        copied: activity entries that a crash had left in their documents.
        swept: what `shared.usecases.jobs.maintenance` removed or repaired.
        failed: why webhook messages were not delivered.
    """

    orgs: int = 0
    expiries: int = 0
    copied: int = 0
    swept: int = 0
    is_finished: bool = False
    failed: list[str] = msgspec.field(default_factory=list)


class Unfinished(Exception):
    """The report is incomplete. Another run continues with the rest."""


def expiry_report(
    context: Context, webhook: Webhook | None, *, enough: Callable[[], bool] = lambda: False, sweep_all: bool = False
) -> Report:
    """Report expiries and repair what a crash left behind. Safe to run at any time, twice, or twice at once.

    Args:
        enough: called between two pages: whether to stop for now.
        sweep_all: run the maintenance of every organization, not only of those whose day it is.

    Raises: Unfinished, where a message was not delivered or the time was up; StoreUnavailable."""
    return _Run(context, webhook, context.clock(), sweep_all).run(enough)


class _Run:
    """One run of the report."""

    def __init__(self, context: Context, webhook: Webhook | None, at: datetime, sweep_all: bool) -> None:
        self._context = context
        self._repository = context.repository
        self._webhook = webhook
        self._at = at
        self._sweep_all = sweep_all
        self._day = at.strftime("%Y-%m-%d")
        self._report = Report()
        self._has_waiting = False  # whether withdrawals wait in the organization that is inspected

    def run(self, enough: Callable[[], bool]) -> Report:
        """Report page by page, from the stored progress on. Raises: as `expiry_report`."""
        after = self._read_progress()
        if after is None:
            self._report.is_finished = True
            return self._report
        resume_at: str | None = None  # the start of the first page whose message was not delivered
        if not after and not self._publish_default():
            resume_at = ""
        while page := OrgDocuments(self._repository).list(after=after, limit=_PAGE):
            orgs = [org for org in page if org.deletion is None]
            self._sweep_deleted(org for org in page if org.deletion is not None)
            is_delivered = self._publish([(org, self._inspect(org)) for org in orgs])
            self._report.orgs += len(orgs)
            resume_at = after if resume_at is None and not is_delivered else resume_at
            after = page[-1].org_id
            self._write_progress(after if resume_at is None else resume_at)
            if enough():
                raise Unfinished(f"time was up after {self._report.orgs} organizations")
        if resume_at is not None:
            raise Unfinished(f"a message did not arrive: {self._report.failed[0]}")
        self._write_progress(after, is_done=True)
        self._report.is_finished = True
        log.info("expiry report", extra={"orgs": self._report.orgs, "endings": self._report.expiries, "day": self._day})
        return self._report

    # ------------------------------------------------------------------------------------------------ progress

    def _read_progress(self) -> str | None:
        """Return the last organization of this day's run that is done ("": none); None: the run is complete."""
        run = self._repository.get(report_run_ref())
        if run is None or run.day != self._day:
            return ""
        return None if run.done else run.after

    def _write_progress(self, after: str, *, is_done: bool = False) -> None:
        for attempt in self._repository.changing(report_run_ref()):
            with attempt as run:
                is_behind = run is None or run.day != self._day or (run.done, run.after) < (is_done, after)
                if is_behind:  # else another run has come further
                    attempt.write(ReportRun(day=self._day, after=after, done=is_done))

    # ---------------------------------------------------------------------------------------------- publishing

    def _publish_default(self) -> bool:
        """Report the expiry of the platform's default certificate. Return whether the webhook has the message."""
        expiries = self._default_expiries()
        if expiries and self._repository.append_once(PLATFORM, self._entry(PLATFORM, expiries)):
            self._log(expiries)
        return self._deliver([_encode_org(PLATFORM, expiries)] if expiries else [])

    def _publish(self, page: Sequence[tuple[Org, Sequence[Expiry]]]) -> bool:
        """Report the expiries of some organizations. Return whether the webhook has the message."""
        page = [(org, expiries) for org, expiries in page if expiries]
        for org, expiries in page:
            if self._context.of(org).append_once(org.org_id, self._entry(org.org_id, expiries)):
                self._log(expiries)
        return self._deliver([_encode_org(org.org_id, expiries) for org, expiries in page])

    def _log(self, expiries: Sequence[Expiry]) -> None:
        self._report.expiries += len(expiries)
        for expiry in expiries:
            has_expired = expiry.stage == "ended"
            level = logging.ERROR if has_expired and expiry.in_force else logging.WARNING
            message = "a certificate has expired" if has_expired else "a certificate expires soon"
            log.log(level, message, extra={"org": expiry.org_id, **expiry.encode()})

    def _entry(self, org_id: str, expiries: Sequence[Expiry]) -> Activity:
        midnight = datetime.strptime(self._day, "%Y-%m-%d").replace(tzinfo=UTC)
        ids = {stage: [expiry.id for expiry in expiries if expiry.stage == stage] for stage in _STAGES}
        detail = {stage: str(len(ids[stage])) for stage in _STAGES if ids[stage]}
        worst = next(iter(detail))
        detail["certificates"] = ",".join(expiry.id for expiry in expiries[:_LISTED])
        return Activity(
            activity_id(midnight, f"expiry/{org_id}/{self._day}"),
            midnight,
            ActivityKind.CHANGE,
            "platform",
            "expiryReport",
            worst,
            None,
            detail,
        )

    def _deliver(self, orgs: Sequence[dict[str, Any]]) -> bool:
        if self._webhook is None or not orgs:
            return True
        # The id follows from the day and the orgs, so that the receiver recognizes a repeated message. If an org is
        # created between two runs, the pages shift, and the repeated message has another id.
        names = ",".join(org["org"] for org in orgs)
        message_id = f"expiry-{self._day}-" + hashlib.sha256(names.encode()).hexdigest()[:16]
        ref = delivered_ref(self._day, message_id)
        if self._repository.get(ref) is not None:
            return True
        body = {
            "type": "certificates.ending",
            "timestamp": self._at.isoformat(),
            "data": {"day": self._day, "orgs": orgs},
        }
        try:
            self._webhook.send(message_id, json.dumps(body).encode())
        except WebhookFailed as failure:
            self._report.failed.append(str(failure))
            return False
        for attempt in self._repository.changing(ref, expires=self._at + _KEEP_DELIVERED):
            with attempt:
                attempt.write(DeliveredMessage(self._at))
        return True

    # ------------------------------------------------------------------------------------------------- reading

    def _default_expiries(self) -> list[Expiry]:
        record = PlatformDefault(self._repository).get()
        return list(self._expiries(PLATFORM, DEFAULT, DEFAULT, record.leaf, in_force=True)) if record else []

    def _inspect(self, org: Org) -> list[Expiry]:
        """Return the expiries of an organization. On the way, copy the waiting activity entries of its documents.

        An organization in which withdrawals wait is swept today."""
        self._has_waiting = False
        expiries = [*self._ca_expiries(org), *self._server_expiries(org)]
        self._copy_outboxes(org, [org])
        self._copy_outboxes(org, DenyList(self._context.of(org)).iterate_documents())
        if self._has_waiting or self._is_sweep_day(org):
            self._report.swept += sweep_org(self._context, org, at=self._at)
        return sorted(expiries, key=lambda expiry: (expiry.ends, expiry.id))

    def _sweep_deleted(self, tombstones: Iterable[Org]) -> None:
        """Complete deletions that were cut short; once a week, delete what late calls wrote."""
        for tombstone in tombstones:
            if tombstone.is_deleting or self._is_sweep_day(tombstone):
                complete_deletion(self._context, tombstone)
                self._report.swept += tombstone.is_deleting

    def _is_sweep_day(self, org: Org) -> bool:
        return self._sweep_all or _sweep_day(org.org_id) == self._at.toordinal() % _SWEEP_EVERY

    def _ca_expiries(self, org: Org) -> Iterator[Expiry]:
        if not org.has_ca:
            return
        for document in CACertificates(self._context.of(org)).iterate_documents():
            self._copy_outboxes(org, [document])
            for ca_id, ca in document.cas.items():
                if ca.status is CAStatus.ACTIVE:  # no client connects by an inactive CA, expired or not
                    yield from self._expiries(org.org_id, "ca", ca_id, ca.der, in_force=True)

    def _server_expiries(self, org: Org) -> Iterator[Expiry]:
        for certificate_id, record in ServerCertificates(self._context.of(org)).find_records(org.servers):
            self._copy_outboxes(org, [record])
            in_force = org.activation.active == certificate_id
            yield from self._expiries(org.org_id, "server", certificate_id, record.leaf, in_force=in_force)

    def _expiries(
        self, org_id: str, kind: str, certificate_id: str, der: bytes | None, *, in_force: bool
    ) -> Iterator[Expiry]:
        """Yield the expiry of a certificate that must be reported. *der* None: a request without a certificate."""
        if der is None:
            return
        ends = Certificate.from_der(der).not_after
        stage = _stage_of(ends - self._at)
        if stage is not None and (in_force or ends >= self._at - timedelta(days=_ENDED_DAYS)):
            yield Expiry(org_id, kind, certificate_id, ends, stage, in_force)

    # ------------------------------------------------------------------------------------------------- repairing

    def _copy_outboxes(self, org: Org, documents: Iterable[RecordWithOutbox]) -> None:
        for document in documents:
            self._has_waiting = self._has_waiting or bool(document.withdrawals)
            recent = [entry for entry in document.outbox if entry.at > self._at - _OUTBOX_AGE]
            if recent:
                self._report.copied += self._context.of(org).copy_outbox(org.org_id, recent)


def _stage_of(remaining: timedelta) -> str | None:
    if remaining < timedelta(0):
        return "ended"
    return next((f"within{days}" for days in WITHIN if remaining <= timedelta(days=days)), None)


def _sweep_day(org_id: str) -> int:
    return int.from_bytes(hashlib.sha256(org_id.encode()).digest()[:4]) % _SWEEP_EVERY


def _encode_org(org_id: str, expiries: Sequence[Expiry]) -> dict[str, Any]:
    """Return the part of a webhook's message that is about one organization."""
    body: dict[str, Any] = {"org": org_id, "certificates": [expiry.encode() for expiry in expiries[:_LISTED]]}
    if len(expiries) > _LISTED:
        body["more"] = len(expiries) - _LISTED
    return body

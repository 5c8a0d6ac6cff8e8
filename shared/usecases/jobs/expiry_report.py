"""expiryReport: once a day, what ends soon or has ended, of every org; and what a crash left lying about.

Reported are certificates that end within 30 days, within 7, or have ended: active CAs, server certificates, the
default. One that has ended is told of as long as it is in force (an active CA, the active server certificate); others
for 30 days, so that a forgotten one does not sound for ever.

Three ways, each once a day however often this runs:
1. the structured log, a line for each certificate;
2. the org's activity list, one entry a day, whose id follows from the day;
3. the webhook, a message for each page of orgs that have something to tell; what has arrived is remembered.

Orgs are read page by page, and how far a run has come is remembered: one that is cut short (a function's time is
limited) goes on there. While an org is at hand, what a crash left behind is mended: activity entries that were not
copied out of their documents, and, one day in seven, bodies of server certificates that no index names.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from shared.ports import Webhook, WebhookFailed
from shared.records import (
    DEFAULT,
    PLATFORM,
    Activity,
    ActivityKind,
    CAsOfOneName,
    CAStatus,
    DeliveredMessage,
    Denials,
    Org,
    Outboxed,
    ReportRun,
)
from shared.repository import activity_id, default_ref, delivered_ref, report_run_ref, server_ref
from shared.usecases.context import Context
from shared.usecases.jobs.maintenance import sweep_org
from shared.x509.certificate import Certificate

log = logging.getLogger(__name__)

WITHIN: Final = (7, 30)  # days
_ENDED_DAYS: Final = 30  # how long one that has ended, and is not in force, is told of
_PAGE: Final = 50  # orgs
_LISTED: Final = 20  # certificates of one org in a webhook's message and in its activity entry
_SWEEP_EVERY: Final = 7  # days; an org's turn follows from its id
_OUTBOX_AGE: Final = timedelta(days=8)  # what is older was looked at by a run before
_KEEP_TOLD: Final = timedelta(days=3)


class Expiry(msgspec.Struct, frozen=True):
    """A certificate that ends soon, or has ended."""

    org_id: str
    kind: str  # "ca", "server" or "default"
    id: str
    ends: datetime
    stage: str  # "ended", "within7" or "within30"
    in_force: bool

    def shown(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "id": self.id,
            "notAfter": self.ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "stage": self.stage,
            "inForce": self.in_force,
        }


class Report(msgspec.Struct):
    """What a run did."""

    orgs: int = 0
    endings: int = 0
    copied: int = 0  # activity entries that a crash had left in their documents
    swept: int = 0  # what was left behind, and removed or mended (shared.usecases.jobs.maintenance)
    finished: bool = False
    failed: list[str] = msgspec.field(default_factory=list)  # why a webhook's message did not arrive


class Unfinished(Exception):
    """Not all was told: run again, the rest follows."""


def expiry_report(
    context: Context, webhook: Webhook | None, *, enough: Callable[[], bool] = lambda: False, sweep_all: bool = False
) -> Report:
    """Tell of what ends, and mend what a crash left behind. Safe to run at any time, twice, or twice at once.

    Args:
        enough: asked between two pages: whether to stop for now.
        sweep_all: look for what was left behind in every org, not only in today's seventh.

    Raises: Unfinished, where a message did not arrive, or time was up; StoreUnavailable."""
    at = context.clock()
    run = _Run(context, webhook, at, sweep_all)
    return run(enough)


class _Run:
    def __init__(self, context: Context, webhook: Webhook | None, at: datetime, sweep_all: bool) -> None:
        self._context = context
        self._webhook = webhook
        self._at = at
        self._sweep_all = sweep_all
        self._day = at.strftime("%Y-%m-%d")
        self._report = Report()

    def __call__(self, enough: Callable[[], bool]) -> Report:
        after = self._began()
        if after is None:
            self._report.finished = True
            return self._report
        again: str | None = None  # where the first message that did not arrive was about
        if not after and not self._told([(PLATFORM, self._default())]):
            again = ""
        while page := self._context.repository.list("org", Org, after=after, limit=_PAGE):
            arrived = self._told([(org.org_id, self._org(org)) for _, org in page])
            self._report.orgs += len(page)
            again = after if again is None and not arrived else again
            after = page[-1][0]
            self._reached(after if again is None else again)
            if enough():
                raise Unfinished(f"time was up after {self._report.orgs} organizations")
        if again is not None:
            raise Unfinished(f"a message did not arrive: {self._report.failed[0]}")
        self._reached(after, done=True)
        self._report.finished = True
        log.info("expiry report", extra={"orgs": self._report.orgs, "endings": self._report.endings, "day": self._day})
        return self._report

    # --------------------------------------------------------------------------------------------- how far it is

    def _began(self) -> str | None:
        """Where this day's run goes on; None where it is done."""
        run = self._context.repository.get(report_run_ref())
        if run is None or run.day != self._day:
            return ""
        return None if run.done else run.after

    def _reached(self, after: str, *, done: bool = False) -> None:
        def alter(before: ReportRun | None) -> ReportRun:
            if before is not None and before.day == self._day and (before.done, before.after) >= (done, after):
                return before  # another run is further
            return ReportRun(day=self._day, after=after, done=done)

        self._context.repository.change(report_run_ref(), alter)

    # ------------------------------------------------------------------------------------------------- telling

    def _told(self, page: Sequence[tuple[str, Sequence[Expiry]]]) -> bool:
        """Tell of some orgs (or of the platform's own). Returns whether the webhook's message has arrived."""
        page = [(org_id, endings) for org_id, endings in page if endings]
        for org_id, endings in page:
            if self._context.repository.append_once(org_id, self._entry(org_id, endings)):
                self._log(endings)
        return self._deliver([_org_shown(org_id, endings) for org_id, endings in page])

    def _log(self, endings: Sequence[Expiry]) -> None:
        self._report.endings += len(endings)
        for one in endings:
            loud = logging.ERROR if one.stage == "ended" and one.in_force else logging.WARNING
            log.log(loud, "a certificate ends", extra={"org": one.org_id, **one.shown()})

    def _entry(self, org_id: str, endings: Sequence[Expiry]) -> Activity:
        midnight = datetime.strptime(self._day, "%Y-%m-%d").replace(tzinfo=UTC)
        counts = {stage: [one.id for one in endings if one.stage == stage] for stage in _STAGES}
        detail = {stage: str(len(ids)) for stage, ids in counts.items() if ids}
        detail["certificates"] = ",".join(one.id for one in endings[:_LISTED])
        stage = next(stage for stage in _STAGES if counts[stage])
        return Activity(
            activity_id(midnight, f"expiry/{org_id}/{self._day}"),
            midnight,
            ActivityKind.CHANGE,
            "platform",
            "expiryReport",
            stage,
            None,
            detail,
        )

    def _deliver(self, orgs: Sequence[dict[str, Any]]) -> bool:
        if self._webhook is None or not orgs:
            return True
        # The same for the same orgs and day, so that a receiver knows a repetition; each org's own id does so even
        # where an org was made in between, and the pages have shifted.
        message_id = (
            f"expiry-{self._day}-" + hashlib.sha256(",".join(one["org"] for one in orgs).encode()).hexdigest()[:16]
        )
        place = delivered_ref(self._day, message_id)
        if self._context.repository.get(place) is not None:
            return True
        body = {
            "type": "certificates.ending",
            "timestamp": self._at.isoformat(),
            "data": {"day": self._day, "orgs": orgs},
        }
        try:
            self._webhook.tell(message_id, json.dumps(body).encode())
        except WebhookFailed as failure:
            self._report.failed.append(str(failure))
            return False
        self._context.repository.change(place, lambda _: DeliveredMessage(self._at), expires=self._at + _KEEP_TOLD)
        return True

    # ------------------------------------------------------------------------------------------------- looking

    def _default(self) -> list[Expiry]:
        record = self._context.repository.get(default_ref())
        found = record and self._ending(PLATFORM, DEFAULT, DEFAULT, record.leaf, in_force=True)
        return [found] if found else []

    def _org(self, org: Org) -> list[Expiry]:
        """An org's certificates that end. On the way, its documents' waiting activity entries are copied."""
        endings: list[Expiry] = []
        self._copy(org.org_id, org)
        if org.has_ca:
            for _, named in self._context.repository.every(f"ca/{org.org_id}", CAsOfOneName):
                self._copy(org.org_id, named)
                endings += self._of_cas(org.org_id, named)
        places = {one: server_ref(org.org_id, one) for one in org.servers}
        found = self._context.repository.find(list(places.values())) if places else None
        for certificate_id, place in places.items():
            record = found.get(place) if found else None
            if record is not None:
                self._copy(org.org_id, record)
                active = org.activation.active == certificate_id
                ending = self._ending(org.org_id, "server", certificate_id, record.leaf, in_force=active)
                endings += [ending] if ending else []
        for _, denials in self._context.repository.every(f"deny/{org.org_id}", Denials):
            self._copy(org.org_id, denials)
        if self._sweep_all or _turn(org.org_id) == self._at.toordinal() % _SWEEP_EVERY:
            self._report.swept += sweep_org(self._context, org.org_id, at=self._at)
        return sorted(endings, key=lambda one: (one.ends, one.id))

    def _of_cas(self, org_id: str, named: CAsOfOneName) -> Iterator[Expiry]:
        for ca_id, ca in named.cas.items():
            if ca.status is CAStatus.ACTIVE:  # an inactive one is let in by nobody, ended or not
                found = self._ending(org_id, "ca", ca_id, ca.der, in_force=True)
                if found:
                    yield found

    def _ending(
        self, org_id: str, kind: str, certificate_id: str, der: bytes | None, *, in_force: bool
    ) -> Expiry | None:
        if der is None:  # a request that waits
            return None
        ends = Certificate.from_der(der).not_after
        stage = _stage(ends - self._at)
        if stage is None or (not in_force and ends < self._at - timedelta(days=_ENDED_DAYS)):
            return None
        return Expiry(org_id, kind, certificate_id, ends, stage, in_force)

    # ------------------------------------------------------------------------------------------------- mending

    def _copy(self, org_id: str, document: Outboxed) -> None:
        recent = [one for one in document.outbox if one.at > self._at - _OUTBOX_AGE]
        if recent:
            self._report.copied += self._context.repository.copy_outbox(org_id, recent)


_STAGES: Final = ("ended", *(f"within{days}" for days in WITHIN))


def _stage(left: timedelta) -> str | None:
    if left < timedelta(0):
        return "ended"
    return next((f"within{days}" for days in WITHIN if left <= timedelta(days=days)), None)


def _turn(org_id: str) -> int:
    return int.from_bytes(hashlib.sha256(org_id.encode()).digest()[:4]) % _SWEEP_EVERY


def _org_shown(org_id: str, endings: Sequence[Expiry]) -> dict[str, Any]:
    shown: dict[str, Any] = {"org": org_id, "certificates": [one.shown() for one in endings[:_LISTED]]}
    if len(endings) > _LISTED:
        shown["more"] = len(endings) - _LISTED
    return shown

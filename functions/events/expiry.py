"""expiryReport: the platform's daily schedule calls it; so can anybody who may run commands on the configured store.

python -m functions.events.expiry
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Final

from shared import log
from shared.composition import App, build, webhook
from shared.config import Settings, WrongSetting
from shared.errors import TrustError
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.edges.withdrawals import sweep_withdrawals
from shared.usecases.jobs.expiry_report import Report, Unfinished
from shared.usecases.jobs.expiry_report import expiry_report as usecase

_SPARE: Final = 30.0  # seconds before a function's time is up: one page of orgs and a webhook that does not answer


def expiry_report(app: App, *, seconds_left: Callable[[], float] | None = None) -> Report:
    """Today's report, or the rest of it; and the edges hear of what a crash left untold.

    Raises: Unfinished, so that the platform calls again; StoreUnavailable."""
    HostFeed(app.context).sweep()
    sweep_withdrawals(app.context)
    hook = webhook(app.settings)
    return usecase(app.context, hook, enough=lambda: seconds_left is not None and seconds_left() < _SPARE)


def until(seconds: float) -> Callable[[], float]:
    """How much is left of *seconds* from now on."""
    end = time.monotonic() + seconds
    return lambda: end - time.monotonic()


def main() -> int:
    try:
        settings = Settings.from_env()
    except WrongSetting as error:
        sys.stderr.write(f"{error}\n")
        return 2
    log.configure(settings.log)
    app = build(settings)
    try:
        report = expiry_report(app)
    except (Unfinished, TrustError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        app.close()
    sys.stdout.write(json.dumps({"orgs": report.orgs, "endings": report.endings, "swept": report.swept}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

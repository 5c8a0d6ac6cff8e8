"""expiryReport: the daily report of what expires. The platform's schedule calls it; the command runs it by hand.

python -m functions.events.expiry
"""

import json
import sys
from collections.abc import Callable
from typing import Final

from shared import log
from shared.composition import App, build, webhook
from shared.config import Settings, WrongSetting
from shared.errors import TrustError
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.edges.withdrawals import sweep_withdrawals
from shared.usecases.jobs.expiry_report import Report, Unfinished, expiry_report

_SPARE: Final = 30.0  # seconds of a function's time limit: for one page of organizations and a webhook that times out


def report_expiry(app: App, *, seconds_left: Callable[[], float] | None = None) -> Report:
    """Make today's report, or the rest of it, and publish to the edges what an interrupted change left unpublished.

    Args:
        seconds_left: returns the seconds until the platform stops this process; None: no limit.

    Raises: Unfinished, so that the platform calls again; StoreUnavailable.
    """
    HostFeed(app.context).sweep()
    sweep_withdrawals(app.context)
    hook = webhook(app.settings)
    return expiry_report(app.context, hook, enough=lambda: seconds_left is not None and seconds_left() < _SPARE)


def main() -> int:
    """Return the exit code: 1 for a refusal or an unfinished report, 2 for a wrong setting."""
    try:
        settings = Settings.from_env()
    except WrongSetting as error:
        sys.stderr.write(f"{error}\n")
        return 2
    log.configure(settings.log)
    app = build(settings)
    try:
        report = report_expiry(app)
    except (Unfinished, TrustError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        app.close()
    sys.stdout.write(json.dumps({"orgs": report.orgs, "endings": report.expiries, "swept": report.swept}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

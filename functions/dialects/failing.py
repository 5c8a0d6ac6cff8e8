"""The certificate at fault, as verdicts and the activity list show it."""

import msgspec

from functions.web.contract import View


class Failing(View, frozen=True, kw_only=True):
    """The certificate at fault."""

    subject: str
    fingerprint_sha256: str = msgspec.field(name="fingerprintSha256")

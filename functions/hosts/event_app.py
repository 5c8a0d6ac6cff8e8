"""What a function that the platform calls works with: the process's App, and what paces it."""

from typing import Final

from functions.events.sightings import Recorder
from functions.hosts.process import app
from shared.config import WrongSetting

__all__ = ["app", "record", "upload_bucket"]

record: Final = Recorder()


def upload_bucket() -> str:
    """Raises: WrongSetting, where none is configured: no event is believed then."""
    bucket = app().settings.upload_bucket
    if bucket is None:
        raise WrongSetting("onUpload needs TRUST_UPLOAD_BUCKET, the name of the only bucket whose events it believes.")
    return bucket

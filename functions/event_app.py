"""What a function that the platform calls works with: made at the first event, kept for the life of the process."""

from functools import cache
from typing import Final

from functions.record_sightings import Recorder
from shared import log
from shared.composition import App, build
from shared.config import Settings, WrongSetting

record: Final = Recorder()


@cache
def app() -> App:
    """Raises: WrongSetting; nothing is remembered then, so that the next event tries again."""
    settings = Settings.from_env()
    log.configure(settings.log)
    return build(settings)


def upload_bucket() -> str:
    """Raises: WrongSetting, where none is configured: no event is believed then."""
    bucket = app().settings.upload_bucket
    if bucket is None:
        raise WrongSetting("onUpload needs TRUST_UPLOAD_BUCKET, the name of the only bucket whose events it believes.")
    return bucket

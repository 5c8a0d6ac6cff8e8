"""The settings of a process that a cloud started, and its log."""

from functools import cache

from shared import log
from shared.config import Settings


def read_settings() -> Settings:
    """Return the settings, after configuring the log with them. Raises: WrongSetting."""
    settings = Settings.from_env()
    log.configure(settings.log)
    return settings


@cache
def configure_log() -> None:
    """Configure the log of a process that builds no App, once. Raises: WrongSetting, each time."""
    read_settings()

"""The console of a process that a cloud started: made at the first call, without a store, a key or a queue."""

from functools import cache

from functions.hosts.static import Console
from shared import log
from shared.composition import token_verifier
from shared.config import Settings


@cache
def console() -> Console:
    """The process's console. Raises: WrongSetting; nothing is remembered then, so that the next call tries again."""
    settings = Settings.from_env()
    log.configure(settings.log)
    tokens = token_verifier(settings.oidc)
    return Console(origins=tokens.origins) if tokens else Console()

"""Every function in one process, with the embedded store: what `make run` starts."""

import gc
import logging
import sys
from collections.abc import Sequence

import uvicorn

from functions.events.folder import FOLDER, UploadWatcher
from functions.hosts.asgi import Application
from shared import log
from shared.composition import App, build
from shared.config import Settings, WrongSetting
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.edges.withdrawals import sweep_withdrawals
from shared.usecases.orgs.first_start import DEMO_ORG, Key, first_start
from shared.validation.names import messaging_host

HOST = "127.0.0.1"


def main() -> int:
    """Run until Ctrl-C (SIGINT) or SIGTERM; what was answered is kept, and a second start finds it again."""
    try:
        settings = Settings.from_env()
    except WrongSetting as error:
        print(error, file=sys.stderr)
        return 2
    log.configure(settings.log)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    app = build(settings)
    uploads = UploadWatcher(app)
    try:
        keys = first_start(app.context, app.sealer)
        HostFeed(app.context).sweep()  # what a kill left untold
        sweep_withdrawals(app.context)
        uploads.start()
        server = _Server(_config(app, settings.port), app, keys)
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        uploads.close()
        app.close()
    if not server.started:  # uvicorn has said why
        return 1
    print("Stopped.")
    return 0


def _config(app: App, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        Application(app),
        host=HOST,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        proxy_headers=False,  # who asks, and how, is read from the connection; Envoy on this machine sends such headers
        timeout_graceful_shutdown=10,  # seconds
    )


class _Server(uvicorn.Server):
    """Tells where to go once it listens."""

    def __init__(self, config: uvicorn.Config, app: App, keys: Sequence[Key]) -> None:
        super().__init__(config)
        self._app = app
        self._keys = keys

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            gc.freeze()  # as in functions/hosts/process.py
            port = self.servers[0].sockets[0].getsockname()[1]
            print(_banner(self._app.settings, port, self._keys), flush=True)


def _banner(settings: Settings, port: int, keys: Sequence[Key]) -> str:
    lines = [
        "",
        f"MQTT Trust answers on http://{HOST}:{port}",
        f"  console           http://{HOST}:{port}/console/",
        f"  API description   http://{HOST}:{port}/openapi.json",
        f"  data              {settings.data.resolve()}",
        f"  uploads           {(settings.data / FOLDER).resolve()}/<orgId>/ca|server|csr/",
        f"  messaging hosts   {messaging_host('<orgId>', settings.domain)}",
    ]
    if keys:
        lines += ["", f"A first organization, {DEMO_ORG}, was made. Its keys are shown this once:"]
        lines += [f"  {one.role.value:<9} key {one.key}   token {one.token}" for one in keys]
        lines += ["More of both: python -m functions.admin --help"]
    return "\n".join([*lines, "", "Ctrl-C stops it.", ""])


if __name__ == "__main__":
    sys.exit(main())

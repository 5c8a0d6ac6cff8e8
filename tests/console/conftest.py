"""Real Chromium against the really running service: one browser per worker, a fresh profile for each test."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.console.live import Live, running
from tests.support.harness import Client
from tests.support.missing import skip_or_fail

ROOT = Path(__file__).parent.parent.parent
SCREENSHOTS = ROOT / "screenshots"
AXE = ROOT / "tests" / "node_modules" / "axe-core" / "axe.min.js"
TIMEOUT = 15_000  # milliseconds until something must appear, on a busy machine

expect.set_options(timeout=TIMEOUT)
_CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def require(tool: object, what: str) -> None:
    """Skip the test if *tool* is missing on a developer's machine; fail if CI=true, where everything is checked."""
    if not tool:
        skip_or_fail(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start one browser for a module, not for the session.

    While Playwright runs, an event loop runs in this thread, and other tests could not have an event loop of their own.
    """
    require(_CHROMIUM, "Chromium is missing: apt-get install chromium (tools/apt-packages.sh)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def axe() -> Path:
    require(AXE.exists(), "axe-core is missing: npm ci --prefix tests")
    return AXE


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """The folder of the run's screenshots, which git ignores."""
    return SCREENSHOTS


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with running(tmp_path / "data") as started:
        yield started


class Watch:
    """Collect what must not happen on a page: script errors, and violations of the content security policy."""

    def __init__(self) -> None:
        self.complaints: list[str] = []

    def over(self, context: BrowserContext) -> None:
        context.on("console", self._console)
        context.on("weberror", lambda error: self.complaints.append(f"script: {error.error}"))

    def _console(self, message: ConsoleMessage) -> None:
        # Chromium reports every refusal of the API as an error; the page shows the refusal, which the tests check.
        refusal = message.text.startswith("Failed to load resource: the server responded with a status of 4") or (
            message.text.startswith("Failed to load resource: the server responded with a status of 503")
        )
        if message.type in ("error", "warning") and not (refusal and "/api/" in message.location["url"]):
            self.complaints.append(f"{message.type}: {message.text}")


@pytest.fixture
def watch() -> Iterator[Watch]:
    watching = Watch()
    yield watching
    assert watching.complaints == [], "the page's own errors"


NewContext = Callable[..., BrowserContext]


@pytest.fixture
def new_context(browser: Browser, watch: Watch, live: Live) -> Iterator[NewContext]:
    """Make fresh browser profiles, signed in with a key if a client is given.

    The profiles are closed before the service stops, because a page that loads or polls would fail then. A test with
    another service requests that service before this fixture: pytest ends fixtures in the reverse order.
    """
    made: list[BrowserContext] = []

    def make(client: Client | None = None, **more: object) -> BrowserContext:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "timezone_id": "UTC", **more})  # type: ignore[arg-type]
        context.set_default_timeout(TIMEOUT)
        made.append(context)
        watch.over(context)
        if client is not None:
            context.add_init_script(_sign_in_script(client))
        return context

    yield make
    for context in made:
        context.close()


def _sign_in_script(client: Client) -> str:
    proof = json.dumps({"kind": "key", "key": client.key, "token": client.token})
    return (
        "if (location.pathname.startsWith('/console/') && !sessionStorage.getItem('seeded')) {"
        f"sessionStorage.setItem('seeded', '1'); sessionStorage.setItem('trust.session', {json.dumps(proof)}); }}"
    )


@pytest.fixture
def page(new_context: NewContext, live: Live) -> Page:
    """The console with an operator signed in, before any page is open."""
    return new_context(live.operator).new_page()


@pytest.fixture
def at(page: Page, live: Live) -> Callable[[str], Page]:
    """A function that opens a page of the console by its route."""

    def open_route(route: str) -> Page:
        page.goto(f"{live.console}#/{route}")
        page.locator("h1").wait_for()
        return page

    return open_route

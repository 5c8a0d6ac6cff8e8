"""Keeps HAProxy as edgeFeed says: `python -m edge.haproxy_sync`. Needs Python 3.11 and nothing else.

Every change goes into the running HAProxy over its runtime socket, with every device staying connected, and onto the
disk, so that a restart serves the same even while the functions are away. Sessions of what is withdrawn are ended.
"""

import argparse
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from edge.api import Api, Unavailable, WrongConfiguration, read_key
from edge.feed import Feed, Host, Material
from edge.runtime import HAProxyAway, Refused, Runtime
from edge.state import NotServable, State
from edge.withdrawals import Withdrawer

log = logging.getLogger("edge.haproxy_sync")

_DEFAULT: Final = "default"  # the id of the platform's own certificate
_BATCH: Final = 500
_FETCHERS: Final = 4
_LONGEST_WAIT: Final = 15.0  # seconds between tries while something does not answer


@dataclass(frozen=True)
class _Try:
    at: float
    wait: float


_NEVER: Final = _Try(0, 0.5)


@dataclass(frozen=True)
class _Prepared:
    """A host whose new file stands beside the old one."""

    host: Host
    version: str
    pem: str = field(repr=False)
    fingerprint: str


class HostSync:
    """Follows edgeFeed's hosts; `step` is one look."""

    def __init__(self, feed: Feed, runtime: Runtime, state: State, *, edge: str) -> None:
        self._feed, self._runtime, self._state, self._edge = feed, runtime, state, edge
        self._process: int | None = None  # the HAProxy that is known to hold what the disk holds
        self._at = ""  # where the next page begins, within a list of several
        self._all: set[str] | None = None  # hosts on the pages of everything that came so far
        self._tries: dict[str, _Try] = {}  # what failed, and when it is due again
        self._fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch")

    @property
    def in_step(self) -> bool:
        """Whether the running HAProxy holds all that the disk holds."""
        return self._process is not None

    def close(self) -> None:
        self._fetchers.shutdown(cancel_futures=True)

    def step(self) -> None:
        """Bring HAProxy and the disk to where edgeFeed is, as far as can be now.

        Raises: Unavailable; what was applied before is kept."""
        self._meet_haproxy()
        while self._follow():
            pass
        self._report()

    # --------------------------------------------------------------------------------------------- following

    def _follow(self) -> bool:
        """One page. Returns whether there are more."""
        state = self._state
        page = self._feed.hosts(self._at or state.head)
        if page.first:
            self._all = set()
        for host in page.hosts:
            self._want(host)
        if page.full and self._all is not None:
            self._all.update(one.server_name for one in page.hosts if not one.removed)
            if not page.more:
                self._only(self._all)
                self._all = None
        changed = self._work_off()
        self._at = page.head
        if not page.more and page.head != state.head:  # not between two pages: after a restart, all is compared anew
            state.head = page.head
            changed = True
        if changed:
            state.save()
        return page.more

    def _want(self, host: Host) -> None:
        served = self._state.hosts.get(host.server_name)
        if (served is None) if host.removed else (served is not None and served.version == host.version):
            self._state.wanted.pop(host.server_name, None)
        else:
            self._state.wanted[host.server_name] = host
        self._tries.pop(host.server_name, None)

    def _only(self, listed: set[str]) -> None:
        """Those are all hosts that there are."""
        gone = [name for name in (*self._state.hosts, *self._state.wanted) if name not in listed]
        if gone and not listed:  # a mistaken setting must not take every certificate away
            log.error("edgeFeed knows no host at all; %s stay served until it knows one", len(gone))
            return
        for name in gone:
            self._want(Host(name, "", "", removed=True))

    def _work_off(self) -> bool:
        """Apply what is wanted; what fails is tried again later, by itself. Returns whether anything changed."""
        now = time.monotonic()
        due = [one for name, one in self._state.wanted.items() if self._tries.get(name, _NEVER).at <= now]
        for start in range(0, len(due), _BATCH):
            if start:
                self._state.save()
            batch = due[start : start + _BATCH]
            for host in (one for one in batch if one.removed):
                self._remove(host)
            self._apply([one for one in batch if not one.removed])
        return bool(due)

    def _done(self, host: Host) -> None:
        self._state.wanted.pop(host.server_name, None)
        self._tries.pop(host.server_name, None)

    def _later(self, host: Host, why: str) -> None:
        """Try once more, after twice the time of the last try."""
        wait = min(self._tries.get(host.server_name, _NEVER).wait * 2, _LONGEST_WAIT)
        self._tries[host.server_name] = _Try(time.monotonic() + wait, wait)
        log.error("%s stays as it is: %s; again in %.0f s", host.server_name, why, wait)

    def _fetched(self, hosts: Sequence[Host]) -> Iterator[tuple[Host, Material | Unavailable | None]]:
        shared: dict[str, Material | Unavailable | None] = {}  # the platform's own, by version
        own = [one for one in hosts if one.certificate != _DEFAULT]
        if len(own) == 1:  # the common case: no thread is woken for it
            yield own[0], self._fetch(own[0])
        else:
            yield from zip(own, self._fetchers.map(self._fetch, own), strict=True)
        for host in (one for one in hosts if one.certificate == _DEFAULT):
            if not isinstance(shared.get(host.version), Material):
                shared[host.version] = self._fetch(host)
            found = shared[host.version]
            same = isinstance(found, Material) and found.version == host.version
            yield host, found if same else self._fetch(host)

    def _fetch(self, host: Host) -> Material | Unavailable | None:
        try:
            return self._feed.material(host.server_name)
        except Unavailable as error:
            return error

    def _apply(self, hosts: Sequence[Host]) -> None:
        """New and changed hosts: first into HAProxy, which may refuse one, then onto the disk."""
        prepared: list[_Prepared] = []
        for host, found in self._fetched(hosts):
            if isinstance(found, Unavailable):
                self._later(host, str(found))
            elif found is None:  # gone since; its removal comes with a later page
                self._done(host)
            elif one := self._prepared(host, found):
                prepared.append(one)
        self._state.flush(one.host.server_name for one in prepared)
        for one in prepared:
            self._take_up(one)

    def _prepared(self, host: Host, material: Material) -> _Prepared | None:
        pem = f"{material.certificate.strip()}\n{material.private_key.strip()}\n"
        try:
            return _Prepared(host, material.version, pem, self._state.prepare(host.server_name, pem))
        except NotServable as error:
            self._later(host, f"what edgeFeed gave cannot be served ({error})")
        except OSError as error:
            self._later(host, f"its file cannot be written ({error})")
        return None

    def _take_up(self, one: _Prepared) -> None:
        name = one.host.server_name
        try:
            self._if_running(lambda: self._show(name, one.pem, one.fingerprint))
        except Refused as error:
            self._state.discard(name)
            self._later(one.host, f"HAProxy refused it ({error})")
            return
        self._state.keep(one.host, one.version, one.fingerprint)
        self._done(one.host)
        log.info("%s is at version %s", name, one.version)

    def _remove(self, host: Host) -> None:
        name = host.server_name
        try:
            self._if_running(lambda: self._hide(str(self._state.pem_path(name))))
        except Refused as error:
            self._later(host, f"HAProxy would not take it away ({error})")
            return
        self._state.remove(name)
        self._done(host)
        log.info("%s is gone", name)

    # ------------------------------------------------------------------------------------------ into HAProxy

    def _if_running(self, change: Callable[[], None]) -> None:
        """Change the running HAProxy; where there is none, its next start finds the change on the disk."""
        if self._process is None:
            return
        try:
            change()
        except HAProxyAway as error:
            log.warning("%s", error)
            self._process = None
        except Refused:
            self._process = None  # compare all before the next change: this one may stand half done
            raise

    def _show(self, name: str, pem: str, fingerprint: str) -> None:
        path = str(self._state.pem_path(name))
        self._runtime.put_certificate(path, pem)
        if self._runtime.fingerprints([path]).get(path) != fingerprint:
            raise Refused("it holds another certificate than it was given")
        if name not in self._state.hosts:
            self._runtime.add_line(str(self._state.crt_list), self._state.line(name))

    def _hide(self, path: str) -> None:
        if self._runtime.has_certificate(path):
            self._runtime.remove_lines(str(self._state.crt_list), path)
            self._runtime.remove_certificate(path)

    def _meet_haproxy(self) -> None:
        """After a start of HAProxy, or a doubt, compare all that it holds with the disk."""
        try:
            process = self._runtime.process()
            if process != self._process:
                self._process = None
                self._compare()
                self._process = process
        except HAProxyAway as error:
            if self._process is not None:
                log.warning("%s", error)
            self._process = None
        except Refused as error:
            log.error("HAProxy does not hold what it should: %s", error)
            self._process = None

    def _compare(self) -> None:
        state, runtime, crt_list = self._state, self._runtime, str(self._state.crt_list)
        lines = Counter(line.path for line in runtime.lines(crt_list))
        paths = {str(state.pem_path(name)): name for name in state.hosts}
        fingerprints = runtime.fingerprints(list(paths))
        mended = 0
        for path, name in paths.items():
            if fingerprints.get(path) != state.hosts[name].fingerprint:
                mended += 1
                if not state.is_whole(name):  # somebody else wrote there: ask edgeFeed
                    state.wanted[name] = Host(name, state.hosts[name].org, state.hosts[name].version)
                    continue
                runtime.put_certificate(path, state.pem(name))
            if not lines[path]:
                runtime.add_line(crt_list, state.line(name))
        for path in lines.keys() - paths.keys():
            self._hide(path)
        log.info("HAProxy holds %s hosts, %s of them brought up to date", len(paths), mended)

    # -------------------------------------------------------------------------------------------- reporting

    def _report(self) -> None:
        """Tell edgeFeed what this edge serves, once HAProxy really does."""
        if not self.in_step:
            return
        names = iter([name for name, one in self._state.hosts.items() if not one.reported])
        while batch := list(islice(names, _BATCH)):
            self._feed.served(self._edge, [(name, self._state.hosts[name].version) for name in batch])
            for name in batch:
                self._state.reported(name)
            self._state.save()


# ------------------------------------------------------------------------------------------------------- running


def repeat(name: str, step: Callable[[], object], stopping: threading.Event, every: float) -> None:
    """Call *step* every so many seconds until *stopping*; more seldom, and with a line in the log, while it fails."""
    wait = every
    while not stopping.is_set():
        try:
            step()
            wait = every
        except (Unavailable, HAProxyAway, Refused) as error:
            wait = min(max(wait * 2, every), _LONGEST_WAIT)
            log.warning("%s: %s; again in about %.1f s", name, error, wait)
        except Exception:  # an agent that stops leaves an edge that never changes again
            wait = min(max(wait * 2, every), _LONGEST_WAIT)
            log.exception("%s failed; again in about %.1f s", name, wait)
        stopping.wait(wait * random.uniform(0.9, 1.1))  # noqa: S311 - spreads the load, no secret


@dataclass(frozen=True)
class Options:
    url: str
    key_file: Path
    state: Path
    socket: Path
    name: str
    every: float
    ca_file: Path | None
    once: bool


def options(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """The command line; each option may stand in the environment instead."""
    parser = argparse.ArgumentParser(prog="python -m edge.haproxy_sync", description=__doc__)

    def add(flag: str, variable: str, help_: str, default: str | None = None) -> None:
        value = environ.get(variable) or default
        parser.add_argument(flag, default=value, required=value is None, help=f"{help_} ({variable})")

    add("--url", "TRUST_URL", "the functions, without a path")
    add("--key-file", "TRUST_EDGE_KEY_FILE", "file with one line, key:token of an edge key")
    add("--state", "TRUST_EDGE_STATE", "folder of what is served; HAProxy reads crt-list.txt in it")
    add("--socket", "TRUST_EDGE_SOCKET", "HAProxy's runtime socket")
    add("--name", "TRUST_EDGE_NAME", "how this edge calls itself", socket.gethostname())
    add("--every", "TRUST_EDGE_EVERY", "seconds between two looks", "0.5")
    add("--ca-file", "TRUST_CA_FILE", "CAs of the functions' own certificate; without: the system's", "")
    parser.add_argument(
        "--once",
        action="store_true",
        help="one look, and end: before HAProxy's first start. Ends well where the functions are away and something "
        "is there to serve.",
    )
    found = parser.parse_args(arguments)
    return Options(
        found.url,
        Path(found.key_file),
        Path(found.state),
        Path(found.socket),
        found.name,
        float(found.every),
        Path(found.ca_file) if found.ca_file else None,
        found.once,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(sys.argv[1:] if arguments is None else arguments, os.environ)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        api = Api(chosen.url, read_key(chosen.key_file), ca_file=chosen.ca_file)
        state = State(chosen.state)
    except WrongConfiguration as error:
        log.error("%s", error)
        return 2
    feed, runtime = Feed(api), Runtime(chosen.socket)
    hosts = HostSync(feed, runtime, state, edge=chosen.name)
    try:
        return _once(hosts, state) if chosen.once else _run(hosts, Withdrawer(feed, runtime, state), chosen.every)
    finally:
        hosts.close()
        state.close()
        api.close()


def _once(hosts: HostSync, state: State) -> int:
    try:
        hosts.step()
    except Unavailable as error:
        log.warning("%s", error)
        if not state.hosts:
            return 1
        log.warning("serving the %s hosts of the last time", len(state.hosts))
    return 0


def _run(hosts: HostSync, withdrawer: Withdrawer, every: float) -> int:
    stopping = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stopping.set())
    # Withdrawals have a thread of their own: a long first synchronization must not hold them up.
    ender = threading.Thread(target=repeat, args=("withdrawals", withdrawer.step, stopping, every), daemon=True)
    ender.start()
    repeat("hosts", hosts.step, stopping, every)
    ender.join(10)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Synchronizes HAProxy with edgeFeed: `python -m edge.haproxy_sync`. Needs Python 3.11 and nothing else.

Every change is made in the running HAProxy over its runtime socket, without disconnecting devices. It is also written
to the disk, so that a restart serves the same certificates while the functions are away. Sessions that depend on a
withdrawal are ended.
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

from edge.api import ApiClient, Unavailable, WrongConfiguration, read_key
from edge.feed import FeedClient, HostVersion, KeyMaterial
from edge.log import configure_log
from edge.refusals import EVERY, RefusalReports
from edge.runtime import CommandRefused, HAProxyUnavailable, RuntimeApi
from edge.state import NotServable, State
from edge.withdrawals import WithdrawalSync

log = logging.getLogger("edge.haproxy_sync")

_DEFAULT: Final = "default"  # the id of the platform's certificate
_BATCH: Final = 500
_FETCHERS: Final = 4
_LONGEST_WAIT: Final = 15.0  # seconds between two attempts


@dataclass(frozen=True)
class _Retry:
    """The next attempt at a host.

    Args:
        due: monotonic seconds.
        wait: seconds between the last attempt and the next.
    """

    due: float
    wait: float


_NO_RETRY: Final = _Retry(0, 0.5)


@dataclass(frozen=True)
class _PreparedHost:
    """A host whose new file is on the disk and not in use yet."""

    host: HostVersion
    version: str
    pem: str = field(repr=False)
    fingerprint: str


class HostSync:
    """Follows edgeFeed's hosts and applies their changes to HAProxy and to the disk.

    Args:
        feed: the client of edgeFeed.
        runtime: HAProxy's runtime API.
        state: the folder of the edge.
        edge: the name of this edge.
    """

    def __init__(self, feed: FeedClient, runtime: RuntimeApi, state: State, *, edge: str) -> None:
        """Store the arguments. No request is made."""
        self._feed, self._runtime, self._state, self._edge = feed, runtime, state, edge
        self._process_id: int | None = None  # of the HAProxy whose certificates are known to be those on the disk
        self._page_head = ""  # the cursor within a list of several pages
        self._listed: set[str] | None = None  # the hosts on the pages of a full list so far
        self._retries: dict[str, _Retry] = {}  # after failures, by server name
        self._fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch")

    @property
    def is_synchronized(self) -> bool:
        """Whether the running HAProxy has all certificates that are on the disk."""
        return self._process_id is not None

    def close(self) -> None:
        """Stop the threads that request key material."""
        self._fetchers.shutdown(cancel_futures=True)

    def step(self) -> None:
        """Apply all changes of edgeFeed that can be applied now.

        Raises: Unavailable. Changes that were applied before are kept.
        """
        self._check_haproxy()
        while self._read_page():
            pass
        self._report()

    # ----------------------------------------------------------------------------------------------- edgeFeed

    def _read_page(self) -> bool:
        """Read and apply a page of hosts, and return whether there are more pages."""
        state = self._state
        page = self._feed.list_hosts(self._page_head or state.head, self._edge)
        if page.first:
            self._listed = set()
        for host in page.hosts:
            self._set_pending(host)
        if page.full and self._listed is not None:
            self._listed.update(host.server_name for host in page.hosts if not host.removed)
            if not page.more:
                self._remove_unlisted(self._listed)
                self._listed = None
        has_changed = self._apply_pending()
        self._page_head = page.head
        if not page.more and page.head != state.head:  # between two pages the cursor of a full list is not saved
            state.head = page.head
            has_changed = True
        if has_changed:
            state.save()
        return page.more

    def _set_pending(self, host: HostVersion) -> None:
        """Make *host* pending unless it is applied already."""
        served = self._state.hosts.get(host.server_name)
        is_applied = served is None if host.removed else served is not None and served.version == host.version
        if is_applied:
            self._state.pending.pop(host.server_name, None)
        else:
            self._state.pending[host.server_name] = host
        self._retries.pop(host.server_name, None)

    def _remove_unlisted(self, listed: set[str]) -> None:
        """Remove all hosts that are not in *listed*, the names of all hosts of edgeFeed."""
        unlisted = [name for name in (*self._state.hosts, *self._state.pending) if name not in listed]
        if unlisted and not listed:  # probably a configuration error, which must not remove every certificate
            log.error("edgeFeed has no hosts; %s hosts are still served", len(unlisted))
            return
        for name in unlisted:
            self._set_pending(HostVersion(name, "", "", removed=True))

    def _apply_pending(self) -> bool:
        """Apply the pending changes that are due, and return whether there were any. Failures are retried later."""
        now = time.monotonic()
        due = [host for name, host in self._state.pending.items() if self._retries.get(name, _NO_RETRY).due <= now]
        for start in range(0, len(due), _BATCH):
            if start:
                self._state.save()
            batch = due[start : start + _BATCH]
            for host in batch:
                if host.removed:
                    self._remove(host)
            self._update([host for host in batch if not host.removed])
        return bool(due)

    def _clear_pending(self, host: HostVersion) -> None:
        self._state.pending.pop(host.server_name, None)
        self._retries.pop(host.server_name, None)

    def _retry_later(self, host: HostVersion, reason: str) -> None:
        """Schedule the next attempt, after twice the wait of the last attempt."""
        wait = min(self._retries.get(host.server_name, _NO_RETRY).wait * 2, _LONGEST_WAIT)
        self._retries[host.server_name] = _Retry(time.monotonic() + wait, wait)
        log.error("%s was not changed: %s; next attempt in %.0f s", host.server_name, reason, wait)

    def _fetch_all(
        self, hosts: Sequence[HostVersion]
    ) -> Iterator[tuple[HostVersion, KeyMaterial | Unavailable | None]]:
        """Yield each host with its key material; hosts with the platform's certificate share a request per version."""
        shared: dict[str, KeyMaterial | Unavailable | None] = {}  # of the platform's certificate, by version
        own = [host for host in hosts if host.certificate != _DEFAULT]
        if len(own) == 1:  # the common case needs no thread
            yield own[0], self._fetch(own[0])
        else:
            yield from zip(own, self._fetchers.map(self._fetch, own), strict=True)
        for host in hosts:
            if host.certificate != _DEFAULT:
                continue
            if not isinstance(shared.get(host.version), KeyMaterial):
                shared[host.version] = self._fetch(host)
            material = shared[host.version]
            is_same = isinstance(material, KeyMaterial) and material.version == host.version
            yield host, material if is_same else self._fetch(host)

    def _fetch(self, host: HostVersion) -> KeyMaterial | Unavailable | None:
        try:
            return self._feed.get_key_material(host.server_name)
        except Unavailable as error:
            return error

    def _update(self, hosts: Sequence[HostVersion]) -> None:
        """Apply new and changed hosts, first to HAProxy, which may refuse a certificate, then to the disk."""
        prepared_hosts: list[_PreparedHost] = []
        for host, material in self._fetch_all(hosts):
            if isinstance(material, Unavailable):
                self._retry_later(host, str(material))
            elif material is None:  # removed meanwhile; a later page contains the removal
                self._clear_pending(host)
            elif prepared := self._prepare(host, material):
                prepared_hosts.append(prepared)
        self._state.flush(prepared.host.server_name for prepared in prepared_hosts)
        for prepared in prepared_hosts:
            self._activate(prepared)

    def _prepare(self, host: HostVersion, material: KeyMaterial) -> _PreparedHost | None:
        pem = f"{material.certificate.strip()}\n{material.private_key.strip()}\n"
        try:
            return _PreparedHost(host, material.version, pem, self._state.prepare(host.server_name, pem))
        except NotServable as error:
            self._retry_later(host, f"edgeFeed's certificate and key cannot be served ({error})")
        except OSError as error:
            self._retry_later(host, f"its file cannot be written ({error})")
        return None

    def _activate(self, prepared: _PreparedHost) -> None:
        name = prepared.host.server_name
        try:
            self._change_haproxy(lambda: self._put_certificate(name, prepared.pem, prepared.fingerprint))
        except CommandRefused as error:
            self._state.discard(name)
            self._retry_later(prepared.host, f"HAProxy refused it ({error})")
            return
        self._state.commit(prepared.host, prepared.version, prepared.fingerprint)
        self._clear_pending(prepared.host)
        log.info("%s is at version %s", name, prepared.version)

    def _remove(self, host: HostVersion) -> None:
        name = host.server_name
        try:
            self._change_haproxy(lambda: self._remove_certificate(str(self._state.pem_path(name))))
        except CommandRefused as error:
            self._retry_later(host, f"HAProxy refused its removal ({error})")
            return
        self._state.remove(name)
        self._clear_pending(host)
        log.info("%s was removed", name)

    # ------------------------------------------------------------------------------------------------ HAProxy

    def _change_haproxy(self, change: Callable[[], None]) -> None:
        """Make *change* in the running HAProxy. If HAProxy is not running, its next start reads the disk.

        Raises: CommandRefused.
        """
        if self._process_id is None:
            return
        try:
            change()
        except HAProxyUnavailable as error:
            log.warning("%s", error)
            self._process_id = None
        except CommandRefused:
            self._process_id = None  # the change may be incomplete: compare all certificates before the next change
            raise

    def _put_certificate(self, name: str, pem: str, fingerprint: str) -> None:
        path = str(self._state.pem_path(name))
        self._runtime.put_certificate(path, pem)
        if self._runtime.read_fingerprints([path]).get(path) != fingerprint:
            raise CommandRefused("it has another certificate than it was given")
        if name not in self._state.hosts:
            self._runtime.add_line(str(self._state.crt_list), self._state.format_line(name))

    def _remove_certificate(self, path: str) -> None:
        if self._runtime.has_certificate(path):
            self._runtime.remove_lines(str(self._state.crt_list), path)
            self._runtime.remove_certificate(path)

    def _check_haproxy(self) -> None:
        """Compare all certificates of HAProxy with the disk, after a start of HAProxy or a failed change."""
        try:
            process_id = self._runtime.get_process_id()
            if process_id != self._process_id:
                self._process_id = None
                self._compare()
                self._process_id = process_id
        except HAProxyUnavailable as error:
            if self._process_id is not None:
                log.warning("%s", error)
            self._process_id = None
        except CommandRefused as error:
            log.error("HAProxy's certificates differ from the disk: %s", error)
            self._process_id = None

    def _compare(self) -> None:
        state, runtime, crt_list = self._state, self._runtime, str(self._state.crt_list)
        line_counts = Counter(line.path for line in runtime.list_lines(crt_list))
        names = {str(state.pem_path(name)): name for name in state.hosts}
        fingerprints = runtime.read_fingerprints(list(names))
        update_count = 0
        for path, name in names.items():
            if fingerprints.get(path) != state.hosts[name].fingerprint:
                update_count += 1
                if not state.is_unchanged(name):  # another program changed the file: request it from edgeFeed
                    state.pending[name] = HostVersion(name, state.hosts[name].org, state.hosts[name].version)
                    continue
                runtime.put_certificate(path, state.read_pem(name))
            if not line_counts[path]:
                runtime.add_line(crt_list, state.format_line(name))
        for path in line_counts.keys() - names.keys():
            self._remove_certificate(path)
        log.info("HAProxy has %s hosts; %s of them were updated", len(names), update_count)

    # -------------------------------------------------------------------------------------------- reporting

    def _report(self) -> None:
        """Report the served versions to edgeFeed, once the running HAProxy serves them."""
        if not self.is_synchronized:
            return
        names = iter([name for name, host in self._state.hosts.items() if not host.reported])
        while batch := list(islice(names, _BATCH)):
            self._feed.report_served(self._edge, [(name, self._state.hosts[name].version) for name in batch])
            for name in batch:
                self._state.mark_reported(name)
            self._state.save()


# ------------------------------------------------------------------------------------------------------- running


def repeat(name: str, step: Callable[[], object], stopping: threading.Event, every: float) -> None:
    """Call *step* until *stopping* is set; after failures less often, and with a line in the log.

    Args:
        name: the name of the step in the log.
        step: the function.
        stopping: ends the loop.
        every: seconds between two calls.
    """
    wait = every
    while not stopping.is_set():
        try:
            step()
            wait = every
        except (Unavailable, HAProxyUnavailable, CommandRefused) as error:
            wait = min(max(wait * 2, every), _LONGEST_WAIT)
            log.warning("%s: %s; next attempt in about %.1f s", name, error, wait)
        except Exception:  # without the agent, the edge would never change again
            wait = min(max(wait * 2, every), _LONGEST_WAIT)
            log.exception("%s failed; next attempt in about %.1f s", name, wait)
        stopping.wait(wait * random.uniform(0.9, 1.1))  # noqa: S311 - spreads the load


@dataclass(frozen=True)
class Options:
    """The options of the command line; the help text of each is in `parse_options`."""

    url: str
    key_file: Path
    state: Path
    socket: Path
    name: str
    every: float
    ca_file: Path | None
    once: bool


def parse_options(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Parse the command line. The environment contains the defaults of all options."""
    parser = argparse.ArgumentParser(prog="python -m edge.haproxy_sync", description=__doc__)

    def add(flag: str, variable: str, help_: str, default: str | None = None) -> None:
        value = environ.get(variable) or default
        parser.add_argument(flag, default=value, required=value is None, help=f"{help_} ({variable})")

    add("--url", "TRUST_URL", "base URL of the functions, without a path")
    add("--key-file", "TRUST_EDGE_KEY_FILE", "file with one line, key:token of an edge key")
    add("--state", "TRUST_EDGE_STATE", "folder of the served certificates; HAProxy reads its crt-list.txt")
    add("--socket", "TRUST_EDGE_SOCKET", "HAProxy's runtime socket")
    add("--name", "TRUST_EDGE_NAME", "name of this edge", socket.gethostname())
    add("--every", "TRUST_EDGE_EVERY", "seconds between two requests to edgeFeed", "0.5")
    add("--ca-file", "TRUST_CA_FILE", "CA certificates for the functions' certificate; default: the system's", "")
    parser.add_argument(
        "--once",
        action="store_true",
        help="synchronize once and exit, before HAProxy's first start. Succeeds also while the functions are away, if "
        "there is a certificate to serve.",
    )
    parsed = parser.parse_args(arguments)
    return Options(
        parsed.url,
        Path(parsed.key_file),
        Path(parsed.state),
        Path(parsed.socket),
        parsed.name,
        float(parsed.every),
        Path(parsed.ca_file) if parsed.ca_file else None,
        parsed.once,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent until SIGTERM or SIGINT, or once, and return the exit status."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments, os.environ)
    configure_log()
    try:
        api = ApiClient(options.url, read_key(options.key_file), ca_file=options.ca_file)
        state = State(options.state)
    except WrongConfiguration as error:
        log.error("%s", error)
        return 2
    feed, runtime = FeedClient(api), RuntimeApi(options.socket)
    hosts = HostSync(feed, runtime, state, edge=options.name)
    withdrawals = WithdrawalSync(feed, runtime, state, edge=options.name)
    try:
        if options.once:
            return _run_once(hosts, state)
        return _run(hosts, withdrawals, RefusalReports(feed, runtime, edge=options.name), options.every)
    finally:
        withdrawals.close()
        hosts.close()
        state.close()
        api.close()


def _run_once(hosts: HostSync, state: State) -> int:
    try:
        hosts.step()
    except Unavailable as error:
        log.warning("%s", error)
        if not state.hosts:
            return 1
        log.warning("serving the %s hosts that are on the disk", len(state.hosts))
    if state.pending and not state.hosts:  # for example because edgeFeed refuses every key
        log.error("there is no certificate to serve")
        return 1
    return 0


def _run(hosts: HostSync, withdrawals: WithdrawalSync, refusals: RefusalReports, every: float) -> int:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    # Withdrawals have a thread of their own, because a first synchronization of all hosts can take long.
    thread = threading.Thread(target=repeat, args=("withdrawals", withdrawals.step, stopping, every), daemon=True)
    thread.start()
    reports = threading.Thread(target=repeat, args=("refusals", refusals.step, stopping, EVERY), daemon=True)
    reports.start()
    repeat("hosts", hosts.step, stopping, every)
    thread.join(10)
    return 0


if __name__ == "__main__":
    sys.exit(main())

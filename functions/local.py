"""Start every function in one process on this machine, with the embedded store: `make run`."""

import sys

from functions.hosts import collector

collector.pause()

INTERRUPTED = 128 + 2  # what shells report for a process that SIGINT ended


def main() -> int:
    """Run until Ctrl-C (SIGINT) or SIGTERM. Every acknowledged change is kept, and the next start finds it again."""
    try:
        # Imported here, so that Ctrl-C while the modules load ends without a traceback, too.
        from functions.hosts import machine

        return machine.run()
    except KeyboardInterrupt:
        print("Stopped.")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())

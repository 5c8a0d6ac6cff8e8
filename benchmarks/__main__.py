"""`python -m benchmarks`: measure everything, print one table, write its JSON."""

import argparse
import importlib
import sys
import traceback
from pathlib import Path

from benchmarks.table import Row, machine, table, write_json

MODULES = (  # in the order of the table
    "decision",
    "scale",
    "http_server",
    "cold_start",
    "package_size",
    "edge_connections",
    "activation",
    "edge_scale",
)


def main() -> int:
    """Returns the exit code: 1 where something could not be measured. A target that is missed is a figure, no error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(MODULES)}; all without it")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: the way, not the figures")
    parser.add_argument("--out", type=Path, default=Path("dist/benchmarks.json"), help="where the JSON goes")
    chosen = parser.parse_args()
    rows: list[Row] = []
    failed = False
    for name in chosen.names or MODULES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += importlib.import_module(f"benchmarks.{name}").rows(chosen.quick)
        except Exception:
            traceback.print_exc()
            failed = True
    print(f"On {machine()}{' (quick: not to be quoted)' if chosen.quick else ''}\n")
    print(table(rows))
    write_json(chosen.out, rows, quick=chosen.quick)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

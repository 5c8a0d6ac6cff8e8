"""`python -m benchmarks`: run all benchmarks, print one table and write the figures as JSON."""

import argparse
import importlib
import sys
import traceback
from pathlib import Path

from benchmarks.table import Row, describe_machine, format_table, format_targets, write_json

MODULES = (  # in the order of the table
    "decision",
    "store",
    "scale",
    "http_server",
    "storm",
    "cold_start",
    "package_size",
    "edge_connections",
    "activation",
    "edge_scale",
)


def main() -> int:
    """Return the exit code: 1 if a benchmark failed. A missed target is a figure, not an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(MODULES)}; all if none is named")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="take seconds instead of minutes: a check that everything runs; the figures do not count",
    )
    parser.add_argument("--out", type=Path, default=Path("dist/benchmarks.json"), help="where the JSON goes")
    chosen = parser.parse_args()
    rows: list[Row] = []
    failed = False
    for name in chosen.names or MODULES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += importlib.import_module(f"benchmarks.{name}").measure(chosen.quick)
        except Exception:
            traceback.print_exc()
            failed = True
    print(f"On {describe_machine()}{' (quick: not to be quoted)' if chosen.quick else ''}\n")
    print(format_table(rows))
    print(f"\nTargets\n\n{format_targets(rows)}")
    write_json(chosen.out, rows, quick=chosen.quick)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Tables that read well as text and as Markdown."""

from collections.abc import Sequence


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """*lines* under *heads*; columns of numbers to the right."""
    widths = [max(len(line[column]) for line in [heads, *lines]) for column in range(len(heads))]
    right = [all(line[column][:1].isdigit() for line in lines) for column in range(len(heads))]

    def row(line: Sequence[str]) -> str:
        cells = zip(line, widths, right, strict=True)
        return (
            "| "
            + " | ".join(cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in cells)
            + " |"
        )

    rule = (
        "|"
        + "|".join(
            "-" * (width + 1) + (":" if to_right else "-") for width, to_right in zip(widths, right, strict=True)
        )
        + "|"
    )
    return "\n".join([row(heads), rule, *map(row, lines)])

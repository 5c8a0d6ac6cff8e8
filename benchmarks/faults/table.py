"""Tables that are readable as text and as Markdown."""

from collections.abc import Sequence


def format_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Format *lines* under *heads*; columns of numbers are aligned right."""
    widths = [max(len(line[column]) for line in [heads, *lines]) for column in range(len(heads))]
    right = [all(line[column][:1].isdigit() for line in lines) for column in range(len(heads))]

    def format_row(line: Sequence[str]) -> str:
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
    return "\n".join([format_row(heads), rule, *map(format_row, lines)])

"""`memgap compare A B`: pairs what both sides measured alike, and says of each metric which one is faster."""

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from statistics import fmean

from memgap.errors import UserError
from memgap.stats.paired import METRICS, SLOWER, UNDECIDED, Key, gain, judged
from memgap.versions.sides import Row, Side, read_side

REFUSED = "refused"
PASSED, WORSE, OPEN = 0, 1, 3
"""Exit statuses of the gate: nothing is slower; something is; something is neither shown to be slower nor not to be."""


@dataclass(frozen=True)
class Line:
    """A metric of a cell on both sides. `ratio` is of B to A, above 1 where B is better, with a simultaneous interval.

    `verdict`: B is "faster", "slower" or "equal" within the margin, or it is "undecided", or "refused" for a reason.
    """

    cell: str
    metric: str
    a: float | None
    b: float | None
    ratio: float | None
    low: float | None
    high: float | None
    blocks: int
    verdict: str
    reason: str = ""


def compared(a: Side, b: Side, margin: float, metrics: Sequence[str] = METRICS) -> list[Line]:
    """Return a line for each metric of what both sides measured, then what had to be refused.

    Raises UserError where nothing was measured on both sides.
    """
    cells = [(cell, _of(a, cell), _of(b, cell)) for cell in dict.fromkeys(row.cell for row in a.rows)]
    cells = [(cell, ours, theirs) for cell, ours, theirs in cells if theirs]
    if not cells:
        raise UserError(
            f"{a.name} and {b.name} measured nothing alike: a pair needs the same model, dataset, load and cap."
        )
    refusals, pairs = list[Line](), dict[Key, list[tuple[float, float]]]()
    for cell, own, other in cells:
        ours, theirs = _with_common_settings(own, other)
        if why := _unlike(ours, theirs):
            refusals.append(_refusal(own[0].label, why))
            continue
        for one, another in _by_block(ours, theirs):
            for name in metrics:
                if name in one.values and name in another.values:
                    pairs.setdefault((name, cell), []).append((one.values[name], another.values[name]))
    labels = {cell: ours[0].label for cell, ours, _ in cells}
    gains = {key: [gain(key[0], *pair) for pair in own] for key, own in pairs.items()}
    lines = []
    for (name, cell), found in judged(gains, margin).items():
        a_mean, b_mean = (fmean(pair[side] for pair in pairs[name, cell]) for side in (0, 1))
        interval = (found.ratio, found.low, found.high, found.blocks)
        reason = "one block has no interval" if found.low is None else ""
        lines.append(Line(labels[cell], name, a_mean, b_mean, *interval, found.verdict, reason))
    return [*lines, *refusals]


def _of(side: Side, cell: str) -> list[Row]:
    return [row for row in side.rows if row.cell == cell]


def _with_common_settings(a: Sequence[Row], b: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the rows of one engine whose servers had the same settings on both sides; all where there are none."""
    common = {(row.engine, row.settings) for row in a} & {(row.engine, row.settings) for row in b}
    chosen = [[row for row in rows if (row.engine, row.settings) in common] for rows in (a, b)]
    return (chosen[0], chosen[1]) if common else (a, b)


def _unlike(a: Sequence[Row], b: Sequence[Row]) -> str:
    """Return why rows of one cell cannot be compared, "" where they can."""
    for rows in (a, b):
        if why := next((row.refused for row in rows if row.refused), ""):
            return why
        if len({row.settings for row in rows}) > 1:
            return "a side has several settings of the server for it; name one engine with FOLDER@ENGINE"
    one, other = a[0], b[0]
    if one.machine != other.machine:
        return f"other machines: {one.machine} and {other.machine}"
    if one.harness != other.harness:
        return "measured by other rules: the harness versions differ"
    if one.engine == other.engine and one.settings != other.settings:
        return f"other settings of the server: {one.settings} and {other.settings}"
    return "" if {row.block for row in a} & {row.block for row in b} else "no repeat has the same number on both sides"


def _by_block(a: Sequence[Row], b: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    theirs = {row.block: row for row in b}
    return ((row, theirs[row.block]) for row in a if row.block in theirs)


def _refusal(label: str, why: str) -> Line:
    return Line(label, "", None, None, None, None, None, 0, REFUSED, why)


def gate(lines: Sequence[Line]) -> int:
    """Return the exit status for a build: see `PASSED`, `WORSE` and `OPEN`."""
    verdicts = {line.verdict for line in lines}
    return WORSE if SLOWER in verdicts else OPEN if verdicts & {UNDECIDED, REFUSED} else PASSED


def print_comparison(a: str, b: str, margin: float, metrics: Sequence[str], form: str, gated: bool) -> int:
    """Print the comparison of two sides (see `read_side`); returns the exit status, 0 unless `gated`."""
    lines = compared(read_side(a), read_side(b), margin, metrics or METRICS)
    write = _csv if form == "csv" else _text
    write(lines, {"A": a, "B": b})
    return gate(lines) if gated else 0


def _csv(lines: Sequence[Line], _: Mapping[str, str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(one.name for one in fields(Line))
    writer.writerows([_cell(value) for value in astuple(line)] for line in lines)


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else value


def _text(lines: Sequence[Line], sides: Mapping[str, str]) -> None:
    print("; ".join(f"{name} is {path}" for name, path in sides.items()))
    for line in lines:
        if line.verdict == REFUSED:
            print(f"{line.cell}: refused: {line.reason}")
            continue
        interval = f" [{line.low:.3f}, {line.high:.3f}]" if line.low is not None and line.high is not None else ""
        print(
            f"{line.cell}: {line.metric} {line.a:.5g} -> {line.b:.5g}, x{line.ratio:.3f}{interval}, "
            f"{line.blocks} blocks: B is {line.verdict}{f' ({line.reason})' if line.reason else ''}"
        )

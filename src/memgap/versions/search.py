"""`memgap bisect LAB`: measures the arms of a lab, which are versions in their order, as the search asks for them."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TextIO

from memgap.config.files import read_config_files
from memgap.config.load import known
from memgap.errors import UserError
from memgap.labs.run import run_lab
from memgap.labs.values import Row, lab_rows
from memgap.session.watch import StopWatch
from memgap.store.results import Results
from memgap.versions.bisect import Blame, bisect, blamed_parts
from memgap.workflow import load_study

Plan = Mapping[str, Any]
OFFLINE_METRIC, SERVED_METRIC = "decode_step_mean_ms", "tpot_mean_ms"


class Search:
    """The versions of a lab's plan: the arms in their order. What was measured is not measured again."""

    def __init__(self, plan: Plan, results: Path, metric: str, watch: StopWatch, stream: TextIO) -> None:
        self._plan, self._results, self._metric = plan, results, metric
        self._watch, self._stream = watch, stream
        self.versions = [arm for arm in plan["arms"] if arm != "same"]

    def run(self) -> Blame:
        """Return what was found; raises UserError where a version has no number."""
        if len(self.versions) < 2:
            raise UserError(f"lab {self._plan['lab']} has one arm; a search needs two versions or more.")
        return bisect(len(self.versions), self._measure)

    def parts(self, found: Blame) -> dict[str, float]:
        """Return by how many ms the parts of a step grew from the version before to the one that is blamed."""
        if found.version is None:
            return {}
        own = [[row["summary"] for row in self._rows(number)] for number in (found.version - 1, found.version)]
        return blamed_parts(*own) if all(own) else {}

    def _measure(self, first: int, other: int, blocks: int) -> Sequence[float]:
        plan = self._of((first, other), blocks)
        run_lab(plan, self._results, self._watch, self._stream)
        values = [self._by_block(plan, self.versions[number]) for number in (first, other)]
        return [fmean(values[1][block]) - fmean(values[0][block]) for block in sorted(values[0])]

    def _of(self, numbers: Sequence[int], blocks: int) -> dict[str, Any]:
        arms = [self.versions[number] for number in numbers]
        cells = [cell for cell in self._plan["cells"] if cell["arm"] in arms]
        named = {arm: self._plan["arms"][arm] for arm in arms}
        return {**self._plan, "arms": named, "reference": arms[0], "cells": cells, "blocks": blocks, "claims": {}}

    def _rows(self, number: int) -> list[Row]:
        plan = self._of((number,), 1)
        rows = lab_rows(plan, Results(self._results).points)
        return [row for row in rows if row["status"] == "ok"]

    def _by_block(self, plan: Plan, arm: str) -> dict[int, list[float]]:
        """Return the logarithms of the metric of an arm by block, one a value of the axes."""
        found: dict[int, list[float]] = {}
        for row in lab_rows(plan, Results(self._results).points):
            if row["arm"] != arm:
                continue
            value = row.get(self._metric)
            if row["status"] != "ok" or not isinstance(value, float | int) or not value > 0:
                said = row.get("error_message") or f"no {self._metric}"
                raise UserError(f"{arm} has no number to compare ({row['status']}: {said}); leave it out of the arms.")
            found.setdefault(row["block"], []).append(math.log(value))
        return found


def print_search(configs: Sequence[Path], lab: str, metric: str | None, results: Path) -> int:
    """Search, and print what was found; returns 0 where no step was found, 1 where there is one."""
    labs = load_study(read_config_files(configs)).labs
    known(lab, labs, "lab", "bisect")
    plan = labs[lab]
    metric = metric or (OFFLINE_METRIC if plan["kind"] == "offline" else SERVED_METRIC)
    watch = StopWatch()
    watch.install()
    search = Search(plan, results, metric, watch, sys.stderr)
    found = search.run()
    for one in found.comparisons:
        names = f"{search.versions[one.other]} against {search.versions[one.first]}"
        print(f"{names}: {metric} x{one.ratio:.4f} after {one.blocks} blocks: {one.verdict}")
    print(said(found, search.versions, metric))
    if grown := search.parts(found):
        print("a step grew by " + ", ".join(f"{ms:+.3f} ms ({who})" for who, ms in grown.items()))
    return 0 if found.ratio is None else 1


def said(found: Blame, versions: Sequence[str], metric: str) -> str:
    """Return what was found in a sentence."""
    if found.after is None or found.by is None or found.ratio is None:
        return f"Nobody is blamed: {found.why}."
    change = f"{metric} changed to {found.ratio:.4f} of what it was"
    if found.version is not None:
        return f"{change} with {versions[found.by]}."
    return f"{change} between {versions[found.after]} and {versions[found.by]}; {found.why}, so nobody is blamed."

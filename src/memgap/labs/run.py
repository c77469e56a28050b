"""Runs a lab: each block measures every arm once, in random order, and each result is stored as it comes.

What is stored is not measured again, so a run that was stopped goes on where it was. A point that fails is a result.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from memgap.canonical import canonical_json, content_key
from memgap.errors import DAMAGE
from memgap.host.gpus import environment_of
from memgap.labs.names import UNTESTED
from memgap.labs.needs import asks_for_gpus, unmet_in_plan, unmet_on_machine
from memgap.labs.points import Cell, capacities, capacity_cells, cells_of
from memgap.session.progress import Progress
from memgap.session.watch import StopWatch
from memgap.store.atomic import write_text
from memgap.store.results import Results
from memgap.telemetry.nvml import Nvml
from memgap.tuning.failures import failure_class, failure_text
from memgap.tuning.measurer import Measurer
from memgap.tuning.servers import IN_TURN, TOGETHER, Servers

MOST_FRUITLESS = 2
Plan = Mapping[str, Any]


def run_lab(plan: Plan, results: Path, watch: StopWatch, stream: TextIO) -> dict[str, Any]:
    """Measure what is missing of a lab and write results/labs/NAME.json; returns that.

    Raises UserError and StoppedError; measured points stay.
    """
    Results(results).store.require_writable()
    return _Run(plan, results, Progress(f"lab {plan['lab']}", stream), watch).run()


def read_outcome(results: Path, lab: str) -> dict[str, Any]:
    """Return what a run of a lab left; nothing where there was none."""
    try:
        found: dict[str, Any] = json.loads(Results(results).lab(lab).read_text(encoding="utf-8"))
        return found if isinstance(found["unmet"], dict) else {}
    except DAMAGE:
        return {}


class _Run:
    def __init__(self, plan: Plan, results: Path, progress: Progress, watch: StopWatch) -> None:
        self._plan, self._results, self._progress, self._watch = plan, results, progress, watch
        self._store = Results(results).store
        asked = [key for options in plan["options"].values() for key in options["remeasure"]]
        self._measurer = Measurer(self._store, plan["recorded"], plan["skipped"], asked)
        self._fruitless: Counter[str] = Counter()

    def run(self) -> dict[str, Any]:
        plan = self._plan
        unmet = {} if plan["recorded"] is not None else unmet_needs(plan)
        failed = 0
        if "" in unmet:
            self._progress.say(f"{UNTESTED}: {unmet['']}")
        else:
            for arm, reason in plan["left_out"].items():
                self._progress.say(f"{arm} is left out: {reason}")
            with Servers(plan["options"], plan["servers"], self._results, self._progress, self._watch) as servers:
                self._measure(0, [one for one in capacity_cells(plan) if one.arm not in plan["left_out"]], servers)
                rates, reasons = capacities(plan, self._store)
                for place, reason in reasons.items():
                    self._progress.say(f"{place}: {reason}, so nothing is offered as a share of it")
                for block in plan.get("only_blocks", range(plan["blocks"])):
                    cells = [one for one in cells_of(plan, block, rates) if one.arm not in plan["left_out"]]
                    failed += self._measure(block + 1, cells, servers)
        found = {"lab": plan["lab"], "unmet": unmet, "capacities_req_s": capacities(plan, self._store)[0]}
        write_text(Results(self._results).lab(plan["lab"]), canonical_json(found) + "\n")
        if failed:
            self._progress.say(f"{failed} points have no number; the table says why")
        return found

    def _measure(self, number: int, cells: Sequence[Cell], servers: Servers) -> int:
        """Measure a block (0: the capacities) in random order, the points of an arm on one server together; returns how
        many have no number. A server that twice came to no load is not started again in later blocks.
        """
        if self._plan["servers"] == TOGETHER and number and self._plan["recorded"] is None:
            servers.prepare([one.point for one in cells if self._measurer.wanted(one.point)])
        place, failed = 0, 0
        for group in self._groups(number, cells):
            session = group[0].point.session
            if self._fruitless[session] >= MOST_FRUITLESS and self._plan["recorded"] is None:
                self._progress.say(f"block {number}: {group[0].arm} is left out, since it did not run before")
                failed += len(group)
                continue
            named = []
            for cell in group:
                place += 1
                where = f"block {number}, {place} of {len(cells)}" if number else "capacity"
                named.append((cell.point, f"{where} ({cell.label})"))
            self._measurer.measure(named, servers)
            without: list[bool] = []
            for cell in group:
                stored = None if self._store.status(cell.point.key) == "garbled" else self._store.read(cell.point.key)
                if stored is None or failure_class(stored) is not None:
                    failed += 1
                    self._progress.say(f"{cell.label}: {'missing' if stored is None else failure_text(stored)}")
                    without.append(stored is not None and not stored["summary"])
            self._fruitless[session] += len(group) if len(without) == len(group) and all(without) else 0
        return failed

    def _groups(self, number: int, cells: Sequence[Cell]) -> list[list[Cell]]:
        """Return the points of a block by arm and server, both in random order; the same for the same seed."""
        rng = np.random.default_rng([self._plan["seed"], int(content_key(self._plan["lab"], 8), 16), number])
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            # an arm that is the reference once more has a start of its own, where each arm has one
            arm = cell.arm if self._plan["servers"] == IN_TURN else ""
            groups.setdefault((arm, cell.point.session), []).append(cell)
        ordered = [groups[key] for key in sorted(groups)]
        shuffled = [ordered[place] for place in rng.permutation(len(ordered))]
        return [[group[place] for place in rng.permutation(len(group))] for group in shuffled]


def unmet_needs(plan: Plan) -> dict[str, str]:
    """Return why claims cannot be tested on this machine, by their id; the lab's own needs under ""."""
    unmet = unmet_in_plan(plan)
    if not asks_for_gpus(plan):
        return unmet
    with Nvml(environment_of(plan["cells"][0]["record"])) as machine:
        return {**unmet, **unmet_on_machine(plan, len(machine.devices))}

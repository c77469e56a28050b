"""One race on real servers: who takes part, one block after another, what each measurement is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memgap.canonical import content_key
from memgap.errors import UserError
from memgap.host.gpus import environment_of
from memgap.session.progress import Progress, clock
from memgap.session.watch import StopWatch
from memgap.store.results import Results
from memgap.telemetry.nvml import Nvml
from memgap.tuning.candidates import DEFAULT, RACE_REPEATS, Builder, Candidate, Subject, deviations, point_of
from memgap.tuning.engine_flags import engine_flags
from memgap.tuning.failures import failure_class, failure_text
from memgap.tuning.measurer import Measurer
from memgap.tuning.objective import OBJECTIVES, log_value
from memgap.tuning.outcome import SCHEMA, Outcome, arm_entry, read_outcome
from memgap.tuning.plan import Plan, outcome_path, race_rule, tier_before, tier_number, tier_of
from memgap.tuning.race import Verdict, judge
from memgap.tuning.servers import Servers
from memgap.tuning.statement import statement
from memgap.tuning.validate import check_flags

SO_FAR = "the winner so far"


class Contest:
    """The race of one tier for one subject."""

    def __init__(
        self, plan: Plan, subject: Subject, tier: str, results: Path, progress: Progress, watch: StopWatch
    ) -> None:
        self._plan, self._subject, self._results = plan, subject, results
        self._settings, self._recorded = plan["settings"], plan["options"]["recorded"]
        self._tier = tier_of(plan, tier)
        self._number = tier_number(plan, tier)
        self._progress, self._watch = progress, watch
        self._rule = race_rule(plan)
        self._store = Results(results).store
        self._measurer = Measurer(self._store, self._recorded, self._settings["skip_failure_reasons"])
        before = tier_before(plan, tier)
        self._before = read_outcome(outcome_path(results, plan, subject, before)) if before is not None else None
        self._arms: dict[str, Candidate] = {}
        self._reference = ""
        self._kept: list[str] = []
        self._refused: list[tuple[str, str]] = []
        self._failures: dict[str, tuple[int, str]] = {}
        self._started: set[str] = set()
        self._cost_s: dict[str, float] = {}
        self._spent_s = 0.0

    def run(self) -> Outcome:
        """Measure what is missing and return the outcome; raises UserError and StoppedError, points stay."""
        blocks: list[dict[str, float]] = []
        ended = ""
        options: dict[str, Mapping[str, Any]] = {one: self._plan["options"] for one in self._plan["engines"]}  # noqa: C420
        mode = self._settings["servers"]
        with Servers(options, mode, self._results, self._progress, self._watch) as servers:
            self._line_up(servers)
            while True:
                arms = list(self._arms)
                verdict = judge(arms, self._reference, self._kept, blocks, self._failures, self._rule, ended)
                if verdict.finished:
                    return self._outcome(verdict, blocks)
                ended = self._unaffordable(verdict.measure)
                if not ended:
                    block = self._block(len(blocks) + 1, verdict.measure, servers)
                    if block is None:
                        ended = "the recorded data have no further block"
                    else:
                        blocks.append(block)

    def _line_up(self, servers: Servers) -> None:
        """Find the arms, the reference and what is kept beside it."""
        builder = Builder(self._plan, self._subject)
        if self._before is None:
            reference = self._first_that_runs(builder.defaults(), servers)
            base = None
        else:
            if self._before["winner"] is None:
                raise UserError(
                    f"tuning {self._plan['tuning']}: every configuration of {self._before['tier']} failed for "
                    f"{self._subject[0]}, so {self._tier['name']} has nothing to build on."
                )
            so_far = self._before["winner"]
            kind = DEFAULT if so_far["name"] == self._before["default"]["name"] else SO_FAR
            reference = builder.of_arguments(kind, so_far["arguments"])
            base = reference.arguments
        self._reference, self._arms = reference.key, {reference.key: reference}
        if self._before is not None and self._settings["against_default"] and self._before["default"]["ran"]:
            default = builder.of_arguments(DEFAULT, self._before["default"]["arguments"])
            if default.key not in self._arms:
                self._arms[default.key] = default
                self._kept = [default.key]
        for one in builder.tier(self._number, base, None if self._before is None else self._refused):
            known = self._arms.setdefault(one.key, one)
            if known is not one and one.experiment not in (known.experiment, *known.also):
                known.also.append(one.experiment)

    def _first_that_runs(self, defaults: Sequence[Candidate], servers: Servers) -> Candidate:
        """Return the default; of several possible ones the first that can be measured."""
        for one in defaults[:-1]:
            point = point_of(one, 0)
            name = ", ".join(deviations(one.arguments, defaults[-1].arguments))
            self._measurer.measure([(point, f"the default, if it runs ({name})")], servers)
            stored = self._store.read(point.key)
            if stored is None or failure_class(stored) is None:
                return one
            self._refused.append((DEFAULT, f"{name}: {failure_text(stored)}"))
        return defaults[-1]

    def _block(self, number: int, measure: Sequence[str], servers: Servers) -> dict[str, float] | None:
        """Measure one block; returns the values of what did not fail, None where recorded data lack a point of it."""
        repeat = self._number * RACE_REPEATS + number - 1
        points = {name: point_of(self._arms[name], repeat) for name in measure}
        groups: dict[str, list[str]] = {}
        for name in self._shuffled(number, measure):
            groups.setdefault(points[name].session, []).append(name)
        if self._recorded is None and any(self._measurer.wanted(point) for point in points.values()):
            self._check_machine()
            servers.keep_only(point.session for point in points.values())
            servers.prepare([point for point in points.values() if self._measurer.wanted(point)])
        place = 0
        values: dict[str, float] = {}
        for session, names in groups.items():
            named = []
            for name in names:
                place += 1
                named.append((points[name], f"block {number}, {place} of {len(points)} ({self._label(name)})"))
            self._measurer.measure(named, servers)
            for name in names:
                stored = self._store.read(points[name].key)
                if stored is None:
                    return None
                self._take(name, stored, number, values)
            if self._settings["servers"] == "in_turn":
                self._started.discard(session)
        return values

    def _take(self, name: str, stored: Mapping[str, Any], number: int, values: dict[str, float]) -> None:
        """Take a stored point into the race: its value or failure, and what it cost."""
        arm, session = self._arms[name], point_of(self._arms[name], 0).session
        cost_s = float(stored["summary"].get("duration_s", 0.0))
        if session not in self._started:
            self._started.add(session)
            cost_s += float(stored["engine"].get("start_s") or 0.0)
        self._cost_s[name] = arm.gpus * cost_s
        self._spent_s += arm.gpus * cost_s
        if failure_class(stored) is None:
            values[name] = log_value(self._settings["objective"], stored, arm.gpus, self._settings["averaging"])
            return
        self._failures[name] = (number, failure_text(stored))
        if not self._settings["continue_on_failure"]:
            raise UserError(
                f"tuning {self._plan['tuning']}: {self._label(name)} of {self._subject[0]} failed "
                f"({failure_text(stored)}), and continue_on_failure is false."
            )

    def _unaffordable(self, measure: Sequence[str]) -> str:
        """Return why the next block is not begun, where it would not fit into the budget."""
        budget_min = self._settings["budget_min"]
        if budget_min is None or not self._cost_s:
            return ""
        used_s = self._spent_s + (self._before["spent_gpu_s"] if self._before else 0.0)
        share_s = 60.0 * budget_min * (self._number + 1) / self._settings["races"]
        if used_s + sum(self._cost_s.get(name, 0.0) for name in measure) <= share_s:
            return ""
        return f"the budget allows no further block: {clock(used_s)} of {clock(share_s)} are used"

    def _shuffled(self, number: int, names: Sequence[str]) -> list[str]:
        about = content_key([self._plan["tuning"], list(self._subject), self._tier["name"]], 8)
        rng = np.random.default_rng([self._settings["seed"], int(about, 16), number])
        ordered = sorted(names)
        return [ordered[place] for place in rng.permutation(len(ordered))]

    def _label(self, name: str) -> str:
        """Return what an arm is called: how it differs from the reference of this race, or what it is."""
        default = self._before["default"]["name"] if self._before else self._reference
        if name in (default, self._reference):
            return DEFAULT if name == default else SO_FAR
        return ", ".join(deviations(self._arms[name].arguments, self._arms[self._reference].arguments)) or DEFAULT

    def _check_machine(self) -> None:
        """Raise UserError where this machine or the engine installed here cannot run an arm; before any is started."""
        if self._measurer.here:
            return
        some = self._arms[self._reference].record
        flags = engine_flags(some, self._plan["options"]["python"], Results(self._results).tuning / "flags")
        if flags is None:
            self._progress.say("the engine does not tell its flags here, so they are not checked")
        for arm in self._arms.values():
            where = f"tuning {self._plan['tuning']}, {arm.experiment} of {self._subject[0]}"
            if flags is not None:
                check_flags(arm.record["server"]["args"], flags, arm.record["engine"]["package"], where)
            with Nvml(environment_of(arm.record)) as gpu:
                here = len(gpu.devices)
            if here and arm.gpus > here:
                raise UserError(f"{where}: it takes {arm.gpus} GPUs, but this machine has {here}.")

    def _outcome(self, verdict: Verdict, blocks: Sequence[Mapping[str, float]]) -> Outcome:
        objective = OBJECTIVES[self._settings["objective"]]
        labels = {name: self._label(name) for name in self._arms}
        said = statement(verdict, labels, objective.label, objective.more, self._rule)
        self._progress.say(f"{said} ({verdict.finished})")
        reference = self._arms[self._reference]
        default: Outcome = (
            self._before["default"]
            if self._before is not None
            else {"name": reference.key, "arguments": reference.arguments, "ran": reference.key not in self._failures}
        )
        winner = self._arms[verdict.winner] if verdict.winner is not None else None
        before_s = self._before["spent_gpu_s"] if self._before else 0.0
        return {
            "schema": SCHEMA,
            "tuning": self._plan["tuning"],
            "model": self._subject[0],
            "dataset": self._subject[1],
            "tier": self._tier["name"],
            "number": self._number,
            "objective": self._settings["objective"],
            "servers": self._settings["servers"],
            "false_winner_rate": self._rule.false_winner_rate,
            "finished": verdict.finished,
            "statement": said,
            "blocks": len(blocks),
            "spent_gpu_s": before_s + self._spent_s,
            "spent_here_gpu_s": self._spent_s,
            "reference": verdict.reference,
            "winner": None if winner is None else {"name": winner.key, "arguments": winner.arguments},
            "default": default,
            "tied": verdict.tied,
            "arms": [
                arm_entry(arm, verdict, labels[name], default["name"], self._stored(arm, len(blocks)))
                for name, arm in self._arms.items()
            ],
            "refused": [{"experiment": name, "reason": why} for name, why in self._refused],
        }

    def _stored(self, arm: Candidate, blocks: int) -> list[str]:
        first = self._number * RACE_REPEATS
        keys = [point_of(arm, first + block).key for block in range(blocks)]
        return [key for key in keys if self._store.status(key) not in ("missing", "garbled")]

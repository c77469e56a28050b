"""The mixed-integer program: how many replicas of which options each GPU holds, and what share of it each model takes.

Symbols as in docs/planner.md. Memory is in thousandths of a GPU, throughput in shares of the model's ceiling, so that
all coefficients are of one size.
"""

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulp

from memgap.errors import UserError
from memgap.planner.fleet import Demand, GpuKind
from memgap.planner.options import Menu, Option

OPTIMAL, TIME_LIMIT, INFEASIBLE, UNSOLVED = "optimal", "time limit", "infeasible", "unsolved"


@dataclass(frozen=True)
class Group:
    """Equal GPUs of one kind; only those of a counted group enter the goal `gpus`."""

    kind: GpuKind
    count: int
    counted: bool = True


@dataclass(frozen=True)
class Placed:
    """Replicas of one option on one GPU, numbered from 0 within its group, and what they serve together."""

    group: int
    gpu: int
    option: Option
    replicas: int
    served_tok_s: float


@dataclass(frozen=True)
class Solution:
    """What was found. `value` is the goal's (tok/s, GPUs or replicas), `bound` what no plan can beat, None if unknown.

    `status` is "unsolved" where the time limit came before any plan.
    """

    status: str
    value: float | None = None
    bound: float | None = None
    placed: list[Placed] = field(default_factory=list)

    def served_tok_s(self, model: str) -> float:
        """Return what is served of a model in all."""
        return sum(one.served_tok_s for one in self.placed if one.option.model == model)

    def replicas(self, model: str) -> int:
        """Return the number of a model's replicas."""
        return sum(one.replicas for one in self.placed if one.option.model == model)

    @property
    def gpus(self) -> set[tuple[int, int]]:
        """The GPUs that hold a replica, by group and number."""
        return {(one.group, one.gpu) for one in self.placed}


def solve(goal: str, groups: Sequence[Group], menu: Menu, demands: Sequence[Demand], time_limit_s: float) -> Solution:
    """Return the best plan for a goal; `demands` without an option anywhere must ask for nothing under "gpus".

    Raises UserError where no solver is installed or it fails.
    """
    return _Program(goal, groups, menu, demands).solve(time_limit_s)


def efficient(options: Sequence[Option]) -> list[Option]:
    """Return the options of a model that no other one beats or equals in both throughput and memory."""
    kept: list[Option] = []
    for one in sorted(options, key=lambda one: (one.permille, -one.throughput_tok_s, one.batch_cap)):
        if not kept or one.throughput_tok_s > kept[-1].throughput_tok_s:
            kept.append(one)
    return kept


class _Program:
    def __init__(self, goal: str, groups: Sequence[Group], menu: Menu, demands: Sequence[Demand]) -> None:
        self.goal, self.groups, self.menu, self.demands = goal, groups, menu, demands
        self.problem = pulp.LpProblem("fleet", pulp.LpMinimize)
        self.count: dict[tuple[int, int, Option], Any] = {}
        self.share: dict[tuple[int, int, str], Any] = {}
        self.used: dict[tuple[int, int], Any] = {}
        self.missing: dict[str, Any] = {}
        for number, group in enumerate(groups):
            for gpu in range(group.count):
                self._add_gpu(number, gpu)
        for demand in demands:
            self._add_demand(demand)
        self._add_goal()

    def _ceiling(self, group: int, model: str) -> float:
        return self.menu[self.groups[group].kind.name][model].ceiling_tok_s

    def _add_gpu(self, group: int, gpu: int) -> None:
        kind = self.groups[group].kind
        used = self.used[group, gpu] = pulp.LpVariable(f"used_{group}_{gpu}", cat="Binary")
        memory, shares = [], []
        for model, demand in enumerate(self.demands):
            options = efficient(self.menu[kind.name][demand.model].options)
            if not options:
                continue
            ceiling = self._ceiling(group, demand.model)
            share = self.share[group, gpu, demand.model] = pulp.LpVariable(f"share_{group}_{gpu}_{model}", 0, 1)
            capacity = []
            for number, option in enumerate(options):
                enough = max(math.ceil(ceiling / option.throughput_tok_s), demand.min_replicas)
                most = min(kind.limit_permille // option.permille, enough)
                count = pulp.LpVariable(f"count_{group}_{gpu}_{model}_{number}", 0, most, cat="Integer")
                self.count[group, gpu, option] = count
                memory.append(option.permille * count)
                capacity.append(option.throughput_tok_s / ceiling * count)
            self.problem += share <= pulp.lpSum(capacity)
            shares.append(share)
        self.problem += pulp.lpSum(shares) <= used
        self.problem += pulp.lpSum(memory) <= kind.limit_permille * used
        if gpu:
            self.problem += self.used[group, gpu - 1] >= used
            self.problem += self._leaders(group, gpu - 1) >= self._leaders(group, gpu)

    def _leaders(self, group: int, gpu: int) -> Any:
        """Return the replicas of the model that asks for most of a GPU: equal GPUs are ordered by them."""
        choices = self.menu[self.groups[group].kind.name]

        def asked(demand: Demand) -> float:
            found = choices[demand.model]
            least = min((one.permille for one in found.options), default=0)
            return demand.demand_tok_s * least / found.ceiling_tok_s if least else 0.0

        leader = max(self.demands, key=asked).model
        return pulp.lpSum(
            count for (of, on, option), count in self.count.items() if (of, on, option.model) == (group, gpu, leader)
        )

    def _served(self, model: str) -> Any:
        return pulp.lpSum(
            self._ceiling(group, model) * share for (group, _, name), share in self.share.items() if name == model
        )

    def _add_demand(self, demand: Demand) -> None:
        scale = max((self._ceiling(group, demand.model) for group, _ in enumerate(self.groups)), default=0.0) or 1.0
        served = self._served(demand.model) * (1 / scale)
        if self.goal == "gpus":
            self.problem += served >= demand.demand_tok_s / scale
        else:
            self.problem += served <= demand.demand_tok_s / scale
        replicas = pulp.lpSum(count for (_, _, option), count in self.count.items() if option.model == demand.model)
        if self.goal == "replicas":
            missing = self.missing[demand.model] = pulp.LpVariable(f"missing_{len(self.missing)}", 0)
            self.problem += replicas + missing >= demand.min_replicas
        elif demand.min_replicas:
            self.problem += replicas >= demand.min_replicas
        if demand.max_replicas is not None:
            self.problem += replicas <= demand.max_replicas

    def _add_goal(self) -> None:
        if self.goal == "throughput":
            self.scale = max((one.weight * one.demand_tok_s for one in self.demands), default=0.0) or 1.0
            self.problem += pulp.lpSum(one.weight / -self.scale * self._served(one.model) for one in self.demands)
        elif self.goal == "gpus":
            self.problem += pulp.lpSum(used for (group, _), used in self.used.items() if self.groups[group].counted)
        else:
            self.problem += pulp.lpSum(self.missing.values())

    def solve(self, time_limit_s: float) -> Solution:
        bound = self._run(time_limit_s)
        if self.problem.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
            infeasible = self.problem.status == pulp.LpStatusInfeasible
            return Solution(INFEASIBLE if infeasible else UNSOLVED)
        proven = self.problem.sol_status == pulp.LpSolutionOptimal
        missing = float(sum(round(one.value() or 0.0) for one in self.missing.values()))
        placed = self._with_fewest_replicas(time_limit_s)
        value = missing if self.goal == "replicas" else self._value(placed)
        return Solution(OPTIMAL if proven else TIME_LIMIT, value, value if proven else self._scaled(bound), placed)

    def _run(self, time_limit_s: float) -> float | None:
        """Solve the problem as it stands; returns the bound that the solver's log tells."""
        with tempfile.TemporaryDirectory(prefix="memgap-planner-") as folder:
            log = Path(folder) / "solver.log"
            try:
                self.problem.solve(_solver(time_limit_s, log))
            except pulp.PulpSolverError as error:
                raise UserError(f"the solver failed ({error}); install CBC with PuLP, or highspy.") from error
            return _bound(log)

    def _with_fewest_replicas(self, time_limit_s: float) -> list[Placed]:
        """Return the found plan with what each GPU serves as it is and as few replicas as that takes."""
        shares = {key: max(0.0, share.value() or 0.0) for key, share in self.share.items()}
        found = self._placed(shares)
        for key, share in self.share.items():
            share.lowBound, share.upBound = max(0.0, shares[key] - 1e-7), shares[key]
        for variable in (*self.used.values(), *self.missing.values()):
            variable.lowBound = variable.upBound = round(variable.value() or 0.0)
        self.problem.setObjective(pulp.lpSum(self.count.values()))
        self._run(min(time_limit_s, 10.0))
        solved = self.problem.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
        return self._placed(shares) if solved else found

    def _scaled(self, bound: float | None) -> float | None:
        return None if bound is None else (-self.scale * bound if self.goal == "throughput" else bound)

    def _placed(self, shares: Mapping[tuple[int, int, str], float]) -> list[Placed]:
        """Return the replicas, each option with its part of what its model serves on the GPU."""
        placed = []
        for (group, gpu, model), share in shares.items():
            mine = {
                option: many
                for (of, on, option), count in self.count.items()
                if (of, on, option.model) == (group, gpu, model) and (many := round(count.value() or 0.0))
            }
            capacity = sum(option.throughput_tok_s * many for option, many in mine.items())
            served = min(capacity, self._ceiling(group, model) * share)
            placed += [
                Placed(group, gpu, option, many, served * option.throughput_tok_s * many / capacity)
                for option, many in mine.items()
            ]
        return placed

    def _value(self, placed: Sequence[Placed]) -> float:
        if self.goal == "throughput":
            weights = {one.model: one.weight for one in self.demands}
            return sum(weights[one.option.model] * one.served_tok_s for one in placed)
        return float(len({(one.group, one.gpu) for one in placed if self.groups[one.group].counted}))


def _solver(time_limit_s: float, log: Path) -> Any:
    """Return CBC as PuLP ships it, else HiGHS; raises UserError without either."""
    cbc = pulp.PULP_CBC_CMD(msg=False, timeLimit=time_limit_s, gapRel=0.0, gapAbs=0.0, logPath=str(log))
    if cbc.available():
        return cbc
    highs = pulp.HiGHS(msg=False, timeLimit=time_limit_s, gapRel=0.0)
    if highs.available():
        return highs
    raise UserError("no solver for the planner: PuLP's CBC does not run here; install highspy.")


def _bound(log: Path) -> float | None:
    """Return the bound that CBC's log ends with; None where it says nothing."""
    if not log.exists():
        return None
    found = re.findall(r"^Lower bound:\s+(\S+)", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return float(found[-1]) if found else None

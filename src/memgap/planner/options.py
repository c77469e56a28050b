"""What one replica of a model can do on one kind of GPU: its batch caps with throughput, latency and memory.

The ceiling of a model on one GPU is the highest throughput of any good point, also beyond the SLO, also of several
replicas on one GPU (rows whose column `replicas` is above 1, with the throughput of all of them together).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from memgap.advisor.bca import Profile
from memgap.advisor.flags import advised_flags
from memgap.advisor.memory import MemoryNeed
from memgap.advisor.report import memory_at, model_rows, profile_of
from memgap.errors import UserError
from memgap.planner.fleet import Demand, Fleet, GpuKind
from memgap.roofline.gpus import bears
from memgap.tables.fate import GOOD, fate

GIB = 2**30


@dataclass(frozen=True)
class Option:
    """One replica of a model at one cap on one kind of GPU.

    `permille` of the GPU's memory are taken, all that replicas may take where the replica is `exclusive`;
    `need_permille` is what its server needs.
    """

    model: str
    batch_cap: int
    throughput_tok_s: float
    latency_ms: float
    permille: int
    need_permille: int
    exclusive: bool
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Obstacle:
    """Why a model has no option; of several, that with the highest stage and then the least shortage is told."""

    stage: int
    shortage: float
    sentence: str


@dataclass(frozen=True)
class Choices:
    """A model on one kind of GPU: its ceiling in tok/s, its options, and an obstacle where there is none."""

    ceiling_tok_s: float
    options: tuple[Option, ...]
    obstacle: Obstacle | None

    @property
    def best_tok_s(self) -> float:
        """The most that one replica serves."""
        return max((one.throughput_tok_s for one in self.options), default=0.0)


Menu = Mapping[str, Mapping[str, Choices]]
"""Choices by kind of GPU and model."""

_UNMEASURED, _TOO_SLOW, _UNKNOWN_MEMORY, _TOO_LARGE = range(4)


def menu_of(table: pd.DataFrame, fleet: Fleet) -> Menu:
    """Return what each model of the fleet can do on each kind of GPU.

    Raises UserError for a model without a row, and where the rows are of several GPUs and the fleet does not say which
    of them a kind is.
    """
    return {
        kind.name: {one.model: _choices(model_rows(table, one.model), one, kind, fleet) for one in fleet.models}
        for kind in fleet.gpus
    }


def obstacle_of(menu: Menu, model: str) -> Obstacle | None:
    """Return why no kind of GPU has an option for the model, or None where one has."""
    found = [choices[model] for choices in menu.values()]
    if any(one.options for one in found):
        return None
    obstacles = [one.obstacle for one in found if one.obstacle]
    return min(obstacles, key=lambda one: (-one.stage, one.shortage))


def _choices(rows: pd.DataFrame, demand: Demand, kind: GpuKind, fleet: Fleet) -> Choices:
    rows = _rows_of_kind(rows, kind)
    if rows.empty:
        sentence = f"No point of {demand.model} was measured on a GPU whose name has {kind.measured_on!r}."
        return Choices(0.0, (), Obstacle(_UNMEASURED, 0.0, sentence))
    single = rows[_replicas(rows) == 1]
    profile = profile_of(single, demand.latency)
    usable = [one for one in profile if not one.excluded and one.throughput_tok_s]
    if not usable:
        reasons = "; ".join(f"cap {one.batch_cap}: {one.excluded or 'no throughput'}" for one in profile)
        sentence = f"No cap of {demand.model} can be judged ({reasons or 'none measured with one replica'})."
        return Choices(0.0, (), Obstacle(_UNMEASURED, 0.0, sentence))
    ceiling = max(_throughput(one) for one in usable)
    together = rows[(_replicas(rows) > 1) & (fate(rows) == GOOD)]
    ceiling = max(
        [ceiling, *together.groupby(["batch_cap", _replicas(together)])["total_throughput_tok_s"].median().dropna()]
    )
    needs = {one.batch_cap: _need(single, one.batch_cap, fleet) for one in usable}
    options, obstacle = _fitting(usable, needs, demand, kind, fleet.sharing_efficiency)
    flags = {cap: _flags(single, cap, needs[cap], kind) for cap in {one.batch_cap for one in options}}
    return Choices(float(ceiling), tuple(replace(one, flags=flags[one.batch_cap]) for one in options), obstacle)


def _rows_of_kind(rows: pd.DataFrame, kind: GpuKind) -> pd.DataFrame:
    names = rows["gpu_name"].fillna("")
    if kind.measured_on is not None:
        return rows[[bears(name, kind.measured_on) for name in names]]
    known = sorted(set(names) - {""})
    if len(known) > 1:
        raise UserError(
            f"the points of {rows['model'].iloc[0]!r} were measured on {' and '.join(known)}; "
            f"say with measured_on which of them the GPUs {kind.name!r} are."
        )
    return rows


def _replicas(rows: pd.DataFrame) -> "pd.Series[int]":
    if "replicas" not in rows.columns:
        return pd.Series(1, index=rows.index)
    return rows["replicas"].astype("float64").fillna(1).astype(int)


def _throughput(one: Profile) -> float:
    assert one.throughput_tok_s is not None
    return one.throughput_tok_s


def _need(rows: pd.DataFrame, batch_cap: int, fleet: Fleet) -> MemoryNeed:
    chosen = rows[(rows["batch_cap"] == batch_cap) & (fate(rows) == GOOD)]
    return memory_at(chosen, {"memory_margin": fleet.memory_margin, "memory_limit_fraction": 1.0})


def _need_bytes(need: MemoryNeed) -> int | None:
    if need.weights_bytes is None or need.other_bytes is None or need.kv_with_margin_bytes is None:
        return None
    return need.weights_bytes + need.other_bytes + need.kv_with_margin_bytes


def _permille(need_bytes: int, kind: GpuKind) -> int:
    return max(1, math.ceil(1000 * need_bytes / (kind.memory_gib * GIB) - 1e-9))


def _fitting(
    usable: list[Profile], needs: Mapping[int, MemoryNeed], demand: Demand, kind: GpuKind, efficiency: float
) -> tuple[list[Option], Obstacle | None]:
    """Return the options that keep the SLO and fit, or why there is none.

    Beside others a replica keeps `efficiency` of its throughput, at a latency as much higher; alone it keeps all of it.
    """
    bound_ms = math.inf if demand.slo_ms is None else demand.slo_ms
    in_time = [one for one in usable if one.latency_ms is not None and one.latency_ms <= bound_ms]
    if not in_time:
        return [], _too_slow(usable, demand, kind)
    sizes = {one.batch_cap: size for one in in_time if (size := _need_bytes(needs[one.batch_cap])) is not None}
    if not sizes:
        note = needs[in_time[0].batch_cap].notes[0]
        sentence = f"The memory that {demand.model} needs is unknown at every cap that keeps its SLO. {note}"
        return [], Obstacle(_UNKNOWN_MEMORY, 0.0, sentence)
    options = []
    for one in in_time:
        if one.batch_cap not in sizes or one.latency_ms is None:
            continue
        permille = _permille(sizes[one.batch_cap], kind)
        if permille > kind.limit_permille:
            continue
        alone = Option(
            demand.model, one.batch_cap, _throughput(one), one.latency_ms, kind.limit_permille, permille, True, ()
        )
        if efficiency < 1:
            options.append(alone)
        if one.latency_ms / efficiency <= bound_ms:
            shared = efficiency * alone.throughput_tok_s
            options.append(
                replace(
                    alone,
                    throughput_tok_s=shared,
                    latency_ms=one.latency_ms / efficiency,
                    permille=permille,
                    exclusive=False,
                )
            )
    return options, None if options else _too_large(sizes, demand, kind)


def _too_slow(usable: list[Profile], demand: Demand, kind: GpuKind) -> Obstacle:
    fastest = min(usable, key=lambda one: (one.latency_ms or 0.0, one.batch_cap))
    latency_ms, bound_ms = fastest.latency_ms or 0.0, demand.slo_ms or 0.0
    on = f" on {kind.name}" if kind.measured_on else ""
    sentence = (
        f"No cap of {demand.model} keeps its SLO of {bound_ms:g} ms ({demand.latency}){on}: the lowest measured "
        f"latency is {latency_ms:.4g} ms at cap {fastest.batch_cap}; an SLO of at least that would admit it."
    )
    return Obstacle(_TOO_SLOW, latency_ms - bound_ms, sentence)


def _too_large(sizes: Mapping[int, int], demand: Demand, kind: GpuKind) -> Obstacle:
    cap = min(sizes, key=lambda one: (sizes[one], one))
    needed_gib, offered_gib = sizes[cap] / GIB, kind.limit_permille / 1000 * kind.memory_gib
    sentence = (
        f"{demand.model} at cap {cap} needs {needed_gib:.1f} GiB, the least of all caps that keep its SLO, and the "
        f"largest GPU ({kind.name}) offers {offered_gib:.1f} GiB, {kind.limit_permille / 10:g}% of {kind.memory_gib:g} "
        "GiB; a larger GPU, a higher memory_limit_fraction or an SLO that admits a smaller cap would do."
    )
    return Obstacle(_TOO_LARGE, needed_gib - offered_gib, sentence)


def _flags(rows: pd.DataFrame, batch_cap: int, need: MemoryNeed, kind: GpuKind) -> tuple[str, ...]:
    size = _need_bytes(need)
    assert size is not None
    chosen = rows[(rows["batch_cap"] == batch_cap) & (fate(rows) == GOOD)]
    here = replace(need, fraction=_permille(size, kind) / 1000)
    return tuple(advised_flags(json.loads(str(chosen["server_args"].iloc[0])), batch_cap, here))

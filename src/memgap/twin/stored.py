"""Stored points as the twin takes them: who ran, what was asked of it, and what was measured."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memgap.datasets.build import Prompt, build_dataset
from memgap.engine.adapters import adapter_for
from memgap.engine.given import GivenFlags
from memgap.errors import UserError
from memgap.load.arrivals import intended_offsets_s
from memgap.load.records import LoadPlan
from memgap.models.architecture import ModelArchitecture
from memgap.roofline.gpus import find_gpu, gpu_of_nvml
from memgap.roofline.parallel import Parallel
from memgap.roofline.predict import Setup
from memgap.twin.costs import GRAPH_TOKENS, Roofline
from memgap.twin.simulate import Request, Server

SHAPE_GPU = "H100"
"""Whose roofline gives the shape of a step where the GPU is not known, as of a simulated engine."""
BUDGET_TOKENS = 8192
"""Tokens of a step where the engine does not say: vLLM's default of a server on such a GPU."""
UNKNOWN_POOL_TOKENS = 1 << 30


@dataclass(frozen=True)
class Observation:
    """A measured point: requests to a server, a closed loop of `concurrency` where there is one, and its summary."""

    key: str
    model: str
    workload: str
    batch_cap: int
    repeat: int
    requests: tuple[Request, ...]
    server: Server
    concurrency: int | None
    rate_req_s: float | None
    setup: Setup
    graph_tokens: int
    max_model_len: int
    summary: Mapping[str, float]

    @property
    def name(self) -> str:
        """How a reader tells it from others."""
        load = f"cap {self.batch_cap}" if self.concurrency else f"{self.rate_req_s:g} req/s"
        return f"{load}, {self.workload}, repeat {self.repeat}, key {self.key}"

    @functools.cached_property
    def roofline(self) -> Roofline:
        """The step times of its setup."""
        asked = self.server.max_batched_tokens, self.max_model_len, self.graph_tokens
        key = f"{self.setup}{asked}"
        if key not in _ROOFLINES:
            _ROOFLINES[key] = Roofline(self.setup, *asked)
        return _ROOFLINES[key]


_ROOFLINES: dict[str, Roofline] = {}


def observation(point: Mapping[str, Any]) -> Observation:
    """Return a stored online point as the twin takes it; raises UserError for one that it cannot simulate."""
    record, facts = point["record"], point["engine"]
    where = f"point {point['key']}"
    if record.get("kind", "online") != "online" or "load" not in record:
        raise UserError(f"{where} is no point of a sweep, so the twin cannot be compared with it.")
    if record["server"].get("replicas", 1) != 1:
        raise UserError(f"{where} ran on several replicas; the twin simulates one server.")
    if record["load"].get("think_time_s"):
        raise UserError(
            f"{where}: its clients pause between requests (think_time_s), which the twin does not simulate."
        )
    load, flags = record["load"], GivenFlags.of(record)
    server = server_of(facts, flags, record)
    requests = requests_of(record["dataset"], load, point["summary"].get("requests_sent"))
    return Observation(
        key=point["key"],
        model=record["model"]["name"],
        workload=record["dataset"]["name"],
        batch_cap=record["batch_cap"],
        repeat=record["repeat"],
        requests=requests,
        server=server,
        concurrency=load["concurrency"] if load["arrival"] == "closed" else None,
        rate_req_s=load.get("rate_req_s"),
        setup=setup_of(record, flags, point["hardware"].get("gpu_name")),
        graph_tokens=_resolved(facts, "compilation_config", "max_cudagraph_capture_size") or GRAPH_TOKENS,
        max_model_len=facts.get("max_model_len") or flags.longest(record["model"]),
        summary=point["summary"],
    )


def setup_of(record: Mapping[str, Any], flags: GivenFlags, gpu_name: str | None) -> Setup:
    """Return what the roofline is drawn for."""
    architecture = ModelArchitecture.from_dict(record["model"]["architecture"])
    kv = flags.get("kv_dtype")
    return Setup(
        architecture.served_as(flags.get("quantization")),
        gpu_of_nvml(gpu_name) or find_gpu(SHAPE_GPU),
        record["model"]["dtype"],
        None if kv in (None, "auto") else str(kv),
        parallel=Parallel(
            flags.whole("tensor_parallel", 1),
            flags.whole("pipeline_parallel", 1),
            flags.whole("data_parallel", 1),
            bool(flags.get("expert_parallel")),
        ),
    )


def server_of(facts: Mapping[str, Any], flags: GivenFlags, record: Mapping[str, Any]) -> Server:
    """Return a server's limits: as it said itself, else by its flags, else the engine's defaults."""
    block = facts.get("kv_block_tokens") or 16
    blocks = facts.get("num_gpu_blocks") or (facts.get("kv_pool_tokens") or UNKNOWN_POOL_TOKENS) // block
    null_block = 1 if record["engine"]["adapter"] == "vllm" else 0
    seats = _resolved(facts, "scheduler_config", "max_num_seqs") or flags.whole("max_seqs", 0) or 1024
    budget = _resolved(facts, "scheduler_config", "max_num_batched_tokens")
    chunked = _resolved(facts, "scheduler_config", "enable_chunked_prefill")
    lagging = _resolved(facts, "scheduler_config", "async_scheduling")
    caching = _resolved(facts, "cache_config", "enable_prefix_caching")
    measured = adapter_for(record["engine"]["adapter"]).capabilities.measured
    return Server(
        max_num_seqs=int(seats),
        max_batched_tokens=int(budget or BUDGET_TOKENS),
        num_blocks=int(blocks) - null_block,
        block_tokens=int(block),
        chunked=True if chunked is None else bool(chunked),
        prefix_caching=bool(caching),
        asynchronous=bool(measured) if lagging is None else bool(lagging),
        api_servers=int(record["server"]["args"].get("api-server-count") or 1),
    )


def _resolved(facts: Mapping[str, Any], part: str, name: str) -> Any:
    return ((facts.get("resolved") or {}).get(part) or {}).get(name)


def requests_of(dataset: Mapping[str, Any], load: Mapping[str, Any], sent: float | None = None) -> tuple[Request, ...]:
    """Return the requests of a load, in the order in which they are sent, with their times in an open loop.

    `sent`: how many of them were sent, where the load ended by time. Raises UserError for conversations, each of whose
    requests waits for the one before.
    """
    prompts = _prompts(json.dumps({name: value for name, value in dataset.items() if name != "key"}, sort_keys=True))
    if any(one.conversation is not None for one in prompts):
        raise UserError(f"dataset {dataset['name']} has conversations, which the twin does not simulate.")
    count = int(sent or load["requests"])
    prompts = [prompts[number % len(prompts)] for number in range(count)]
    shared = int(dataset.get("prefix_tokens") or 0)
    if load["arrival"] == "closed":
        due: list[float | None] = [None] * count
    elif load["arrival"] == "trace":
        due = [one.due_s for one in prompts]
    else:
        fields = LoadPlan.__dataclass_fields__
        offsets = intended_offsets_s(
            LoadPlan(model="", **{name: value for name, value in load.items() if name in fields}), count
        )
        assert offsets is not None
        due = offsets.tolist()
    return tuple(
        Request(len(one.token_ids), one.output_tokens, at, one.group, shared if one.group is not None else 0)
        for one, at in zip(prompts, due, strict=True)
    )


@functools.lru_cache(maxsize=32)
def _prompts(spec: str) -> list[Prompt]:
    return build_dataset(json.loads(spec))

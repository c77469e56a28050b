"""What an engine adapter has to know. A new engine is one module with one class of this shape; see docs/engines.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from memgap.engine.capabilities import Capabilities
from memgap.engine.prometheus import Page

Record = Mapping[str, Any]

SCRATCH = "@scratch@"
"""In an argument: the folder of the server's own that `Launch.files` lie in; only its user can read it."""


@dataclass(frozen=True)
class Launch:
    """How to start a server: an argument list, the variables added to its environment, and files it reads.

    `files` maps a name to the text of a file in the folder `SCRATCH`, which is gone when the server has ended: the way
    for a secret that an engine takes from no variable.
    """

    argv: list[str]
    env: dict[str, str]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FlagNames:
    """What the engine calls the flags that memgap has to know; None for one that it does not have.

    `reserved` are those that memgap sets itself, `reserved_variables` the variables of the environment likewise. No
    other module writes an engine's flag name: see memgap.engine.given.
    """

    max_seqs: str | None
    max_model_len: str | None
    memory_fraction: str | None
    kv_bytes: str | None
    reserved: tuple[str, ...]
    fraction_is_of_free: bool = False
    """The share of memory is of what is free when the server starts, so that it cannot be divided among replicas."""
    reserved_variables: tuple[str, ...] = ()
    kv_blocks: str | None = None
    kv_tokens: str | None = None
    block_tokens: str | None = None
    max_batched_tokens: str | None = None
    chunked_prefill: str | None = None
    tensor_parallel: str | None = None
    pipeline_parallel: str | None = None
    context_parallel: str | None = None
    """Ranks that share prompts, each group of them with all weights."""
    data_parallel: str | None = None
    data_parallel_local: str | None = None
    data_parallel_attention: str | None = None
    """Set where data-parallel engines share the GPUs of the tensor-parallel group."""
    first_gpu: str | None = None
    gpu_step: str | None = None
    expert_parallel: str | None = None
    api_servers: str | None = None
    kv_dtype: str | None = None
    quantization: str | None = None
    speculation: str | None = None
    eager: str | None = None
    async_scheduling: str | None = None
    compilation: str | None = None
    command: str = ""
    """What starts a server by hand, up to its flags; MODEL stands for the model."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other spellings that the engine takes, each with the name above."""
    told: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Meaning -> where the settings that a running server reports have the value that it took without the flag."""
    told_inverted: tuple[str, ...] = ()
    """Those meanings of `told` whose setting says the contrary."""


@dataclass
class EngineFacts:
    """What a running server says of itself; None where it does not say.

    `resolved` holds every effective setting that the server reports, its defaults included.
    """

    version: str | None = None
    kv_pool_tokens: int | None = None
    kv_pool_bytes: int | None = None
    kv_block_tokens: int | None = None
    num_gpu_blocks: int | None = None
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    weights_bytes: int | None = None
    weights_bytes_source: str | None = None
    graph_memory_bytes: int | None = None
    resolved: dict[str, Any] = field(default_factory=dict)


class EngineAdapter(Protocol):
    """Everything that differs between engines."""

    package: str
    """Its usual package on PyPI, whose version a point's record names."""
    capabilities: Capabilities
    flags: FlagNames
    ready_path: str
    """Answers 200 once requests are served, and costs the engine nothing."""
    alive_path: str
    """Answers 200 where the engine itself works, which may take it a second."""
    token_id_endpoints: tuple[str, ...]
    """Endpoints whose streams have the ids of their tokens on request."""
    takes_token_ids: bool
    """Whether a completion's prompt may be token ids; else they are sent as the text that they stand for."""
    metrics_path: str
    socket_folder_variable: str | None
    """Variable that names the folder for the sockets of the server's processes, which would stay in /tmp otherwise."""
    latency_histograms: Mapping[str, tuple[str, ...]]
    """Names of the engine's histograms in seconds: ttft, itl, tpot, e2e, queue, prefill, decode; newest name first."""
    startup_marks: Mapping[str, str]
    """Phase of a start (process, import, weights, compile, capture) -> regular expression of the log's line that ends
    it, for those that the engine's log tells."""
    detokenized_field: str
    """Where the answer of /detokenize has the text."""

    def launch(self, python: str, server: Record, model_target: str, port: int, api_key: str) -> Launch:
        """Return how to start the server of a server record on 127.0.0.1:`port`."""

    def metrics_sample(self, page: Page) -> dict[str, float]:
        """Return the engine columns of the telemetry (see memgap.telemetry.sampler) from a metrics page, and further
        counters whose change in a window is kept."""

    def facts(self, base_url: str, server: Record, log: str, api_key: str = "") -> EngineFacts:
        """Return what the running server says of itself, from its endpoints and its log."""

    def reset_prefix_cache(self, base_url: str, api_key: str = "") -> bool:
        """Empty the server's prefix cache, so that no point profits from an earlier one; false where it cannot."""

    def profiler_flags(self, folder: Path) -> list[str]:
        """Return the flags that let /start_profile and /stop_profile write traces of torch.profiler into a folder."""

    def profile_request(self, folder: Path) -> bytes:
        """Return what /start_profile is sent, so that the trace comes into a folder."""

    def measures_free_memory(self, server: Record) -> bool:
        """Whether a starting server sizes its KV cache by the memory that it finds free, so that its neighbours on the
        GPU have to be ready or absent meanwhile."""

    def failure_kind(self, log: str) -> str | None:
        """Return "oom", "port_in_use" or "bad_config" where the log says so, else None."""

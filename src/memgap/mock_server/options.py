"""Command line of the mock engine."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from memgap.errors import UserError
from memgap.mock_server.faults import FAULT_KINDS, Faults, parse_faults

KEY_VARIABLE = "MEMGAP_MOCK_API_KEY"
"""Environment variable of the API key, which no process list shows."""


INERT = (
    "enable-prefix-caching",
    "enable-chunked-prefill",
    "max-num-batched-tokens",
    "kv-cache-memory-bytes",
    "kv-cache-dtype",
    "kv-cache",
    "kv-transfer-config",
    "enforce-eager",
    "async-scheduling",
    "stream-interval",
    "disable-radix-cache",
    "schedule-policy",
)
"""Flags of real engines that change nothing here, so that a lab's arms start."""


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one mock engine; times in the unit the name ends with, lengths in tokens."""

    model: str
    port: int
    host: str = "127.0.0.1"
    served_model_name: str = ""
    max_num_seqs: int = 256
    max_model_len: int = 4096
    kv_tokens: int = 131072
    block_size: int = 16
    gpu_memory_utilization: float = 0.9
    step_base_ms: float = 10.0
    step_per_seq_ms: float = 0.0
    prefill_us_per_token: float = 0.0
    precise_timing: bool = False
    api_key: str = field(default="", repr=False)
    stamp_file: str = ""
    spawn_child: bool = False
    profile_folder: str = ""
    faults: Faults = field(default_factory=Faults)

    @property
    def public_name(self) -> str:
        """Name under which clients ask for the model."""
        return self.served_model_name or self.model

    @property
    def num_blocks(self) -> int:
        """Size of the KV pool in blocks."""
        return self.kv_tokens // self.block_size


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="memgap.mock_server",
        description="A fake OpenAI-compatible engine with known timing.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--served-model-name", default="", help="name clients ask for (default: --model)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free port and prints it")
    parser.add_argument("--max-num-seqs", type=int, default=256, help="most sequences in one step")
    parser.add_argument("--max-model-len", type=int, help="default: 4096, or --kv-tokens where that is less")
    parser.add_argument("--kv-tokens", type=int, default=131072, help="size of the KV pool in tokens")
    parser.add_argument("--block-size", type=int, default=16, help="tokens in a KV block")
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.9, help="only reported by /metrics")
    parser.add_argument("--step-base-ms", type=float, default=10.0, help="fixed part of a step")
    parser.add_argument("--step-per-seq-ms", type=float, default=0.0, help="part of a step for each sequence")
    parser.add_argument("--prefill-us-per-token", type=float, default=0.0, help="time for each prompt token")
    for kind in ("tensor", "pipeline", "data"):
        parser.add_argument(f"--{kind}-parallel-size", type=int, default=1, help="changes nothing but a job's GPUs")
    for flag in INERT:
        parser.add_argument(f"--{flag}", f"--no-{flag}", nargs="?", help="changes nothing")
    parser.add_argument("--precise-timing", action="store_true", help="spin for the last ms of a wait")
    parser.add_argument("--api-key", default=os.environ.get(KEY_VARIABLE, ""), help="bearer token that /v1 asks for")
    parser.add_argument("--stamp-file", default="", help="write the time of each token here (.npz)")
    parser.add_argument("--profile-folder", default="", help="where /start_profile and /stop_profile write a trace")
    parser.add_argument("--spawn-child", action="store_true", help="start a sleeping child process")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND[:ARG...]",
        help="one of " + ", ".join(FAULT_KINDS),
    )
    return parser


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """Return the settings given on the command line.

    Exits with status 2 and a usage line for an unknown flag (argparse).
    Raises UserError for a value out of range.
    """
    given = _parser().parse_args(arguments)
    for name in ("max_num_seqs", "kv_tokens", "block_size"):
        if getattr(given, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(given, name)}.")
    for name in ("step_base_ms", "step_per_seq_ms", "prefill_us_per_token"):
        if not 0 <= getattr(given, name) < 1e7:
            raise UserError(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(given, name)}.")
    if not 0 < given.gpu_memory_utilization <= 1:
        raise UserError(f"--gpu-memory-utilization must lie in (0, 1], got {given.gpu_memory_utilization}.")
    if not 0 <= given.port < 65536:
        raise UserError(f"--port must lie in 0..65535, got {given.port}.")
    max_model_len = min(4096, given.kv_tokens) if given.max_model_len is None else given.max_model_len
    if max_model_len < 1:
        raise UserError(f"--max-model-len must be at least 1, got {max_model_len}.")
    return Options(
        model=given.model,
        port=given.port,
        host=given.host,
        served_model_name=given.served_model_name,
        max_num_seqs=given.max_num_seqs,
        max_model_len=max_model_len,
        kv_tokens=given.kv_tokens,
        block_size=given.block_size,
        gpu_memory_utilization=given.gpu_memory_utilization,
        step_base_ms=given.step_base_ms,
        step_per_seq_ms=given.step_per_seq_ms,
        prefill_us_per_token=given.prefill_us_per_token,
        precise_timing=given.precise_timing,
        api_key=given.api_key,
        stamp_file=given.stamp_file,
        spawn_child=given.spawn_child,
        profile_folder=given.profile_folder,
        faults=parse_faults(given.fault),
    )

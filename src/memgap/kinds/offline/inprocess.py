"""vLLM's V1 engine inside this process, with the hooks that tell a StepRecorder when what begins and ends.

Needs vLLM 0.26 or newer and torch; nothing else of memgap imports this module.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memgap.kinds.offline.phases import DecodeHold, phase_of, prefill_tokens
from memgap.kinds.offline.steps import StepRecorder

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


OUTPUT_KINDS = {"final": "FINAL_ONLY", "delta": "DELTA", "cumulative": "CUMULATIVE"}


class InProcessEngine:
    """An LLMEngine built from the flags of a server, and what is measured on it.

    `recorder` gets the steps. `hold` keeps decodes back until all prompts are computed.
    """

    def __init__(self, flags: Sequence[str]) -> None:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.utils.argparse_utils import FlexibleArgumentParser
        from vllm.v1.engine.llm_engine import LLMEngine

        parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
        arguments = EngineArgs.from_cli_args(parser.parse_args([*flags, "--disable-log-stats"]))
        self.engine: Any = LLMEngine.from_engine_args(arguments)
        self.core: Any = self.engine.engine_core.engine_core
        self.config: Any = self.core.vllm_config
        self.recorder = StepRecorder()
        self.hold = DecodeHold(self.core.scheduler)
        self._hook_scheduler()
        self._hook_runner()
        self._hook_outputs()

    def facts(self) -> dict[str, Any]:
        """Return the engine's version, KV pool and scheduling, as the running engine has them."""
        import vllm

        cache, scheduling = self.config.cache_config, self.config.scheduler_config
        blocks, block = cache.num_gpu_blocks, cache.block_size
        return {
            "version": vllm.__version__,
            "num_gpu_blocks": blocks,
            "kv_block_tokens": block,
            "kv_pool_tokens": blocks * block if blocks and block else None,
            "max_model_len": self.config.model_config.max_model_len,
            "max_num_seqs": scheduling.max_num_seqs,
            "max_num_batched_tokens": scheduling.max_num_batched_tokens,
            "async_scheduling": bool(scheduling.async_scheduling),
            "cudagraph_mode": str(getattr(self.config.compilation_config, "cudagraph_mode", "")),
            "vocabulary_size": self.config.model_config.get_vocab_size(),
            "model_runner": f"{type(self._runner()).__module__}.{type(self._runner()).__name__}",
        }

    def add(self, name: str, prompt: list[int], output_tokens: int, run: Mapping[str, Any]) -> None:
        """Queue one request of a run that generates exactly `output_tokens`."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            temperature=run["temperature"],
            max_tokens=output_tokens,
            ignore_eos=True,
            detokenize=run["detokenize"],
            output_kind=RequestOutputKind[OUTPUT_KINDS[run["outputs"]]],
        )
        self.engine.add_request(name, {"prompt_token_ids": prompt}, parameters)

    def step(self) -> None:
        """Run one step of the engine."""
        self.engine.step()

    @property
    def unfinished(self) -> bool:
        """Whether requests are left."""
        return bool(self.engine.has_unfinished_requests())

    def drop(self) -> None:
        """Abort every request that is left and let the engine forget them."""
        left = list(self.engine.output_processor.request_states)
        self.hold.enabled = False
        try:
            self.engine.abort_request(left, internal=True)
            for _ in range(4):
                self.engine.step()
        finally:
            self.hold.enabled = True

    def _runner(self) -> Any:
        worker = self.core.model_executor.driver_worker
        worker = getattr(worker, "worker", worker)
        return worker.model_runner

    def _hook_scheduler(self) -> None:
        scheduler, recorder = self.core.scheduler, self.recorder
        schedule, update = scheduler.schedule, scheduler.update_from_output

        def timed_schedule(*args: Any, **named: Any) -> Any:
            began_s = time.perf_counter()
            output = schedule(*args, **named)
            seconds = time.perf_counter() - began_s
            recorder.scheduled(
                phase_of(output),
                output.total_num_scheduled_tokens,
                prefill_tokens(output),
                len(output.num_scheduled_tokens),
                len(scheduler.waiting),
                seconds,
            )
            return output

        def timed_update(*args: Any, **named: Any) -> Any:
            recorder.output_begins()
            began_s = time.perf_counter()
            output = update(*args, **named)
            recorder.output_ends(time.perf_counter() - began_s, float(scheduler.kv_cache_manager.usage))
            return output

        scheduler.schedule, scheduler.update_from_output = timed_schedule, timed_update

    def _hook_runner(self) -> None:
        runner, recorder = self._runner(), self.recorder
        clock = _GpuClock.where_available()
        sample = runner.sample_tokens

        def timed_sample(*args: Any, **named: Any) -> Any:
            output = sample(*args, **named)
            recorder.sampled(clock.stop() if clock is not None else None)
            return output

        def forward_begins() -> None:
            recorder.forward_begins()
            if clock is not None:
                clock.start()

        runner.sample_tokens = timed_sample
        graphs = getattr(runner, "cudagraph_manager", None)
        if hasattr(runner, "_model_forward"):
            runner._model_forward = _before(runner._model_forward, forward_begins)
            return
        if graphs is not None and hasattr(graphs, "run_fullgraph"):
            graphs.run_fullgraph = _before(graphs.run_fullgraph, forward_begins)
        runner.model.register_forward_pre_hook(lambda *_: forward_begins())

    def _hook_outputs(self) -> None:
        from vllm.v1.engine import detokenizer

        processor, recorder = self.engine.output_processor, self.recorder
        process, update = processor.process_outputs, detokenizer.BaseIncrementalDetokenizer.update

        def timed_process(*args: Any, **named: Any) -> Any:
            began_s = time.perf_counter()
            output = process(*args, **named)
            recorder.processed(time.perf_counter() - began_s)
            return output

        def timed_update(self: Any, *args: Any, **named: Any) -> Any:
            began_s = time.perf_counter()
            output = update(self, *args, **named)
            recorder.detokenized(time.perf_counter() - began_s)
            return output

        processor.process_outputs = timed_process
        detokenizer.BaseIncrementalDetokenizer.update = timed_update


class _GpuClock:
    """CUDA events on the current stream: around a forward pass and its sampling."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._began: Any = None

    @classmethod
    def where_available(cls) -> "_GpuClock | None":
        """Return a clock, or None without a GPU."""
        import torch

        return cls(torch) if torch.cuda.is_available() else None

    def start(self) -> None:
        """The forward pass is about to be launched."""
        self._began = self._torch.cuda.Event(enable_timing=True)
        self._began.record()

    def stop(self) -> Callable[[], float] | None:
        """The sampling was launched; returns what gives the seconds in between once the GPU is done."""
        if self._began is None:
            return None
        began, ended = self._began, self._torch.cuda.Event(enable_timing=True)
        ended.record()
        self._began = None

        def seconds() -> float:
            ended.synchronize()
            return float(began.elapsed_time(ended)) / 1e3

        return seconds


def _before(function: Callable[..., Any], first: Callable[[], None]) -> Callable[..., Any]:
    def wrapped(*args: Any, **named: Any) -> Any:
        first()
        return function(*args, **named)

    return wrapped

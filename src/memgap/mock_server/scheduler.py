"""Continuous batching with a paged KV pool: who runs in a step, how long it takes, who is preempted.

Knows no clock and no network, so that it can be tested alone.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol


class Sink(Protocol):
    """Where the tokens of a sequence go."""

    def token(self, index: int, last: bool) -> None:
        """Take output token number `index` (from 0); `last` marks the end of the sequence."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One choice of a request inside the engine; lengths in tokens, `blocks` in KV blocks.

    `shared_blocks` of its prompt are another choice's, which holds them.
    """

    prompt_tokens: int
    output_tokens: int
    sink: Sink
    generated: int = 0
    blocks: int = 0
    shared_blocks: int = 0


@dataclass(slots=True)
class Counters:
    """Totals since start, as an engine reports them."""

    preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0, "error": 0})


class Scheduler:
    """First come, first served; a running sequence that finds no block evicts the newest running one.

    A step computes KV for every token known before it, so a sequence with p prompt and g generated tokens
    holds ceil((p + g) / block_size) blocks while the step runs. Evicted sequences drop their
    blocks, wait at the head of the queue and are recomputed, prompt and generated tokens alike.
    """

    def __init__(
        self,
        *,
        max_num_seqs: int,
        num_blocks: int,
        block_size: int,
        step_base_s: float,
        step_per_seq_s: float,
        prefill_s_per_token: float,
    ) -> None:
        self.max_num_seqs = max_num_seqs
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.free_blocks = num_blocks
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.counters = Counters()
        self._step_base_s = step_base_s
        self._step_per_seq_s = step_per_seq_s
        self._prefill_s_per_token = prefill_s_per_token

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks in use, 0..1."""
        return 1.0 - self.free_blocks / self.num_blocks if self.num_blocks else 0.0

    def add(self, sequence: Sequence) -> None:
        """Queue a new request."""
        self.waiting.append(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Forget a request whose client has gone; harmless where it has finished already."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        else:
            return
        self._release(sequence)
        self.counters.finished["abort"] += 1

    def begin_step(self) -> float | None:
        """Choose the batch of the next step; return its duration in seconds, None where nothing runs."""
        evicted = self._grow_running()
        computed = 0
        while not evicted and self.waiting and len(self.running) < self.max_num_seqs:
            known = self.waiting[0].prompt_tokens + self.waiting[0].generated
            blocks = -(-known // self.block_size) - self.waiting[0].shared_blocks
            if blocks > self.free_blocks:
                break
            sequence = self.waiting.popleft()
            self.free_blocks -= blocks
            sequence.blocks = blocks
            self.running.append(sequence)
            computed += known - sequence.shared_blocks * self.block_size
        if not self.running:
            return None
        decode_s = self._step_base_s + self._step_per_seq_s * len(self.running)
        return decode_s + self._prefill_s_per_token * computed

    def finish_step(self) -> None:
        """Hand one token of each running sequence to its sink and drop the sequences that are complete."""
        done = 0
        batch = list(self.running)
        self.counters.generation_tokens += len(batch)
        for sequence in batch:
            index = sequence.generated
            sequence.generated = index + 1
            if index == 0:
                self.counters.prompt_tokens += sequence.prompt_tokens
            last = sequence.generated >= sequence.output_tokens
            done += last
            sequence.sink.token(index, last)
        if done:
            for sequence in batch:
                if sequence.generated >= sequence.output_tokens:
                    self._release(sequence)
            self.running = [s for s in self.running if s.generated < s.output_tokens]

    def _grow_running(self) -> bool:
        """Give each running sequence the blocks of its known tokens; return whether one was evicted."""
        evicted = False
        size = self.block_size
        position = 0
        while position < len(self.running):
            sequence = self.running[position]
            known = sequence.prompt_tokens + sequence.generated
            missing = -(-known // size) - sequence.shared_blocks - sequence.blocks
            while missing > self.free_blocks:
                evicted = True
                victim = self.running.pop()
                self._release(victim)
                self.waiting.appendleft(victim)
                self.counters.preemptions += 1
                if victim is sequence:
                    break
            else:
                if missing > 0:
                    sequence.blocks += missing
                    self.free_blocks -= missing
            position += 1
        return evicted

    def _release(self, sequence: Sequence) -> None:
        self.free_blocks += sequence.blocks
        sequence.blocks = 0

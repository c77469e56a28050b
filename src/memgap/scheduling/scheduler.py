"""Continuous batching with a paged KV pool: who runs in a step, which prompts it computes, who is preempted.

Knows no clock, no network and no costs. The decisions are those of vLLM's scheduler (first come, first served): running
sequences come first, in the order in which they were admitted; then waiting ones, while seats, the step's budget of
tokens and free blocks last. A prompt that is longer than what is left of the budget goes on in the next step.

A decoding sequence makes one token in every step, so its length, its blocks and its end follow from the number of
steps, and a step in which only decoding sequences run costs the same for one sequence and for a thousand.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol


class Sink(Protocol):
    """Where the tokens of a sequence go."""

    def token(self, index: int, last: bool) -> None:
        """Take output token number `index` (from 0); `last` marks the end of the sequence."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One request inside the engine; lengths in tokens.

    The first `prefix_tokens` of the prompt are those of every sequence of the same `prefix_group`, and computed once
    where the scheduler keeps prefixes. `computed` tokens have their KV; `generated` counts output tokens whose step was
    begun, those of a step that was not finished among them.
    """

    prompt_tokens: int
    output_tokens: int
    sink: Sink | None = None
    prefix_group: int | None = None
    prefix_tokens: int = 0
    generated: int = 0
    computed: int = 0
    blocks: int = 0
    shared_blocks: int = 0
    forked_blocks: int = 0
    """Whole blocks of its prompt that another choice of the same request computes and holds."""
    number: int = 0
    """Whose it is; free for the caller."""
    offset: int | None = None
    """While it decodes: tokens known before a step, less the step's number."""


@dataclass(slots=True)
class Counters:
    """Totals since start, as an engine reports them."""

    preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0, "error": 0})


@dataclass(slots=True)
class Batch:
    """What a step computes: one token for each of `decodes` sequences that attend to `context_tokens` in all, and of
    each sequence in `chunks` so many tokens after so many that are there.

    `firsts` get the first token since their admission in this step, `lasts` their last one of all.
    """

    decodes: int
    context_tokens: int
    chunks: list[tuple[Sequence, int, int]]
    firsts: list[Sequence]
    lasts: list[Sequence]
    first_prompt_tokens: int = 0
    """Of the prompts that are through for the first time."""

    @property
    def chunk_tokens(self) -> int:
        """Prompt tokens of the step."""
        return sum(tokens for _, _, tokens in self.chunks)


class Scheduler:
    """See the module. A step is begun and later finished; with asynchronous scheduling the next one is begun before.

    A step computes KV for every token known before it, so a sequence with p prompt and g generated tokens holds
    ceil((p + g) / block_size) blocks while the step runs. A running sequence that finds no block evicts the newest one;
    evicted sequences drop their blocks, wait at the head of the queue and are recomputed, prompt and generated tokens
    alike. A prompt is admitted only where all of it has room. `max_batched_tokens` None sets no budget; without
    `chunked` a prompt waits until the budget has room for all of it. With `prefix_caching` what was computed of a group
    stays; that a full pool would forget it is left out.
    """

    def __init__(
        self,
        *,
        max_num_seqs: int,
        num_blocks: int,
        block_size: int,
        max_batched_tokens: int | None = None,
        chunked: bool = True,
        prefix_caching: bool = False,
    ) -> None:
        self.max_num_seqs = max_num_seqs
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.free_blocks = num_blocks
        self.waiting: deque[Sequence] = deque()
        self.counters = Counters()
        self._running: dict[Sequence, None] = {}
        self._budget = max_batched_tokens
        self._chunked = chunked
        self._prefixes: dict[int, tuple[int, int]] | None = {} if prefix_caching else None
        self._step = 0
        self._decoding = 0
        self._offsets = 0
        self._growing = [0] * block_size
        self._ends: dict[int, list[Sequence]] = {}
        self._partial: Sequence | None = None
        self._begun: deque[Batch] = deque()
        self._leaving: dict[Sequence, None] = {}
        self._changed = self._sinks = False
        self.evicted: list[Sequence] = []
        """Those that the last step evicted."""

    @property
    def running(self) -> list[Sequence]:
        """Sequences that hold a seat, in the order of their admission."""
        return [*self._running, *self._leaving] if self._leaving else list(self._running)

    @property
    def seats_taken(self) -> int:
        """How many sequences hold a seat."""
        return len(self._running) + len(self._leaving)

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks in use, 0..1."""
        return 1.0 - self.free_blocks / self.num_blocks if self.num_blocks else 0.0

    def add(self, sequence: Sequence) -> None:
        """Queue a new request."""
        self.waiting.append(sequence)
        self._changed = True
        self._sinks = self._sinks or sequence.sink is not None

    def abort(self, sequence: Sequence) -> None:
        """Forget a request whose client has gone; harmless where it has finished already."""
        if sequence in self._running:
            self._stop(sequence)
        elif sequence in self._leaving:
            del self._leaving[sequence]
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
            self.counters.finished["abort"] += 1
            return
        else:
            return
        for batch in self._begun:
            if sequence in batch.firsts:
                batch.firsts.remove(sequence)
            elif sequence.generated:
                batch.decodes -= 1
        self._release(sequence)
        self.counters.finished["abort"] += 1

    def begin_step(self) -> Batch | None:
        """Choose the batch of the next step; None where nothing is left to compute."""
        self._changed = False
        self.evicted = []
        needed = self._growing[(1 - self._step) % self.block_size]
        if needed > self.free_blocks:
            self._grow_with_evictions()
        else:
            self.free_blocks -= needed
        decodes, context = self._decoding, self._offsets + self._decoding * self._step
        left = None if self._budget is None else self._budget - decodes
        chunks: list[tuple[Sequence, int, int]] = []
        if self._partial is not None:
            left = self._go_on(self._partial, left, chunks)
        if not self.evicted:
            self._admit(left, chunks)
        if not decodes and not chunks:
            return None
        lasts = self._ends.pop(self._step, [])
        for sequence in lasts:
            sequence.generated = sequence.output_tokens
            self._leave(sequence)
        self._step += 1
        firsts = [one for one, before, tokens in chunks if before + tokens == one.prompt_tokens + one.generated]
        new = sum(one.prompt_tokens for one in firsts if not one.generated)
        for sequence in firsts:
            self._start_decoding(sequence, lasts)
        batch = Batch(decodes, context, chunks, firsts, lasts, new)
        self._begun.append(batch)
        return batch

    def finish_step(self) -> list[Sequence]:
        """End the oldest step that was begun: free the seats and blocks of the sequences that end, which are returned.

        Sinks get their tokens, for which no further step may have been begun.
        """
        batch = self._begun.popleft()
        self.counters.generation_tokens += batch.decodes + len(batch.firsts)
        self.counters.prompt_tokens += batch.first_prompt_tokens
        for sequence in self.running if self._sinks else ():
            self._settle(sequence)
            if sequence.sink is not None and sequence is not self._partial:
                sequence.sink.token(sequence.generated - 1, sequence in self._leaving)
        for sequence in batch.lasts:
            if sequence in self._leaving:
                del self._leaving[sequence]
                self._release(sequence)
        return batch.lasts

    def quiet_steps(self) -> int:
        """Return in how many further steps nothing can change but by a new request: all who run decode, none of them
        ends and each finds its blocks.
        """
        if self._changed or self._partial or not self._decoding or any(one.chunks or one.lasts for one in self._begun):
            return 0
        until = min(self._ends) - self._step
        if self.free_blocks >= self._decoding * (until // self.block_size + 1):
            return until
        free, steps = self.free_blocks, 0
        while steps < until:
            free -= self._growing[(1 - self._step - steps) % self.block_size]
            if free < 0:
                break
            steps += 1
        return steps

    def skip(self, steps: int) -> None:
        """Take `steps` of the quiet steps at once; the step that was begun last becomes the last of them."""
        whole, rest = divmod(steps, self.block_size)
        grown = whole * self._decoding
        grown += sum(self._growing[(1 - self._step - step) % self.block_size] for step in range(rest))
        self.free_blocks -= grown
        self._step += steps
        self.counters.generation_tokens += self._decoding * steps
        for batch in self._begun:
            batch.context_tokens += self._decoding * steps

    def known_tokens(self, sequence: Sequence) -> int:
        """Return how many tokens of a sequence there are: its prompt and what was generated."""
        self._settle(sequence)
        return sequence.prompt_tokens + sequence.generated

    def _settle(self, sequence: Sequence) -> None:
        """Write down what follows from the number of steps."""
        if sequence.offset is not None:
            known = sequence.offset + self._step
            sequence.generated = known - sequence.prompt_tokens
            sequence.computed = known - 1
            sequence.blocks = -(-(known - 1) // self.block_size)

    def _start_decoding(self, sequence: Sequence, lasts: list[Sequence]) -> None:
        sequence.generated += 1
        if sequence.generated >= sequence.output_tokens:
            lasts.append(sequence)
            self._running.pop(sequence)
            self._leaving[sequence] = None
            return
        known = sequence.prompt_tokens + sequence.generated
        sequence.offset = known - self._step
        self._decoding += 1
        self._offsets += sequence.offset
        self._growing[sequence.offset % self.block_size] += 1
        last = self._step + sequence.output_tokens - sequence.generated - 1
        self._ends.setdefault(last, []).append(sequence)

    def _stop_decoding(self, sequence: Sequence) -> None:
        assert sequence.offset is not None
        self._decoding -= 1
        self._offsets -= sequence.offset
        self._growing[sequence.offset % self.block_size] -= 1
        sequence.offset = None

    def _leave(self, sequence: Sequence) -> None:
        """Take a sequence whose last token is on its way out of the running ones; it keeps seat and blocks."""
        known = sequence.prompt_tokens + sequence.output_tokens
        sequence.blocks, sequence.computed = -(-(known - 1) // self.block_size), known - 1
        self._stop_decoding(sequence)
        self._running.pop(sequence)
        self._leaving[sequence] = None

    def _stop(self, sequence: Sequence) -> None:
        """Take a sequence out that has not ended."""
        self._settle(sequence)
        if sequence.offset is not None:
            last = self._step + sequence.output_tokens - sequence.generated - 1
            self._ends[last].remove(sequence)
            if not self._ends[last]:
                del self._ends[last]
            self._stop_decoding(sequence)
        if self._partial is sequence:
            self._partial = None
        self._running.pop(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._changed = True
        self.free_blocks += sequence.blocks - sequence.shared_blocks
        if sequence.shared_blocks and self._prefixes is not None and sequence.prefix_group is not None:
            tokens, users = self._prefixes[sequence.prefix_group]
            self._prefixes[sequence.prefix_group] = (tokens, users - 1)
            if users == 1:
                self.free_blocks += sequence.shared_blocks
        sequence.blocks = sequence.shared_blocks = sequence.computed = 0

    def _evict(self, sequence: Sequence) -> None:
        self._stop(sequence)
        self._release(sequence)
        self.waiting.appendleft(sequence)
        self.evicted.append(sequence)
        self.counters.preemptions += 1

    def _grow_with_evictions(self) -> None:
        """Give each decoding sequence the block that it needs, in order, where not all find one."""
        for sequence in list(self._running):
            if sequence not in self._running or sequence.offset is None:
                continue
            if (sequence.offset + self._step - 1) % self.block_size:
                continue
            while not self.free_blocks and sequence in self._running:
                self._evict(next(reversed(self._running)))
            if sequence in self._running:
                self.free_blocks -= 1
                sequence.blocks += 1

    def _go_on(self, sequence: Sequence, left: int | None, chunks: list[tuple[Sequence, int, int]]) -> int | None:
        """Compute more of a prompt that was begun; return the budget that is left."""
        missing = sequence.prompt_tokens + sequence.generated - sequence.computed
        tokens = missing if left is None else min(left, missing)
        if tokens <= 0:
            return left
        if not self._allocate(sequence, sequence.computed + tokens):
            self._evict(sequence)
            return left
        self._compute(sequence, tokens, chunks)
        return None if left is None else left - tokens

    def _admit(self, left: int | None, chunks: list[tuple[Sequence, int, int]]) -> None:
        while self.waiting and self.seats_taken < self.max_num_seqs and (left is None or left > 0):
            sequence = self.waiting[0]
            known = sequence.prompt_tokens + sequence.generated
            hit, new_shared = self._prefix(sequence, known)
            tokens = known - hit
            if left is not None and tokens > left:
                if not self._chunked:
                    return
                tokens = left
            held = hit // self.block_size
            if -(-known // self.block_size) - held + new_shared > self.free_blocks:
                return
            self.waiting.popleft()
            self._running[sequence] = None
            self._share(sequence, hit, new_shared)
            sequence.computed, sequence.blocks = hit, held
            self._allocate(sequence, hit + tokens)
            self._compute(sequence, tokens, chunks)
            left = None if left is None else left - tokens

    def _prefix(self, sequence: Sequence, known: int) -> tuple[int, int]:
        """Return how many tokens of a waiting sequence are there already, and how many blocks of them are in no use."""
        if sequence.forked_blocks:
            return min(sequence.forked_blocks, (known - 1) // self.block_size) * self.block_size, 0
        if self._prefixes is None:
            return 0, 0
        there, users = (
            self._prefixes.get(sequence.prefix_group, (0, 0)) if sequence.prefix_group is not None else (0, 0)
        )
        usable = min(there, sequence.prefix_tokens, known - 1) // self.block_size
        return usable * self.block_size, 0 if users else usable

    def _share(self, sequence: Sequence, hit: int, new_shared: int) -> None:
        if sequence.forked_blocks:
            sequence.shared_blocks = hit // self.block_size
            return
        if self._prefixes is None:
            return
        self.counters.prefix_queries += sequence.prompt_tokens
        self.counters.prefix_hits += hit
        if sequence.prefix_group is not None and hit:
            tokens, users = self._prefixes[sequence.prefix_group]
            self._prefixes[sequence.prefix_group] = (tokens, users + 1)
            sequence.shared_blocks = hit // self.block_size
            self.free_blocks -= new_shared

    def _allocate(self, sequence: Sequence, tokens: int) -> bool:
        missing = -(-tokens // self.block_size) - sequence.blocks
        if missing > self.free_blocks:
            return False
        self.free_blocks -= missing
        sequence.blocks += missing
        return True

    def _compute(self, sequence: Sequence, tokens: int, chunks: list[tuple[Sequence, int, int]]) -> None:
        chunks.append((sequence, sequence.computed, tokens))
        sequence.computed += tokens
        whole = sequence.computed == sequence.prompt_tokens + sequence.generated
        self._partial = None if whole else sequence
        if whole and self._prefixes is not None and sequence.prefix_group is not None:
            there, users = self._prefixes.get(sequence.prefix_group, (0, 0))
            self._prefixes[sequence.prefix_group] = (max(there, sequence.prefix_tokens), users)

    def decoding(self) -> Iterator[Sequence]:
        """Yield the sequences that decode, in order, what is known of them written down."""
        for sequence in self._running:
            if sequence.offset is not None:
                self._settle(sequence)
                yield sequence

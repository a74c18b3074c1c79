"""One engine replica with continuous batching, on SimPy's clock.

Steps are exact, their count is not: while nothing comes or goes, all steps up to the next finished sequence are one event. A new
request is taken in at the end of the step that runs when it comes, as vLLM does.
"""

import heapq
from collections import deque
from collections.abc import Callable
from functools import partial

import simpy

from serve_app.planning.speeds import EngineSpeeds, span_s, steps_in


class Job:
    """One generation. Owns its times, in simulated seconds; None until they have come."""

    __slots__ = ("came", "done", "first", "key", "output", "prompt", "unread")

    def __init__(self, key: int, came: float, prompt: int, output: int) -> None:
        self.key = key
        self.came = came
        self.prompt = max(prompt, 1)
        self.output = max(output, 1)
        self.unread = self.prompt
        self.first: float | None = None
        self.done: float | None = None


class Replica:
    """Owns its queue, its running sequences and its account of busy time. `finished` is told of each job at its end.

    A sequence's whole length is set aside in the KV cache when it starts: vLLM takes it as it grows and recomputes what does not fit.
    """

    def __init__(self, env: simpy.Environment, speeds: EngineSpeeds, finished: Callable[[Job], None]) -> None:
        self._env, self._speeds, self._finished = env, speeds, finished
        self._waiting: deque[Job] = deque()
        self._reading: deque[Job] = deque()  # admitted, with prompt tokens that were not read yet
        self._decoding: list[tuple[int, int, Job]] = []  # by the step that finishes them
        self._steps = self._order = 0
        self._context = self._kv = 0
        self._plan: tuple[float, float, float, int] | None = None  # began, first step, growth, steps: a run without prompts
        self._epoch = 0  # a boundary of an older plan is not one any more
        self._active = False
        self._since = env.now
        self._busy_s = self._sequence_s = 0.0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._reading) + len(self._decoding)

    @property
    def load(self) -> int:
        return len(self._waiting) + len(self._reading) + len(self._decoding)

    @property
    def capacity(self) -> int:
        return self._speeds.max_num_seqs

    def account(self) -> tuple[float, float]:
        """Seconds with at least one running sequence, and sequence-seconds, up to now."""
        self._count()
        return self._busy_s, self._sequence_s

    def submit(self, job: Job) -> None:
        self._waiting.append(job)
        if not self._active:
            self._start()
        elif self._plan is not None and self._fits(job):
            self._cut_short(self._plan)

    def _fits(self, job: Job) -> bool:
        kept = self._kv + job.prompt + job.output
        return self.running < self._speeds.max_num_seqs and (kept <= self._speeds.kv_tokens or self.running == 0)

    def _count(self) -> None:
        now = self._env.now
        if self._active:
            self._busy_s += now - self._since
            self._sequence_s += (now - self._since) * self.running
        self._since = now

    def _start(self) -> None:
        """Begin the next step, or the next run of steps; rest when there is nothing to do."""
        self._count()
        while self._waiting and self._fits(self._waiting[0]):
            job = self._waiting.popleft()
            self._kv += job.prompt + job.output
            self._reading.append(job)
        self._active = bool(self._reading or self._decoding)
        if not self._active:
            return
        if self._reading:
            self._read()
        else:
            self._decode()

    def _read(self) -> None:
        """One step that also reads prompts, in the order in which they came, as far as its tokens go."""
        sequences = len(self._decoding)
        budget = left = max(self._speeds.max_num_batched_tokens - sequences, 1)
        ready: list[Job] = []
        while self._reading and left:
            job = self._reading[0]
            taken = min(job.unread, left)
            job.unread -= taken
            left -= taken
            if job.unread == 0:
                ready.append(self._reading.popleft())
        seconds = self._speeds.step_s(sequences + len(ready), self._context, budget - left)
        self._plan = None
        self._after(seconds, partial(self._step_over, budget - left, sequences, ready))

    def _decode(self) -> None:
        sequences = len(self._decoding)
        first = self._speeds.step_s(sequences, self._context)
        growth = self._speeds.per_context_token_s * sequences
        steps = self._decoding[0][0] - self._steps
        self._plan = (self._env.now, first, growth, steps)
        self._after(span_s(first, growth, steps), partial(self._run_over, steps))

    def _cut_short(self, plan: tuple[float, float, float, int]) -> None:
        """Somebody came: the run ends with the step that is under way."""
        began, first, growth, planned = plan
        steps = min(steps_in(first, growth, self._env.now - began), planned)
        self._plan = None
        if steps < planned:
            self._after(began + span_s(first, growth, steps) - self._env.now, partial(self._run_over, steps))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._epoch += 1
        epoch = self._epoch
        event = self._env.timeout(max(seconds, 0.0))
        if event.callbacks is not None:
            event.callbacks.append(lambda _: act() if epoch == self._epoch else None)

    def _run_over(self, steps: int) -> None:
        self._context += steps * len(self._decoding)
        self._steps += steps
        self._leave()

    def _step_over(self, read: int, sequences: int, ready: list[Job]) -> None:
        self._context += read + sequences + len(ready)
        self._steps += 1
        self._count()
        for job in ready:
            job.first = self._env.now
            self._order += 1
            heapq.heappush(self._decoding, (self._steps + job.output - 1, self._order, job))
        self._leave()

    def _leave(self) -> None:
        self._count()
        done: list[Job] = []
        while self._decoding and self._decoding[0][0] <= self._steps:
            job = heapq.heappop(self._decoding)[2]
            job.done = self._env.now
            self._kv -= job.prompt + job.output
            self._context -= job.prompt + job.output
            done.append(job)
        self._start()
        for job in done:
            self._finished(job)

"""A replica that works in steps, as vLLM's engine does: every step makes one token for each request that decodes, and computes the prompts that wait.

    step_s = decode(n) + sum of the prompts' prefill_s           n: requests in the step, those whose prompt is computed included

A request that arrives while a step runs waits for its end: with a prompt in it, longer. Prompts that come together are computed in one step, and all of
them, and every request that decodes beside them, wait for the whole of it. A step takes prompts in the order of their arrival until `batch_tokens` are in it
(vLLM's --max-num-batched-tokens); the rest of a longer prompt goes into the next one (chunked prefill). The same interface as a replica of plan.simulate,
which shares the server as processors do and has no steps.

Steps without a prompt are alike until a request ends or another one comes, so they are taken together: a few events a request.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

from perfbench.plan.curve import Curve

_TABLE = 64


@dataclass(frozen=True)
class Steps:
    """How long steps take."""

    decode: Curve
    """Seconds of a step by the requests in it, prompts left out."""
    prefill_s: float
    """What the mean prompt adds to a step."""
    outside_s: float = 0.0
    """Of the time to the first token, what passes outside the steps and holds nobody up: the way there, tokenization, the way back."""
    batch_tokens: int | None = None
    """Tokens of a step at most; None: no limit."""


class StepReplica:
    """One replica between events. `prefill_s` and `prompt_tokens` of every request, and the tokens that follow its first; `first_s` and `done_s` are filled in.

    `ended` is called with each request that is done, and when.
    """

    __slots__ = (
        "_begun_s", "_clock", "_decoding", "_doing", "_ended", "_more", "_outside_s", "_prefill_s", "_prompts", "_room", "_seconds", "_slots", "_step_s",
        "_steps", "_table", "_waiting", "done_s", "first_s",
    )  # fmt: skip

    def __init__(
        self, steps: Steps, slots: int | None, work: tuple[list[float], list[int], list[int]], first_s: list[float], done_s: list[float],
        ended: Callable[[int, float], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self._seconds = steps.decode
        self._table = steps.decode.table(_TABLE)
        self._room = steps.batch_tokens or math.inf
        self._outside_s = steps.outside_s
        self._slots = math.inf if slots is None else slots
        self._prefill_s, self._prompts, self._more = work
        self.first_s, self.done_s = first_s, done_s
        self._ended = ended
        self._clock = 0  # tokens that each request that decodes has been given
        self._decoding: list[tuple[int, int]] = []
        self._waiting: deque[list[int]] = deque()  # [request, tokens of its prompt that are not computed]
        self._doing: list[int] = []  # whose prompt ends with the step
        self._begun_s = 0.0
        self._step_s = 0.0
        self._steps = 0  # alike, from _begun_s on; 0: idle

    @property
    def outstanding(self) -> int:
        """Requests that wait or are served."""
        return len(self._decoding) + len(self._waiting) + len(self._doing)

    @property
    def next_s(self) -> float:
        """When something ends; infinity while it is idle."""
        return self._begun_s + self._steps * self._step_s if self._steps else math.inf

    def arrive(self, request: int, at_s: float) -> None:
        self.advance(at_s)
        self._waiting.append([request, self._prompts[request]])
        if not self._steps:
            self._begin(at_s)
        elif self._steps > 1 and len(self._decoding) < self._slots:
            # It joins at the end of the step that runs.
            self._steps = min(self._steps, max(1, math.ceil((at_s - self._begun_s) / self._step_s - 1e-9)))

    def advance(self, until_s: float) -> None:
        """Let time pass, through all steps that end by `until_s`."""
        while self._steps and (end_s := self._begun_s + self._steps * self._step_s) <= until_s:
            self._finish(end_s)
            self._begin(end_s)

    def _begin(self, at_s: float) -> None:
        decoding = len(self._decoding)
        room, prefill_s = self._room - decoding, 0.0
        self._doing = []
        chunks = 0
        while self._waiting and room > 0 and decoding + chunks < self._slots:
            request, left = self._waiting[0]
            taken = int(min(left, room))
            prefill_s += self._prefill_s[request] * taken / max(1, self._prompts[request])
            room -= taken
            chunks += 1
            if taken < left:
                self._waiting[0][1] = left - taken
                break
            self._waiting.popleft()
            self._doing.append(request)
        together = decoding + chunks
        if not together:
            self._steps = 0
            return
        while together >= len(self._table):
            self._table = self._seconds.table(2 * len(self._table))
        self._begun_s, self._step_s = at_s, self._table[together] + prefill_s
        self._steps = 1 if chunks else self._decoding[0][0] - self._clock

    def _finish(self, now_s: float) -> None:
        self._clock += self._steps
        while self._decoding and self._decoding[0][0] <= self._clock:
            self._done(heappop(self._decoding)[1], now_s)
        for request in self._doing:
            self.first_s[request] = now_s + self._outside_s
            if self._more[request] > 0:
                heappush(self._decoding, (self._clock + self._more[request], request))
            else:
                self._done(request, now_s)
        self._doing = []

    def _done(self, request: int, now_s: float) -> None:
        self.done_s[request] = now_s + self._outside_s
        self._ended(request, now_s)


def closed_loop(steps: Steps, slots: int | None, work: tuple[list[float], list[int], list[int]], streams: int) -> tuple[list[float], list[float]]:
    """Times to the first and to the last token of requests that `streams` clients send, each when its last one is answered: for the fit of `steps`."""
    count = len(work[0])
    first_s, done_s, sent_s = [0.0] * count, [0.0] * count, [0.0] * count
    coming: deque[tuple[float, int]] = deque((0.0, request) for request in range(min(streams, count)))
    sent = len(coming)

    def ended(_: int, now_s: float) -> None:
        nonlocal sent
        if sent < count:
            coming.append((now_s + steps.outside_s, sent))
            sent += 1

    replica = StepReplica(steps, slots, work, first_s, done_s, ended)
    while coming or replica.next_s < math.inf:
        if coming and coming[0][0] <= replica.next_s:
            at_s, request = coming.popleft()
            sent_s[request] = at_s
            replica.arrive(request, at_s)
        else:
            replica.advance(replica.next_s)
    return [first - sent for first, sent in zip(first_s, sent_s, strict=True)], [done - sent for done, sent in zip(done_s, sent_s, strict=True)]

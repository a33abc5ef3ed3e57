"""What both endpoints' translations share: sampling parameters, counts, and JSON written fast.

Pure: no clock, no randomness, no input or output; what varies comes in a `Ticket`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from openai.types import CompletionUsage

from engine import FinishReason, SamplingParams, TokenEvent, TokenLogprob
from server.schemas.common import GenerationBody

LEAST_LOGPROB = -9999.0  # what OpenAI tells for a token that has next to no probability; JSON has no infinity
LEAST_TOP_P = 1e-9  # top_p 0 is valid on the wire, and means the most probable token alone
SEED_RANGE = 1 << 64

# ASCII only: some clients take U+2028 or U+0085 inside an event for the end of its line.
encode_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What the server adds to a body: the answer's identity, and what the body left open.

    `created_s` is wall-clock seconds since the epoch; `seed` serves where the body has none.
    """

    answer_id: str
    created_s: float
    model_id: str
    fingerprint: str
    seed: int

    def head(self, kind: str) -> dict[str, object]:
        """The fields that open every answer and every chunk of the object type `kind`."""
        return {
            "id": self.answer_id,
            "object": kind,
            "created": int(self.created_s),
            "model": self.model_id,
            "system_fingerprint": self.fingerprint,
        }


@dataclass(slots=True, kw_only=True)
class GatheredChoice:
    """What the events of one choice have brought so far."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    text_offsets: list[int] = field(default_factory=list)
    num_chars: int = 0
    finish_reason: FinishReason | None = None

    def add(self, event: TokenEvent) -> None:
        """Take the next event of this choice."""
        self.texts.append(event.text)
        self.token_ids.extend(event.token_ids)
        self.logprobs.extend(event.logprobs)
        self.text_offsets.extend(text_offsets(event, self.num_chars))
        self.num_chars += len(event.text)
        self.finish_reason = event.finish_reason or self.finish_reason

    @property
    def text(self) -> str:
        """The whole text so far."""
        return "".join(self.texts)


class Tally:
    """Counts the tokens of an answer: each prompt once, each choice's output."""

    def __init__(self, prompts: Sequence[Sequence[int]]) -> None:
        self._num_prompt_tokens = sum(map(len, prompts))
        self._num_output_tokens: dict[int, int] = {}

    def count(self, index: int, event: TokenEvent) -> None:
        """Take the count that the newest event of the choice `index` carries."""
        self._num_output_tokens[index] = event.num_output_tokens

    def usage(self) -> CompletionUsage:
        """The counts, as the wire shows them."""
        num_output_tokens = sum(self._num_output_tokens.values())
        return CompletionUsage(
            prompt_tokens=self._num_prompt_tokens,
            completion_tokens=num_output_tokens,
            total_tokens=self._num_prompt_tokens + num_output_tokens,
        )


def to_sampling(body: GenerationBody, *, max_tokens: int, has_logprobs: bool, seed: int) -> SamplingParams:
    """The engine's parameters; `max_tokens` and `seed` are what the endpoint made of the body's."""
    stop = () if body.stop is None else (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    return SamplingParams(
        max_tokens=max_tokens,
        seed=(seed if body.seed is None else body.seed) % SEED_RANGE,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else max(body.top_p, LEAST_TOP_P),
        top_k=max(body.top_k or 0, 0),
        stop=stop,
        ignore_eos=bool(body.ignore_eos),
        logprobs=has_logprobs,
    )


def text_offsets(event: TokenEvent, start: int) -> list[int]:
    """Where the text of each logged token of `event` begins, the event's text beginning at `start`.

    A token that is part of a character has a text of its own length, so the event's end bounds it.
    """
    offsets, here, end = [], start, start + len(event.text)
    for token in event.logprobs:
        offsets.append(min(here, end))
        here += len(token.text)
    return offsets


def bounded_logprob(logprob: float) -> float:
    """`logprob`, or the least that the wire tells."""
    return max(logprob, LEAST_LOGPROB)


def sse_event(payload: str) -> bytes:
    """One server-sent event around ASCII `payload`; JSON has no line breaks, so one data line carries it."""
    return f"data: {payload}\n\n".encode("ascii")

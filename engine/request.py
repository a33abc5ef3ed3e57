"""What a caller asks of the engine, in tokens: `Request`, `SamplingParams`, `FinishReason`.

Frozen values, validated where they are made; they know nothing of HTTP and nothing of scheduling.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from engine.errors import RequestError

MAX_CHOICES = 128
MAX_STOP_STRINGS = 64
SEED_BITS = 64


class FinishReason(StrEnum):
    """Why a choice ended: it was done (end of sequence, or a stop string), or out of tokens."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen, and when to stop.

    `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off; `seed` is always set, so that a
    preempted sequence draws the same tokens again. `logprobs` asks for the log-probability of each
    chosen token, of the raw logits. `ignore_eos` generates on past the end-of-sequence tokens.
    """

    max_tokens: int
    seed: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise RequestError(f"max_tokens is {self.max_tokens}; it must be at least 1", "max_tokens")
        if not 0 <= self.seed < 1 << SEED_BITS:
            raise RequestError(f"seed is {self.seed}; it must fit into {SEED_BITS} bits without sign", "seed")
        if not 0.0 <= self.temperature <= 2.0:
            raise RequestError(f"temperature is {self.temperature}; it must be from 0 to 2", "temperature")
        if not 0.0 < self.top_p <= 1.0:
            raise RequestError(f"top_p is {self.top_p}; it must be above 0 and at most 1", "top_p")
        if self.top_k < 0:
            raise RequestError(f"top_k is {self.top_k}; it must be 0 (off) or more", "top_k")
        if len(self.stop) > MAX_STOP_STRINGS or "" in self.stop:
            raise RequestError(f"stop must be at most {MAX_STOP_STRINGS} strings, none empty", "stop")

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and how to continue it, `num_choices` times independently.

    `request_id` is unique among the requests under way; `arrival_s` is wall-clock seconds since
    the epoch, for logs and order only. Requests share cached prefixes only where `cache_salt` is
    the same.
    """

    request_id: str
    prompt_ids: tuple[int, ...] = field(repr=False)
    sampling: SamplingParams
    num_choices: int = 1
    cache_salt: str = ""
    arrival_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise RequestError("the prompt has no tokens; it needs at least one", "prompt")
        if not 1 <= self.num_choices <= MAX_CHOICES:
            raise RequestError(f"n is {self.num_choices}; it must be from 1 to {MAX_CHOICES}", "n")

    @property
    def max_total_tokens(self) -> int:
        """Most positions one choice may come to occupy: the last token it draws is never computed."""
        return len(self.prompt_ids) + self.sampling.max_tokens

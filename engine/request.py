"""What a caller asks of the engine, in tokens: `Request`, `SamplingParams`, `FinishReason`.

Frozen values, validated where they are made; they know nothing of HTTP and nothing of scheduling.
Errors name the parameter as a caller writes it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from math import inf

from engine.errors import RequestError

MAX_CHOICES = 128
MAX_STOP_STRINGS = 64
MAX_STOP_IDS = 256
MAX_BIASES = 1024
MAX_BAD_WORDS = 1024
MAX_BREAKERS = 256
MAX_IDS_IN_A_WORD = 256
MAX_GRAMMAR_CHARS = 1 << 18
MAX_PRIORITY = 100  # so that ageing makes up for the largest difference within hours, not years
SEED_BITS = 64
LEAST_TEMPERATURE = 1e-5
"""Below this a temperature counts as 0: logits in single precision, divided by it, would soon overflow."""


class FinishReason(StrEnum):
    """Why a choice ended: it was done (a token or a string that ends it), or out of tokens."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen, and when to stop.

    Off is: `temperature` 0 (greedy, as is all below `LEAST_TEMPERATURE`), `top_k` 0, `top_p` and `typical_p` 1, `min_p` 0, penalties 0,
    `repetition_penalty` 1, `dry_multiplier` 0, `xtc_probability` 0, and every empty tuple. `seed` is
    always set, so that a preempted sequence draws the same tokens again. `dry_range` is how many of
    the newest tokens DRY looks at, 0 for all. `logit_bias` has (id, bias) in order of ids;
    `allowed_ids` are the only ones ever drawn; `bad_words_ids` are token sequences that are never
    completed. What the stages do with them is told in `engine/execution/logits.py`.

    `logprobs` asks for each chosen token's log-probability and rank, of the raw logits, and
    `num_top_logprobs` for as many alternatives beside it; `prompt_logprobs` asks the same for the
    prompt's tokens (None: not at all). With it `max_tokens` may be 0: the prompt is scored, and that
    is all. `ignore_eos` generates on past the end-of-sequence tokens, `stop_token_ids` are further
    ones, and neither ends a choice before it has `min_tokens`. `include_stop` shows the text that
    ended it, `skip_special_tokens` hides special tokens but for `shown_special_ids`, and
    `spaces_between_special_tokens` puts a space between two that are shown side by side.

    `grammar` is what the output must look like, in llguidance's dialect of Lark; "" lets it be anything.

    Two things follow from the rest, and are worked out once, since every step asks: `looks_back` says
    whether what may be drawn depends on the tokens before, each of which must then be known, and
    `edits_logits` whether single logits change before the draw.
    """

    max_tokens: int
    seed: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_sequence_breaker_ids: tuple[tuple[int, ...], ...] = ()
    dry_range: int = 0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_ids: tuple[int, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: bool = False
    num_top_logprobs: int = 0
    prompt_logprobs: int | None = None
    include_stop: bool = False
    skip_special_tokens: bool = True
    shown_special_ids: tuple[int, ...] = ()
    spaces_between_special_tokens: bool = True
    grammar: str = field(default="", repr=False)
    looks_back: bool = field(init=False, repr=False, compare=False)
    edits_logits: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, (is_within, limit) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not is_within(value):
                param = _WIRE_NAMES.get(name, name)
                raise RequestError(f"{param} is {value}; it must be {limit}", param)
        self._refuse_long_lists()
        self._refuse_contradictions()
        object.__setattr__(self, "looks_back", self._looks_back())
        edits = self.looks_back or self.logit_bias or self.allowed_ids or self.bad_words_ids
        object.__setattr__(self, "edits_logits", bool(edits))

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature < LEAST_TEMPERATURE

    def _looks_back(self) -> bool:
        return bool(
            self.presence_penalty
            or self.frequency_penalty
            or self.repetition_penalty != 1.0
            or self.dry_multiplier
            or any(len(word) > 1 for word in self.bad_words_ids)
            or self.grammar
        )

    def history_start(self, num_prompt: int, num_tokens: int) -> int:
        """First of the `num_tokens` positions so far whose token the next draw depends on.

        It is `num_tokens` when there is none; the first `num_prompt` tokens are the prompt's.
        """
        start = num_tokens
        if self.presence_penalty or self.frequency_penalty:
            start = num_prompt
        if self.dry_multiplier:
            start = min(start, num_tokens - self.dry_range if self.dry_range else 0)
        if self.repetition_penalty != 1.0:
            start = 0
        longest = max(map(len, self.bad_words_ids), default=1)
        return max(0, min(start, num_tokens - longest + 1))

    def named_ids(self) -> dict[str, tuple[int, ...]]:
        """Every token id in the parameters, by the parameter's name on the wire."""
        return {
            "logit_bias": tuple(token_id for token_id, _ in self.logit_bias),
            "allowed_token_ids": self.allowed_ids,
            "bad_words": tuple(token_id for word in self.bad_words_ids for token_id in word),
            "stop_token_ids": self.stop_token_ids,
            "dry_sequence_breakers": tuple(
                token_id for breaker in self.dry_sequence_breaker_ids for token_id in breaker
            ),
        }

    def _refuse_long_lists(self) -> None:
        """RequestError for too many of something, or for one that is empty."""
        if len(self.stop) > MAX_STOP_STRINGS or "" in self.stop:
            raise RequestError(f"stop must be at most {MAX_STOP_STRINGS} strings, none empty", "stop")
        if len(self.stop_token_ids) > MAX_STOP_IDS:
            raise RequestError(f"stop_token_ids must be at most {MAX_STOP_IDS} ids", "stop_token_ids")
        biased = [token_id for token_id, _ in self.logit_bias]
        if len(biased) > MAX_BIASES or not all(-100 <= bias <= 100 for _, bias in self.logit_bias):
            raise RequestError(
                f"logit_bias must be at most {MAX_BIASES} values, each from -100 to 100", "logit_bias"
            )
        if not all(first < second for first, second in pairwise(biased)):
            raise RequestError("logit_bias must name each id once, in ascending order", "logit_bias")
        if len(self.grammar) > MAX_GRAMMAR_CHARS:
            raise RequestError(
                f"the constraint on the output is a grammar of {len(self.grammar)} characters; "
                f"at most {MAX_GRAMMAR_CHARS} are taken",
                "grammar",
            )
        _refuse_words(self.bad_words_ids, MAX_BAD_WORDS, "bad_words")
        _refuse_words(self.dry_sequence_breaker_ids, MAX_BREAKERS, "dry_sequence_breakers")

    def _refuse_contradictions(self) -> None:
        """RequestError for parameters that are right by themselves, but not together."""
        if self.max_tokens == 0 and self.prompt_logprobs is None:
            raise RequestError(
                "max_tokens is 0; it must be at least 1 unless prompt_logprobs is set", "max_tokens"
            )
        if self.min_tokens > self.max_tokens:
            limit = f"it must be at most max_tokens, {self.max_tokens}"
            raise RequestError(f"min_tokens is {self.min_tokens}; {limit}", "min_tokens")
        if self.num_top_logprobs and not self.logprobs:
            raise RequestError(f"top_logprobs is {self.num_top_logprobs}; it needs logprobs", "top_logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and how to continue it, `num_choices` times independently.

    `request_id` is unique among the requests under way; `arrival_s` is wall-clock seconds since
    the epoch, for logs only. Requests share cached prefixes only where `cache_salt` is the same.
    `caller` says whose it is, without telling the key: callers share what is served fairly. Of one
    caller's requests that wait, those of lower `priority` come first, and of equals those that
    arrived first; waiting makes up for priority in time. With a `timeout_s` it
    ends with an error so long after it was submitted. `wants_prefix_report` asks to be told what the prefix cache knew.
    """

    request_id: str
    prompt_ids: tuple[int, ...] = field(repr=False)
    sampling: SamplingParams
    num_choices: int = 1
    cache_salt: str = ""
    arrival_s: float = 0.0
    caller: str = ""
    priority: int = 0
    timeout_s: float | None = None
    wants_prefix_report: bool = False

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise RequestError("the prompt has no tokens; it needs at least one", "prompt")
        if not 1 <= self.num_choices <= MAX_CHOICES:
            raise RequestError(f"n is {self.num_choices}; it must be from 1 to {MAX_CHOICES}", "n")
        if self.timeout_s is not None and not 0 < self.timeout_s < inf:
            raise RequestError(f"timeout is {self.timeout_s}; it must be above 0 s, and finite", "timeout")
        if abs(self.priority) > MAX_PRIORITY:
            limits = f"from {-MAX_PRIORITY} to {MAX_PRIORITY}"
            raise RequestError(f"priority is {self.priority}; it must be {limits}", "priority")

    @property
    def max_total_tokens(self) -> int:
        """Most positions one choice may come to occupy: the last token it draws is never computed."""
        return len(self.prompt_ids) + self.sampling.max_tokens

    def refuse_foreign_ids(self, vocab_size: int) -> None:
        """RequestError if the prompt or a parameter names a token id outside the vocabulary."""
        for param, token_ids in {"prompt": self.prompt_ids, **self.sampling.named_ids()}.items():
            if not token_ids:
                continue
            lowest, highest = min(token_ids), max(token_ids)
            if lowest < 0 or highest >= vocab_size:
                wrong, last = lowest if lowest < 0 else highest, vocab_size - 1
                raise RequestError(
                    f"token id {wrong} is not in the vocabulary; ids go from 0 to {last}", param
                )


def _refuse_words(words: tuple[tuple[int, ...], ...], limit: int, param: str) -> None:
    if len(words) > limit or not all(0 < len(word) <= MAX_IDS_IN_A_WORD for word in words):
        raise RequestError(f"{param} must be at most {limit}, each of 1 to {MAX_IDS_IN_A_WORD} tokens", param)


# Comparisons are written so that no "not a number" passes.
_LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "max_tokens": (lambda value: value >= 0, "at least 0"),
    "seed": (lambda value: 0 <= value < 1 << SEED_BITS, f"from 0 and fit into {SEED_BITS} bits without sign"),
    "temperature": (lambda value: 0 <= value <= 2, "from 0 to 2"),
    "top_p": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "top_k": (lambda value: value >= 0, "0 (off) or more"),
    "min_p": (lambda value: 0 <= value <= 1, "from 0 (off) to 1"),
    "typical_p": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "presence_penalty": (lambda value: -2 <= value <= 2, "from -2 to 2"),
    "frequency_penalty": (lambda value: -2 <= value <= 2, "from -2 to 2"),
    "repetition_penalty": (lambda value: 0.01 <= value <= 100, "from 0.01 to 100; 1 is off"),
    "dry_multiplier": (lambda value: 0 <= value <= 100, "from 0 (off) to 100"),
    "dry_base": (lambda value: 1 <= value <= 1000, "from 1 to 1000"),
    "dry_allowed_length": (lambda value: value >= 0, "0 or more"),
    "dry_range": (lambda value: value >= 0, "0 (the whole context) or more"),
    "xtc_probability": (lambda value: 0 <= value <= 1, "from 0 (off) to 1"),
    "xtc_threshold": (lambda value: 0 <= value <= 1, "from 0 to 1"),
    "min_tokens": (lambda value: value >= 0, "0 or more"),
    "num_top_logprobs": (lambda value: value >= 0, "0 or more"),
    "prompt_logprobs": (lambda value: value >= 0, "0 or more"),
}
_WIRE_NAMES = {
    "dry_range": "dry_penalty_last_n",
    "dry_sequence_breaker_ids": "dry_sequence_breakers",
    "allowed_ids": "allowed_token_ids",
    "bad_words_ids": "bad_words",
    "num_top_logprobs": "top_logprobs",
}

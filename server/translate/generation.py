"""What both endpoints' translations share: the answer's identity, counts, and JSON written fast.

Pure: no clock, no randomness, no input or output; what varies comes in a `Ticket`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from json.encoder import encode_basestring_ascii
from math import inf
from statistics import fmean

from engine import FinishReason, PrefixReport, TokenEvent, TokenLogprob
from server.schemas.answers import (
    CacheDebug,
    CompletionTokensDetails,
    CompletionUsage,
    PromptTokensDetails,
)

# ASCII only: some clients take U+2028 or U+0085 inside an event for the end of its line.
encode_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What the server adds to a body: the answer's identity, and what the body left open.

    `created_s` is wall-clock seconds since the epoch; `seed` serves where the body has none.
    `max_timeout_s` is the most time that any request gets, None for no limit.
    """

    answer_id: str
    created_s: float
    model_id: str
    fingerprint: str
    seed: int
    caller: str = ""
    max_timeout_s: float | None = None

    def timeout_s(self, asked: float | None) -> float | None:
        """The time of a request that asks for so much; None for as long as it takes."""
        return min((limit for limit in (asked, self.max_timeout_s) if limit is not None), default=None)

    def head(self, kind: str) -> dict[str, object]:
        """The fields that open every answer and every chunk of the object type `kind`."""
        return {
            "id": self.answer_id,
            "object": kind,
            "created": int(self.created_s),
            "model": self.model_id,
            "system_fingerprint": self.fingerprint,
        }

    def prompt_seed(self, index: int) -> int:
        """The seed of the body's prompt `index`, so that equal prompts are answered differently."""
        return int.from_bytes(sha256(f"{self.seed} {index}".encode()).digest()[:8])


@dataclass(slots=True, kw_only=True)
class GatheredChoice:
    """What the events of one choice have brought so far."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    text_offsets: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
    prefix_report: PrefixReport | None = None

    def add(self, event: TokenEvent) -> None:
        """Take the next event of this choice."""
        self.texts.append(event.text)
        self.token_ids.extend(event.token_ids)
        self.logprobs.extend(event.logprobs)
        self.text_offsets.extend(event.text_offsets)
        self.finish_reason = event.finish_reason or self.finish_reason
        self.prompt_logprobs = self.prompt_logprobs or event.prompt_logprobs
        self.prefix_report = self.prefix_report or event.prefix_report

    def mean_logprob(self) -> float:
        """How probable the choice is, for each of its tokens; that of no tokens is the least."""
        return fmean(token.logprob for token in self.logprobs) if self.logprobs else -inf

    @property
    def text(self) -> str:
        """The whole text so far."""
        return "".join(self.texts)


class Tally:
    """Counts the tokens of an answer: each prompt once, each choice's output."""

    def __init__(self, prompts: Sequence[Sequence[int]]) -> None:
        self._num_prompt_tokens = sum(map(len, prompts))
        self._num_output_tokens: dict[int, int] = {}
        self._num_cached_tokens: dict[int, int] = {}
        self._num_reasoning_tokens: dict[int, int] = {}

    def count(self, index: int, event: TokenEvent) -> None:
        """Take the count that the newest event of the choice `index` carries."""
        self._num_output_tokens[index] = event.num_output_tokens
        if event.choice == 0:
            self._num_cached_tokens[index] = event.num_cached_tokens

    def count_reasoning(self, index: int, num_tokens: int) -> None:
        """Of the tokens of the choice `index`, so many are reasoning so far."""
        self._num_reasoning_tokens[index] = num_tokens

    def counts(self) -> tuple[int, int]:
        """Tokens of the prompts, and tokens generated so far."""
        return self._num_prompt_tokens, sum(self._num_output_tokens.values())

    def usage(self) -> CompletionUsage:
        """The counts, as the wire shows them."""
        num_prompt_tokens, num_output_tokens = self.counts()
        return CompletionUsage(
            prompt_tokens=num_prompt_tokens,
            completion_tokens=num_output_tokens,
            total_tokens=num_prompt_tokens + num_output_tokens,
            prompt_tokens_details=PromptTokensDetails(
                cached_tokens=sum(self._num_cached_tokens.values()), audio_tokens=0
            ),
            completion_tokens_details=CompletionTokensDetails(
                reasoning_tokens=sum(self._num_reasoning_tokens.values()),
                audio_tokens=0,
                accepted_prediction_tokens=0,
                rejected_prediction_tokens=0,
            ),
        )


def usage_member(tally: Tally) -> str:
    """The member `usage` of a chunk, with the counts so far, as JSON text behind a comma."""
    return f',"usage":{encode_json(tally.usage().model_dump(exclude_unset=True))}'


def cache_debug(report: PrefixReport) -> CacheDebug:
    """What the prefix cache knew of a prompt, as the wire shows it."""
    return CacheDebug(
        matched_tokens=report.num_matched_tokens,
        block_size=report.block_size,
        miss_reason=None if report.miss_reason is None else report.miss_reason.value,
        first_missing_block=report.first_missing_block,
        evicted_s_ago=None if report.evicted_s_ago is None else round(report.evicted_s_ago, 3),
    )


class TextMould:
    """Makes events that differ in an index and a text alone, as nearly all of an answer's chunks do.

    With before '{"index":', between ',"text":' and behind '}' there comes 'data: {"index":0,"text":"a"}'.
    """

    def __init__(self, before: str, between: str, behind: str) -> None:
        self._before = f"data: {before}"
        self._between = between
        self._behind = f"{behind}\n\n"

    def event(self, index: int, text: str) -> bytes:
        """The server-sent event of this text."""
        told = encode_basestring_ascii(text)
        return f"{self._before}{index}{self._between}{told}{self._behind}".encode("ascii")


def sse_event(payload: str) -> bytes:
    """One server-sent event around ASCII `payload`; JSON has no line breaks, so one data line carries it."""
    return f"data: {payload}\n\n".encode("ascii")

"""A body's parameters as the engine's: `SamplingParams`, strings turned into tokens.

Pure but for the tokenizer that it is given. It knows no endpoint: what these name differently, or
decide for themselves, comes in `Wanted`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine import SamplingParams
from server.schemas.generation import GenerationBody

LEAST_TOP_P = 1e-9  # top_p 0 is valid on the wire, and means the most probable token alone
SEED_RANGE = 1 << 64
DRY_BREAKERS = ("\n", ":", '"', "*")
"""Over these DRY does not look back unless a body says otherwise; the author's own defaults."""


class Encoder(Protocol):
    """What turns short text into token ids."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Sequence[int]:
        """Token ids of `text`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an endpoint made of a body: limits, and which log-probabilities its answer needs.

    `seed` serves where the body has none; `prompt_logprobs` None asks for no scores of the prompt;
    `grammar` "" leaves the answer free.
    """

    max_tokens: int
    seed: int
    logprobs: bool = False
    num_top_logprobs: int = 0
    prompt_logprobs: int | None = None
    grammar: str = ""


def to_sampling(body: GenerationBody, wanted: Wanted, encoder: Encoder) -> SamplingParams:
    """The engine's parameters; raises RequestError for what only the engine's own types refuse."""
    stop = () if body.stop is None else (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    return SamplingParams(
        max_tokens=wanted.max_tokens,
        seed=(wanted.seed if body.seed is None else body.seed) % SEED_RANGE,
        temperature=_or(body.temperature, 1.0),
        top_p=max(_or(body.top_p, 1.0), LEAST_TOP_P),
        top_k=max(body.top_k or 0, 0),
        min_p=_or(body.min_p, 0.0),
        typical_p=_or(body.typical_p, 1.0),
        presence_penalty=_or(body.presence_penalty, 0.0),
        frequency_penalty=_or(body.frequency_penalty, 0.0),
        repetition_penalty=_or(body.repetition_penalty, 1.0),
        dry_multiplier=0.0 if body.dry_penalty_last_n == 0 else _or(body.dry_multiplier, 0.0),
        dry_base=_or(body.dry_base, 1.75),
        dry_allowed_length=body.dry_allowed_length or 2,
        dry_sequence_breaker_ids=_breakers(body, encoder),
        dry_range=max(body.dry_penalty_last_n or 0, 0),
        xtc_probability=_or(body.xtc_probability, 0.0),
        xtc_threshold=_or(body.xtc_threshold, 0.1),
        logit_bias=_biases(body),
        allowed_ids=tuple(sorted(set(body.allowed_token_ids or ()))),
        bad_words_ids=_bad_words(body.bad_words or (), encoder),
        min_tokens=body.min_tokens or 0,
        stop=stop,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        logprobs=wanted.logprobs,
        num_top_logprobs=wanted.num_top_logprobs,
        prompt_logprobs=wanted.prompt_logprobs,
        grammar=wanted.grammar,
        include_stop=bool(body.include_stop_str_in_output),
        skip_special_tokens=body.skip_special_tokens is not False,
        spaces_between_special_tokens=body.spaces_between_special_tokens is not False,
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _biases(body: GenerationBody) -> tuple[tuple[int, float], ...]:
    """In order of ids; of two spellings of one id ("7" and "07"), the last counts."""
    biases = {int(key): bias for key, bias in (body.logit_bias or {}).items()}
    return tuple(sorted(biases.items()))


def _bad_words(words: Iterable[str], encoder: Encoder) -> tuple[tuple[int, ...], ...]:
    """Each word as it is spelled at the start of a text and, where that differs, behind a space."""
    spellings = (spelling for word in words for spelling in (word, f" {word.lstrip(' ')}"))
    return _encoded(spellings, encoder)


def _breakers(body: GenerationBody, encoder: Encoder) -> tuple[tuple[int, ...], ...]:
    """None at all while DRY is off."""
    if not body.dry_multiplier:
        return ()
    return _encoded(_or_list(body.dry_sequence_breakers, DRY_BREAKERS), encoder)


def _or_list(given: Sequence[str] | None, default: Sequence[str]) -> Sequence[str]:
    return default if given is None else given


def _encoded(texts: Iterable[str], encoder: Encoder) -> tuple[tuple[int, ...], ...]:
    encoded = (tuple(encoder.encode(text, add_special_tokens=False)) for text in texts)
    return tuple(dict.fromkeys(ids for ids in encoded if ids))

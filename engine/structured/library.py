"""The library that follows grammars, `llguidance`, set up for one vocabulary.

Importing it costs some 80 ms and 10 MiB, and its view of a vocabulary another few tenths of a second, so
this module is imported with the first grammar, by a thread beside the loop. It knows no sequences.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import llguidance

from engine.errors import RequestError
from engine.messages import Vocabulary
from engine.structured.blame import blamed_path

LIMITS = llguidance.LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
"""The library's own bounds on time, a few tens of milliseconds at each place, and a fifth of its states: 100 MB."""

FREE_SPELLING = '\n%llguidance {"no_forcing": true}\n'
"""Lets the model spell what a grammar forces with tokens of its choice; the library has no encoder to ask."""

MAX_REASON_CHARS = 400
_POSITION = re.compile(r"^at \d+\(\d+\): ")


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A vocabulary in the shape that the library reads."""

    tokens: list[bytes]
    special_token_ids: list[int]
    eos_token_id: int
    bos_token_id: None = None

    def __call__(self, _: bytes | str) -> Sequence[int]:
        """Never of use with `FREE_SPELLING`."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """The vocabulary as the library sees it, and the threads on which it fills masks of several rows."""

    tokenizer: llguidance.LLTokenizer
    executor: llguidance.LLExecutor

    @classmethod
    def open(
        cls, vocabulary: Vocabulary, *, vocab_size: int, eos_ids: tuple[int, ...], num_threads: int
    ) -> "Library":
        """Take in a vocabulary of which the model has `vocab_size` ids, some perhaps without a token.

        A model without an end of sequence gets one more id for it, which is no column of its logits.
        """
        tokens = [*vocabulary.token_bytes[:vocab_size]]
        tokens += [b""] * (vocab_size - len(tokens) + (not eos_ids))
        ends = list(eos_ids or (vocab_size,))
        special_ids = {*(one for one in vocabulary.special_ids if one < vocab_size), *ends}
        shape = llguidance.TokenizerWrapper(_Tokens(tokens, sorted(special_ids), ends[0]))
        return cls(
            tokenizer=llguidance.LLTokenizer(shape, n_vocab=len(tokens), eos_token=ends),
            executor=llguidance.LLExecutor(num_threads),
        )

    def compile(self, grammar: str) -> llguidance.LLMatcher:
        """The grammar at its start, to be copied; RequestError with the library's reason."""
        matcher = llguidance.LLMatcher(self.tokenizer, grammar + FREE_SPELLING, log_level=0, limits=LIMITS)
        if matcher.is_error():
            raise RequestError(
                f"the constraint on the output cannot be compiled: {_reason(matcher, grammar)}", "grammar"
            )
        return matcher


def _reason(matcher: llguidance.LLMatcher, grammar: str) -> str:
    """The library's message, without the lines of the grammar that it quotes, and which schema it means."""
    path = blamed_path(grammar, partial(llguidance.LLMatcher.validate_grammar, limits=LIMITS))
    lines = matcher.get_error().splitlines()
    told = " ".join(line.strip() for line in lines if line.strip() and not _quotes(line))[:MAX_REASON_CHARS]
    return told if path is None else f"{_POSITION.sub('', told)} (in the schema at {path})"


def _quotes(line: str) -> bool:
    number, bar, _ = line.partition("|")
    return (bool(bar) and number.strip().isdigit()) or not line.strip(" ^")

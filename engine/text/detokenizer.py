"""Token ids to text, while they arrive: what of a choice's text may be shown now.

`ChoiceText` holds back what may yet be the start of a stop string, and characters whose bytes are not
all there. Text, ids and log-probabilities are held back together and released together, by whole
tokens. It knows nothing of who asked, and not why a choice ends.
"""

import codecs
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from engine.request import SamplingParams
from engine.text.token_logprob import TokenLogprob, name_tokens
from engine.token_scores import TokenScores

if TYPE_CHECKING:
    from engine.text.tokenizer import Tokenizer


class Delta(NamedTuple):
    """What may be shown after some tokens arrived, possibly nothing.

    `logprobs` has an entry for each of `token_ids` where they were asked for, else none, and `text_offsets`
    as many: where in the choice's text each begins, in characters. Tokens that make up one character begin
    together. After `is_stopped` there is nothing more to come.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    is_stopped: bool
    text_offsets: tuple[int, ...] = ()


class _HeldToken(NamedTuple):
    """A token whose text, characters [start, end) of the choice, is not released yet."""

    token_id: int
    logprob: TokenLogprob | None
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRules:
    """What of a choice's tokens becomes text, and which text ends it.

    `silent_ids` have no text. `spaced_ids` are special tokens between which, where two stand side by
    side, a space is put. A stop string that is complete within the first `min_tokens` tokens ends
    nothing; the one that is found is shown if `shows_stop`.
    """

    stop: tuple[str, ...] = ()
    silent_ids: frozenset[int] = frozenset()
    spaced_ids: frozenset[int] = frozenset()
    min_tokens: int = 0
    shows_stop: bool = False

    @classmethod
    def of(
        cls, sampling: SamplingParams, special_ids: frozenset[int], eos_ids: frozenset[int]
    ) -> "TextRules":
        """The rules that a request asks for, with the special tokens and the ends of its model.

        A token that ends a choice has no text unless the caller wants to see what ended it; where
        special tokens are hidden, they and the ends of sequence never have any, but for those that
        the request wants to see all the same.
        """
        special_ids = special_ids | eos_ids
        ending_ids = frozenset(sampling.stop_token_ids)
        if not sampling.ignore_eos:
            ending_ids |= eos_ids
        hidden_ids = special_ids if sampling.skip_special_tokens else frozenset()
        hidden_ids -= frozenset(sampling.shown_special_ids)
        are_spaced = sampling.spaces_between_special_tokens and not sampling.skip_special_tokens
        return cls(
            stop=sampling.stop,
            silent_ids=hidden_ids if sampling.include_stop else hidden_ids | ending_ids,
            spaced_ids=special_ids if are_spaced else frozenset(),
            min_tokens=sampling.min_tokens,
            shows_stop=sampling.include_stop,
        )


class Detokenizer:
    """Token ids to text, one at a time; a character appears when its last byte has arrived.

    Bytes that can never become a character come out as U+FFFD, at most three bytes late. `open_bytes` are
    those of the next character that have arrived.
    """

    def __init__(self, tokenizer: "Tokenizer", rules: TextRules) -> None:
        self.open_bytes = b""
        self._tokenizer = tokenizer
        self._rules = rules
        self._follows_special = False

    def feed(self, token_id: int) -> str:
        """The text that this token completes."""
        if token_id in self._rules.silent_ids:
            return ""
        arrived = self.open_bytes
        is_spaced = token_id in self._rules.spaced_ids
        if is_spaced and self._follows_special:
            arrived += b" "
        self._follows_special = is_spaced
        arrived += self._tokenizer.token_bytes(token_id)
        text, num_used = codecs.utf_8_decode(arrived, "replace", False)
        self.open_bytes = arrived[num_used:]
        return text

    def finish(self) -> str:
        """What remains when no more tokens come: U+FFFD for an incomplete character."""
        text, _ = codecs.utf_8_decode(self.open_bytes, "replace", True)
        self.open_bytes = b""
        return text


class StopMatcher:
    """Looks for several strings at once in text that arrives in pieces.

    The first string to be complete is the match, whichever way the text was cut; of several that
    are complete at the same character, the longest.

        stops ("ab", "bcd")    text  x b c  -> nothing, held 2    then  a b  -> "ab" found, 2 long

    Source: Aho and Corasick 1975: one state per prefix of a stop string, so a character costs about
    one look-up however many strings there are.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._found = [0]
        for stop in stops:
            self._add(stop)
        self._fallback = [0] * len(self._next)
        self._link()
        self._state = 0

    @property
    def num_held(self) -> int:
        """How many of the last characters may be the start of a stop string."""
        state = self._state
        while state and not self._next[state]:  # a whole one, which was ignored
            state = self._fallback[state]
        return self._depth[state]

    def feed(self, text: str, *, is_ignored: bool = False) -> tuple[int, int] | None:
        """The first stop string to be complete: the offset just behind it in `text`, and its length.

        Nothing may be fed after a match. What is complete in text that `is_ignored` is no match, but may
        be the start of a later one.
        """
        if len(self._next) == 1:
            return None
        state = self._state
        for offset, character in enumerate(text, 1):
            while state and character not in self._next[state]:
                state = self._fallback[state]
            state = self._next[state].get(character, 0)
            if self._found[state] and not is_ignored:
                return offset, self._found[state]
        self._state = state
        return None

    def _add(self, stop: str) -> None:
        state = 0
        for character in stop:
            following = self._next[state].setdefault(character, len(self._next))
            if following == len(self._next):
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._found.append(0)
            state = following
        self._found[state] = len(stop)

    def _link(self) -> None:
        """Give each state its fallback: the longest other prefix that its text ends with."""
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for character, following in self._next[state].items():
                fallback = self._fallback[state]
                while fallback and character not in self._next[fallback]:
                    fallback = self._fallback[fallback]
                self._fallback[following] = self._next[fallback].get(character, 0)
                self._found[following] = self._found[following] or self._found[self._fallback[following]]
                waiting.append(following)


class ChoiceText:
    """The text of one choice as its tokens arrive.

    Tokens without text are released with their ids all the same. A sentencepiece vocabulary's space
    before the first word stays: a choice continues a prompt, it does not begin a text.
    """

    def __init__(self, tokenizer: "Tokenizer", rules: TextRules) -> None:
        self.num_tokens = 0
        self._tokenizer = tokenizer
        self._rules = rules
        self._detokenizer = Detokenizer(tokenizer, rules)
        self._matcher = StopMatcher(rules.stop)
        self._held_text = ""
        self._held_tokens: deque[_HeldToken] = deque()
        self._num_released = 0
        self._is_ended = False

    def feed(self, token_ids: Sequence[int], logprobs: TokenScores | None) -> Delta:
        """Take the choice's next tokens; `logprobs`, where asked for, has an entry for each.

        Tokens behind the one that completes a stop string are ignored. Nothing may be fed after
        `flush`, or after a delta that `is_stopped`.
        """
        assert not self._is_ended, "a choice got tokens after its end"
        if logprobs is None and len(token_ids) == 1 and not (self._rules.stop or self._held_tokens):
            return self._feed_plain(token_ids[0])
        named = None if logprobs is None else name_tokens(self._tokenizer, token_ids, logprobs)
        for index, token_id in enumerate(token_ids):
            self.num_tokens += 1
            shown_end = self._take(token_id, None if named is None else named[index])
            if shown_end is not None:
                return self._end(shown_end, is_stopped=True)
        safe = self._num_released + len(self._held_text) - self._matcher.num_held
        held, ready = self._held_tokens, []
        while held and held[0].end <= safe:
            ready.append(held.popleft())
        return self._release(ready, ready[-1].end if ready else self._num_released, is_stopped=False)

    def _feed_plain(self, token_id: int) -> Delta:
        """As `feed` of one token, where nothing is held and no stop string is looked for: nearly always."""
        start = self._num_released
        self.num_tokens += 1
        text = self._detokenizer.feed(token_id)
        self._held_text = text
        if self._detokenizer.open_bytes:
            self._held_tokens.append(_HeldToken(token_id, None, start, start + len(text) + 1))
            return self._release((), start, is_stopped=False)
        self._held_text = ""
        self._num_released = start + len(text)
        return Delta(text, (token_id,), (), False)

    def flush(self) -> Delta:
        """The choice has ended by itself: all that was held back, an incomplete character as U+FFFD."""
        assert not self._is_ended, "a choice ended twice"
        shown_end = self._append(self._detokenizer.finish())
        if shown_end is not None:
            return self._end(shown_end, is_stopped=True)
        return self._end(self._num_released + len(self._held_text), is_stopped=False)

    def name_tokens(self, token_ids: Sequence[int], scores: TokenScores) -> tuple[TokenLogprob, ...]:
        """Tokens that are not of this choice, such as its prompt's, with their scores."""
        return name_tokens(self._tokenizer, token_ids, scores)

    def _take(self, token_id: int, logprob: TokenLogprob | None) -> int | None:
        """Hold one more token; where the shown text ends, if a stop string is complete now."""
        start = self._num_released + len(self._held_text)
        text = self._detokenizer.feed(token_id)
        end = start + len(text) + bool(self._detokenizer.open_bytes)
        self._held_tokens.append(_HeldToken(token_id, logprob, start, end))
        return self._append(text)

    def _append(self, text: str) -> int | None:
        num_held = len(self._held_text)
        self._held_text += text
        match = self._matcher.feed(text, is_ignored=self.num_tokens <= self._rules.min_tokens)
        if match is None:
            return None
        behind, length = match
        return self._num_released + num_held + behind - (0 if self._rules.shows_stop else length)

    def _end(self, end: int, *, is_stopped: bool) -> Delta:
        """Release the text up to character `end`, and the tokens that do not lie wholly behind it."""
        self._is_ended = True
        shown = [token for token in self._held_tokens if token.end <= end or token.start < end]
        return self._release(shown, end, is_stopped=is_stopped)

    def _release(self, tokens: Sequence[_HeldToken], end: int, *, is_stopped: bool) -> Delta:
        num_characters = end - self._num_released
        text, self._held_text = self._held_text[:num_characters], self._held_text[num_characters:]
        self._num_released = end
        return Delta(
            text=text,
            token_ids=tuple([token.token_id for token in tokens]),
            logprobs=tuple([token.logprob for token in tokens if token.logprob is not None]),
            is_stopped=is_stopped,
            text_offsets=tuple([token.start for token in tokens if token.logprob is not None]),
        )

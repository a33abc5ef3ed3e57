"""Reasoning blocks: `<think>…</think>` at the beginning of an answer, told apart from the answer itself.

`ReasoningParser` reads one choice as it arrives; `ReasoningTags` say how a model marks its block. What
is never closed is reasoning to its end, and a mark anywhere but at the beginning is text.
"""

from dataclasses import dataclass

from server.tools.feed import Feed, Reading
from server.tools.pieces import Piece, Said, Thought, joined


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """What opens and closes a block; either may be a special token."""

    opening: str
    closing: str


THINK = ReasoningTags("<think>", "</think>")
MISTRAL = ReasoningTags("[THINK]", "[/THINK]")
TAGS = {"think": THINK, "mistral": MISTRAL}


def choose_tags(setting: str, template: str) -> ReasoningTags | None:
    """The tags that `--reasoning-format` names; for `auto` those that the chat template writes or cuts.

    None where there is no reasoning to look for.
    """
    if setting != "auto":
        return TAGS.get(setting)
    return next((tags for tags in TAGS.values() if tags.closing in template), None)


def is_open(tags: ReasoningTags, prompt: str) -> bool:
    """Whether a prompt ends inside a block, so that the answer begins in it."""
    return prompt.rstrip().endswith(tags.opening)


def is_closed(tags: ReasoningTags, prompt: str) -> bool:
    """Whether a prompt ends with a block that is over, as templates write it where thinking is off."""
    return prompt.rstrip().endswith(tags.closing)


class ReasoningParser:
    """Reads the text of one choice into thoughts and words; white space around the block is neither.

    `is_inside` tells whether the text so far ends in the block, `has_block` whether there is or was one.
    """

    def __init__(self, tags: ReasoningTags, *, is_inside: bool) -> None:
        self._feed = Feed()
        self._tags = tags
        self._found: list[Piece] = []
        self.is_inside = is_inside
        self.has_block = is_inside
        self._reading: Reading[None] | None = self._read()

    def feed(self, text: str) -> list[Piece]:
        """What is certain now that `text` has arrived."""
        self._feed.add(text)
        return self._advance()

    def finish(self) -> list[Piece]:
        """What was kept back: no more text comes."""
        self._feed.is_over = True
        return self._advance()

    def _advance(self) -> list[Piece]:
        if self._reading is not None and next(self._reading, self) is self:
            self._reading = None
        found, self._found = self._found, []
        return joined(found)

    def _read(self) -> Reading[None]:
        feed = self._feed
        feed.mark()
        yield from feed.skip()
        if (yield from feed.literal(self._tags.opening)):
            self.is_inside = self.has_block = True
        elif not self.is_inside:
            feed.go_back()
        if self.is_inside:
            if not (yield from self._read_block()):
                return
            self.is_inside = False
            yield from feed.skip()
        while text := (yield from feed.rest()):
            self._found.append(Said(text))

    def _read_block(self) -> Reading[bool]:
        """Whether the block was closed."""
        yield from self._feed.skip()
        blank = ""
        while True:
            text, is_closed = yield from self._feed.until(self._tags.closing)
            kept = text.rstrip()
            if kept:
                self._found.append(Thought(blank + kept))
                blank = ""
            blank += text[len(kept) :]
            self._feed.mark()
            if is_closed:
                return True
            if not text and self._feed.is_over:
                self._found += [Thought(blank)] if blank else []
                return False

"""The text of an answer, taken apart: reasoning, words, calls; and how the wire shows each of them.

`AnswerRules` say how the answers to one body are to be read, and `ChoiceReader` reads one choice by
them, for streamed and whole answers alike.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from engine import FinishReason, TokenEvent
from server.reasoning import ReasoningParser, ReasoningTags
from server.schemas.answers import ChatAnswerMessage, ChatFinishReason, FunctionCall, ToolCall
from server.tools.call_parser import CallParser
from server.tools.formats import ToolFormat
from server.tools.pieces import CallArguments, CallBegun, Piece, Said, Thought, joined
from server.translate.generation import Ticket

SHORT_ID_CHARS, LONG_ID_CHARS = 9, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRules:
    """How the text of an answer is read; None for a format or tags where there is nothing to look for.

    `is_inside` says that the prompt opened a reasoning block, which `closing_ids` close. `is_legacy` is
    for the older function_call, `is_named` for a call that the body itself chose, `is_forced` for answers
    that are calls and nothing else.
    """

    tool_format: ToolFormat | None = None
    names: frozenset[str] = frozenset()
    tags: ReasoningTags | None = None
    is_inside: bool = False
    closing_ids: tuple[int, ...] = ()
    is_legacy: bool = False
    is_named: bool = False
    is_forced: bool = False

    @property
    def are_plain(self) -> bool:
        """Whether all text is what it seems."""
        return self.tool_format is None and self.tags is None


PLAIN_RULES = AnswerRules()


class ChoiceReader:
    """Reads the events of one choice; `num_reasoning_tokens` counts what it took for reasoning."""

    def __init__(self, rules: AnswerRules) -> None:
        self._rules = rules
        self._thoughts = (
            None if rules.tags is None else ReasoningParser(rules.tags, is_inside=rules.is_inside)
        )
        self._calls = None if rules.tool_format is None else CallParser(rules.tool_format.read, rules.names)
        self._token_ids: list[int] = []
        self._is_counting = True
        self.num_reasoning_tokens = 0

    def feed(self, event: TokenEvent) -> list[Piece]:
        """What is certain with this event; all that is left, if it is the last."""
        pieces: list[Piece] = [Said(event.text)] if event.text else []
        is_over = event.finish_reason is not None
        if self._thoughts is not None:
            pieces = self._thoughts.feed(event.text) + (self._thoughts.finish() if is_over else [])
            self._count(self._thoughts, event)
        if self._calls is not None:
            pieces = self._read_calls(self._calls, pieces)
            pieces += self._calls.finish() if is_over else []
        if self._rules.is_forced and event.finish_reason is FinishReason.LENGTH:
            # What is left is the beginning of a call that has no arguments yet; `length` says that it was cut.
            pieces = [piece for piece in pieces if not isinstance(piece, Said)]
        return joined(pieces)

    def finish_reason(self, reason: FinishReason) -> ChatFinishReason:
        """Why the choice ended, as the wire tells it.

        A call that the body chose by name ends with `stop`, as OpenAI's own does (its guide to structured
        outputs calls that an edge case), and so does an answer with a call that came to nothing.
        """
        has_calls = self._calls is not None and self._calls.num_calls > 0 and not self._calls.is_broken
        if reason is not FinishReason.STOP or not has_calls or self._rules.is_named:
            return reason.value
        return "function_call" if self._rules.is_legacy else "tool_calls"

    def _read_calls(self, calls: CallParser, pieces: Sequence[Piece]) -> list[Piece]:
        read: list[Piece] = []
        for piece in pieces:
            read += calls.feed(piece.text) if isinstance(piece, Said) else [piece]
        return read

    def _count(self, thoughts: ReasoningParser, event: TokenEvent) -> None:
        """A block's tokens are those up to the one that closes it; without such a token, up to the event's."""
        self._token_ids += event.token_ids
        if thoughts.is_inside:
            self.num_reasoning_tokens = event.num_output_tokens
        elif thoughts.has_block and self._is_counting:
            self.num_reasoning_tokens = self._num_until_closing(len(self._token_ids) - len(event.token_ids))
            self._is_counting = False

    def _num_until_closing(self, start: int) -> int:
        """Tokens up to the closing mark, which ends at position `start` or later."""
        closing, token_ids = list(self._rules.closing_ids), self._token_ids
        width = len(closing)
        for end in range(max(start, width), len(token_ids) + 1) if width else ():
            if token_ids[end - width : end] == closing:
                return end
        return len(token_ids)


def delta_of(piece: Piece, rules: AnswerRules, ticket: Ticket, choice: int) -> dict[str, object]:
    """What a chunk adds to a message."""
    match piece:
        case Said(text):
            return {"content": text}
        case Thought(text):
            return {"reasoning": text, "reasoning_content": text}
        case CallBegun(index, name):
            function = {"name": name, "arguments": ""}
            if rules.is_legacy:
                return {"function_call": function}
            call_id = call_id_of(rules, ticket, choice, index)
            return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
        case CallArguments(index, text):
            if rules.is_legacy:
                return {"function_call": {"arguments": text}}
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def message_of(pieces: Sequence[Piece], rules: AnswerRules, ticket: Ticket, choice: int) -> ChatAnswerMessage:
    """The whole message of a choice."""
    said = "".join(piece.text for piece in pieces if isinstance(piece, Said))
    thought = "".join(piece.text for piece in pieces if isinstance(piece, Thought))
    calls = [piece for piece in pieces if isinstance(piece, CallBegun)]
    message = ChatAnswerMessage(role="assistant", content=said or (None if calls else ""), refusal=None)
    if thought:
        message.reasoning = message.reasoning_content = thought
    functions = [_gathered(pieces, call) for call in calls]
    if functions and rules.is_legacy:
        message.function_call = functions[0]
    elif functions:
        message.tool_calls = [
            ToolCall(id=call_id_of(rules, ticket, choice, index), type="function", function=function)
            for index, function in enumerate(functions)
        ]
    return message


def call_id_of(rules: AnswerRules, ticket: Ticket, choice: int, index: int) -> str:
    """The id of a call: random as the ticket's seed is, and short where the model's template demands it."""
    source = f"{ticket.answer_id}/{ticket.seed}/{choice}/{index}"
    digest = hashlib.sha256(source.encode()).hexdigest()
    if rules.tool_format is not None and rules.tool_format.has_short_ids:
        return digest[:SHORT_ID_CHARS]
    return f"call_{digest[:LONG_ID_CHARS]}"


def _gathered(pieces: Sequence[Piece], call: CallBegun) -> FunctionCall:
    arguments = [
        piece.text for piece in pieces if isinstance(piece, CallArguments) and piece.index == call.index
    ]
    return FunctionCall(name=call.name, arguments="".join(arguments))

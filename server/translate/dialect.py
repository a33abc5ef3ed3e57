"""`Dialect`: how the served model writes calls and reasoning; and what follows from it for one answer."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from engine import Request, RequestError
from server.reasoning import THINK, ReasoningTags, choose_tags, is_open
from server.tools.formats import JSON, ToolFormat, choose_format
from server.translate.answer_parts import AnswerRules
from server.translate.call_grammar import CallRules, forced_calls, free_calls, schema_of
from server.translate.call_plan import CallPlan
from server.translate.constraint import refuse_unenforced, to_grammar
from server.translate.messages import TurnStyle
from server.translate.thought_grammar import ThoughtRules, thought_rules


class Vocabulary(Protocol):
    """What is asked of a tokenizer here."""

    @property
    def special_ids(self) -> Collection[int]:
        """Ids of the tokens that are no text."""

    @property
    def template_source(self) -> str:
        """The text of the chat template."""

    @property
    def reads_tools(self) -> bool:
        """Whether the chat template shows functions to the model."""

    def find(self, token: str) -> int | None:
        """The id of the token that is spelled so."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Sequence[int]:
        """Token ids of `text`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The format of calls and the tags of reasoning, None where there are none; what the template reads.

    `special_ids` has those of their marks that are special tokens, which are hidden elsewhere.
    """

    tool_format: ToolFormat | None
    tags: ReasoningTags | None
    reads_tools: bool = False
    reads_reasoning: bool = False
    special_ids: Mapping[str, int] = field(default_factory=dict)
    closing_ids: tuple[int, ...] = ()

    @classmethod
    def of(cls, vocabulary: Vocabulary, tool_setting: str, reasoning_setting: str) -> "Dialect":
        """What the two settings say, or, where they leave it open, the model's chat template."""
        template = vocabulary.template_source
        tool_format = choose_format(tool_setting, template)
        tags = choose_tags(reasoning_setting, template)
        marks = () if tool_format is None else tool_format.markers
        marks += () if tags is None else (tags.opening, tags.closing)
        found = {mark: token_id for mark in marks if (token_id := vocabulary.find(mark)) is not None}
        closing = () if tags is None else vocabulary.encode(tags.closing, add_special_tokens=False)
        return cls(
            tool_format=tool_format,
            tags=tags,
            reads_tools=vocabulary.reads_tools,
            reads_reasoning="reasoning_content" in template,
            special_ids={mark: i for mark, i in found.items() if i in vocabulary.special_ids},
            closing_ids=tuple(closing),
        )

    def turn_style(self, *, keeps_reasoning: bool) -> TurnStyle:
        """How earlier turns are told to the template."""
        return TurnStyle(
            tool_format=self.tool_format or JSON,
            in_words=not self.reads_tools,
            past_reasoning=(self.tags or THINK) if keeps_reasoning else None,
            reads_reasoning=self.reads_reasoning,
        )

    def require_calls(self, plan: CallPlan | None) -> None:
        """Raise RequestError where calls are wanted and the server was told to know none."""
        if plan is not None and self.tool_format is None:
            raise RequestError(
                "tools are not supported here: the server was started with --tool-format none",
                "functions" if plan.is_legacy else "tools",
            )

    def answer_rules(self, plan: CallPlan | None, prompt: str) -> AnswerRules:
        """How the answers to `prompt` are read."""
        return AnswerRules(
            tool_format=None if plan is None else self.tool_format,
            names=frozenset() if plan is None else plan.names,
            tags=self.tags,
            is_inside=self.tags is not None and is_open(self.tags, prompt),
            closing_ids=self.closing_ids,
            is_legacy=plan is not None and plan.is_legacy,
            is_named=plan is not None and plan.is_named,
            is_forced=plan is not None and plan.must_call,
        )

    def thoughts(self, prompt: str) -> ThoughtRules:
        """What may stand before a constrained answer to `prompt`."""
        return thought_rules(self.tags, prompt, self.special_ids)

    def grammar(self, plan: CallPlan | None, prompt: str, rule: str = "") -> str:
        """The grammar of an answer that keeps to `plan` and, where it calls nothing, to `rule`.

        "" where free text does; RequestError for a strict function whose schema cannot be enforced. What may be called without need is called instead of the rule's text;
        reasoning comes before either.
        """
        thoughts = self.thoughts(prompt)
        calls = None
        if plan is not None and self.tool_format is not None:
            _refuse_unenforced(plan)
            calls = self._calls(plan, self.tool_format, thoughts, rule)
        if calls is not None:
            rules = {**thoughts.rules, **calls.rules}
            return to_grammar(calls.answer, before=thoughts.before, rules=rules)
        return to_grammar(rule, before=thoughts.before, rules=thoughts.rules) if rule else ""

    def applied(self, request: Request, plan: CallPlan | None, prompt: str, rule: str = "") -> Request:
        """`request` with the grammar of its answer, and with the marks shown that its answer is read by."""
        grammar = self.grammar(plan, prompt, rule)
        marks = () if plan is None or self.tool_format is None else self.tool_format.markers
        marks += () if self.tags is None else (self.tags.opening, self.tags.closing)
        shown = tuple(sorted({self.special_ids[mark] for mark in marks if mark in self.special_ids}))
        if (grammar, shown) == (request.sampling.grammar, ()):
            return request
        return replace(request, sampling=replace(request.sampling, grammar=grammar, shown_special_ids=shown))

    def _calls(
        self, plan: CallPlan, tool_format: ToolFormat, thoughts: ThoughtRules, rule: str
    ) -> CallRules | None:
        functions, special_ids = plan.callable, self.special_ids
        if plan.must_call or rule:
            calls = forced_calls(functions, tool_format, special_ids, is_parallel=plan.is_parallel)
            if plan.must_call:
                return calls
            return CallRules(
                answer="calls | said", rules={**calls.rules, "calls": calls.answer, "said": rule}
            )
        if not plan.needs_grammar:
            return None
        return free_calls(
            functions,
            tool_format,
            special_ids,
            is_parallel=plan.is_parallel,
            not_first=thoughts.opening,
        )


def _refuse_unenforced(plan: CallPlan) -> None:
    for function in plan.callable:
        if function.strict:
            refuse_unenforced(schema_of(function), "functions" if plan.is_legacy else "tools")

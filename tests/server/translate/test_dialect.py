import pytest

from engine import Request, RequestError, SamplingParams
from server.reasoning import TAGS, THINK
from server.schemas.tools import ToolBody
from server.tools.formats import HERMES, JSON, MISTRAL
from server.translate.answer_parts import PLAIN_RULES
from server.translate.call_plan import plan_calls
from server.translate.constraint import json_rule
from server.translate.dialect import Dialect
from tests.support.fake_engine import FakeTokenizer
from tests.support.grammar_words import GrammarWords

QWEN = "{% if tools %}<tool_call></tool_call>{% endif %}<think></think>{{ message.reasoning_content }}"
F = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
REQUEST = Request(request_id="r", prompt_ids=(1,), sampling=SamplingParams(max_tokens=5, seed=1))
WORDS = GrammarWords()


def dialect(template: str = "", *, special=(), reads_tools: bool = False, tools: str = "auto") -> Dialect:
    vocabulary = FakeTokenizer(dict(special), frozenset(), template, reads_tools)
    return Dialect.of(vocabulary, tools, "auto")


def plan(**fields: object):
    return plan_calls(ToolBody.model_validate({"tools": [F], **fields}))


def test_a_template_tells_the_dialect():
    found = dialect(QWEN, reads_tools=True)

    assert (found.tool_format, found.tags) == (HERMES, THINK)
    assert (found.reads_tools, found.reads_reasoning) == (True, True)
    assert found.closing_ids == tuple(map(ord, "</think>"))


def test_without_a_word_in_the_template_there_is_the_general_format_and_no_reasoning():
    found = dialect()

    assert (found.tool_format, found.tags) == (JSON, None)
    assert found.answer_rules(None, "Hi") == PLAIN_RULES
    assert found.turn_style(keeps_reasoning=True).in_words


def test_marks_that_are_special_tokens_are_shown():
    found = dialect("[TOOL_CALLS]", special={"[TOOL_CALLS]": 5, "<|other|>": 6})
    applied = found.applied(REQUEST, plan(), "Hi")

    assert (found.tool_format, found.special_ids) == (MISTRAL, {"[TOOL_CALLS]": 5})
    assert (applied.sampling.shown_special_ids, applied.sampling.grammar) == ((5,), "")
    assert found.applied(REQUEST, None, "Hi") is REQUEST


def test_a_request_that_needs_neither_is_left_alone():
    assert dialect().applied(REQUEST, plan(), "Hi") is REQUEST


def test_a_prompt_may_open_the_reasoning():
    found = dialect(QWEN)

    assert found.answer_rules(None, "<think>\n").is_inside
    assert not found.answer_rules(None, "Hi").is_inside


def test_tools_are_refused_where_the_server_knows_none():
    found = dialect(QWEN, tools="none")
    with pytest.raises(RequestError) as caught:
        found.require_calls(plan())

    assert caught.value.param == "tools"
    found.require_calls(None)


@pytest.mark.parametrize(("fields", "has_grammar"), [({}, False), ({"tool_choice": "required"}, True)])
def test_a_grammar_comes_where_free_text_would_not_do(fields, has_grammar):
    applied = dialect().applied(REQUEST, plan(**fields), "Hi")

    assert bool(applied.sampling.grammar) == has_grammar


CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    ("fields", "text", "is_taken"),
    [
        ({}, CALL, True),
        ({}, "7", True),
        ({}, "Hi", False),
        ({}, f"<think>Hm.</think>\n\n{CALL}", True),
        ({}, "<think>Hm.</think>7", True),
        ({"tool_choice": "required"}, "7", False),
        ({"tool_choice": "required"}, f"<think>Hm.</think>{CALL}", True),
        ({"tool_choice": "none"}, "<think>Hm.</think>7", True),
        ({"tool_choice": "none"}, CALL, False),
    ],
)
def test_a_call_may_take_the_place_of_a_formatted_answer(fields, text, is_taken):
    grammar = dialect(QWEN).grammar(plan(**fields), "Hi", json_rule({"type": "integer"}))

    assert WORDS.takes(grammar, text) is is_taken


def test_without_calls_and_rules_there_is_no_grammar():
    assert dialect(QWEN).grammar(None, "Hi") == ""


def test_a_strict_schema_that_cannot_be_enforced_is_refused():
    schema = {"type": "object", "minProperties": 5}
    strict, loose = (
        {"type": "function", "function": {"name": "f", "parameters": schema, "strict": is_strict}}
        for is_strict in (True, False)
    )
    with pytest.raises(RequestError) as caught:
        dialect().grammar(plan(tools=[strict]), "Hi")

    assert caught.value.param == "tools"
    assert dialect().grammar(plan(tools=[loose], tool_choice="required"), "Hi")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_answers_that_have_to_be_calls_are_read_as_such(choice):
    found = dialect(QWEN)

    assert found.answer_rules(plan(tool_choice=choice), "Hi").is_forced
    assert not found.answer_rules(plan(), "Hi").is_forced


def test_past_reasoning_is_kept_in_the_models_tags_only_where_it_is_wanted():
    assert dialect().turn_style(keeps_reasoning=False).past_reasoning is None
    assert dialect().turn_style(keeps_reasoning=True).past_reasoning == THINK
    assert dialect("[THINK][/THINK]").turn_style(keeps_reasoning=True).past_reasoning == TAGS["mistral"]

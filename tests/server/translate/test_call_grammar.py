import pytest

from server.schemas.tools import FunctionDefinition
from server.tools.formats import HERMES, JSON, LLAMA3, MISTRAL, ToolFormat
from server.translate.call_grammar import forced_calls, free_calls, schema_of
from server.translate.constraint import to_grammar
from tests.support.call_texts import FORMATS
from tests.support.grammar_words import GrammarWords

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
FUNCTIONS = [
    FunctionDefinition(name="add", strict=True, parameters=SCHEMA),
    FunctionDefinition(name="say", parameters=SCHEMA),
]
GOOD, BAD = ("add", '{"a": 1}'), ("add", '{"a": "x"}')
LOOSE = ("say", '{"b": [true]}')
WORDS = {
    "as text": GrammarWords(),
    "as tokens": GrammarWords("[TOOL_CALLS]", "[ARGS]", "<tool_call>", "</tool_call>", "<|python_tag|>"),
}
EVERY_FORMAT = pytest.mark.parametrize("tool_format", FORMATS.values(), ids=FORMATS)
EVERY_VOCABULARY = pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)


def forced(tool_format: ToolFormat, words: GrammarWords, *, is_parallel: bool = True) -> str:
    calls = forced_calls(FUNCTIONS, tool_format, words.special_ids, is_parallel=is_parallel)
    return to_grammar(calls.answer, rules=calls.rules)


def free(
    tool_format: ToolFormat, words: GrammarWords, *, is_parallel: bool = True, not_first: str = ""
) -> str:
    calls = free_calls(
        FUNCTIONS, tool_format, words.special_ids, is_parallel=is_parallel, not_first=not_first
    )
    return to_grammar(calls.answer, rules=calls.rules)


@EVERY_VOCABULARY
@EVERY_FORMAT
def test_forced_calls_are_calls_that_fit_and_nothing_else(tool_format, words):
    grammar = forced(tool_format, words)

    assert words.takes(grammar, tool_format.spell([GOOD]))
    assert words.takes(grammar, tool_format.spell([GOOD, ("say", '{"a": 2}')]))
    assert not words.takes(grammar, tool_format.spell([BAD]))
    assert not words.takes(grammar, tool_format.spell([LOOSE]))
    assert not words.takes(grammar, tool_format.spell([("rm", "{}")]))
    assert not words.takes(grammar, "")
    assert not words.takes(grammar, "Hi")


@EVERY_VOCABULARY
@EVERY_FORMAT
def test_one_call_may_be_the_most(tool_format, words):
    for grammar in (
        forced(tool_format, words, is_parallel=False),
        free(tool_format, words, is_parallel=False),
    ):
        assert words.takes(grammar, tool_format.spell([GOOD]))
        assert not words.takes(grammar, tool_format.spell([GOOD, GOOD]))


@EVERY_VOCABULARY
@EVERY_FORMAT
def test_free_text_holds_calls_that_fit_where_they_are_strict(tool_format, words):
    grammar = free(tool_format, words)

    assert words.takes(grammar, "")
    assert words.takes(grammar, "Hi <b> {x} [1].\n{")
    assert words.takes(grammar, "Sure.\n" + tool_format.spell([GOOD, LOOSE]))
    assert not words.takes(grammar, "Sure.\n" + tool_format.spell([BAD]))
    assert not words.takes(grammar, tool_format.spell([GOOD, BAD]))
    assert not words.takes(grammar, tool_format.spell([("rm", "{}")]))


@pytest.mark.parametrize("tool_format", [HERMES, JSON, LLAMA3], ids=lambda tool_format: tool_format.name)
def test_free_text_may_go_on_behind_a_call(tool_format):
    words = WORDS["as text"]
    call = tool_format.spell([GOOD])

    assert words.takes(free(tool_format, words), f"{call}\nSo be it.\n{call}")


@pytest.mark.parametrize(
    "text",
    ['{"type": "function", "name": "add"', '[{"name": "add"', '{"arguments": ', 'x\n  {"parameters": '],
)
def test_ways_around_a_strict_call_are_barred(text):
    assert not WORDS["as text"].takes(free(LLAMA3, WORDS["as text"]), text)


def test_a_marker_that_other_tokens_spell_is_barred():
    words = GrammarWords("[TOOL_CALLS]")
    grammar = free(MISTRAL, words)
    letters = GrammarWords()

    assert words.takes(grammar, MISTRAL.spell([GOOD]))
    assert not letters.takes(
        grammar.replace(f"<[{words.special_ids['[TOOL_CALLS]']}]>", "<[261]>"), "[TOOL_CALLS]"
    )


def test_free_text_does_not_begin_as_something_else():
    words = WORDS["as text"]
    grammar = free(HERMES, words, not_first="<think>")

    assert words.takes(grammar, "I <think> so")
    assert not words.takes(grammar, " <think>no")


@pytest.mark.parametrize(
    ("parameters", "schema"),
    [
        (None, {"type": "object", "properties": {}, "additionalProperties": False}),
        ({}, {"type": "object"}),
        (SCHEMA, SCHEMA),
    ],
)
def test_arguments_are_an_object(parameters, schema):
    assert schema_of(FunctionDefinition(name="f", parameters=parameters)) == schema

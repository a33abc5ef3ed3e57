import pytest

from server.reasoning import THINK
from server.translate.constraint import text_rule, to_grammar
from server.translate.thought_grammar import ThoughtRules, thought_rules, token_rule
from tests.support.grammar_words import GrammarWords

WORDS = {"as text": GrammarWords(), "as tokens": GrammarWords("<think>", "</think>")}
EVERY_VOCABULARY = pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)


def grammar_behind(prompt: str, words: GrammarWords) -> str:
    thoughts = thought_rules(THINK, prompt, words.special_ids)
    return to_grammar(text_rule("42"), before=thoughts.before, rules=thoughts.rules)


@EVERY_VOCABULARY
@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        ("42", True),
        ("<think>Hm: 42?\n</think>\n\n42", True),
        ("<think></think>42", True),
        ("<think>Hm.", False),
        ("Hm.</think>42", False),
        ("<think>Hm.</think>43", False),
    ],
)
def test_a_model_may_reason_first(words, text, is_taken):
    assert words.takes(grammar_behind("user: Hi", words), text) is is_taken


@EVERY_VOCABULARY
@pytest.mark.parametrize(
    ("text", "is_taken"), [("Hm.</think>\n42", True), ("</think>42", True), ("42", False)]
)
def test_a_block_that_the_prompt_opened_is_closed_first(words, text, is_taken):
    assert words.takes(grammar_behind("user: Hi <think>\n", words), text) is is_taken


@pytest.mark.parametrize(("tags", "prompt"), [(None, "Hi"), (THINK, "Hi<think>\n\n</think>\n\n")])
def test_without_tags_or_behind_the_block_the_answer_comes_at_once(tags, prompt):
    assert thought_rules(tags, prompt, {}) == ThoughtRules()


def test_what_free_text_must_not_begin_with_is_told():
    assert thought_rules(THINK, "Hi", {}).opening == "<think>"
    assert thought_rules(THINK, "Hi", {"<think>": 5, "</think>": 6}).opening == ""


def test_a_token_is_named_by_its_id():
    assert token_rule(5) == "<[5]>"

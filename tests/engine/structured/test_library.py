import pytest

from engine.errors import RequestError
from engine.structured.library import MAX_REASON_CHARS, Library
from tests.support.byte_vocabulary import EOS_ID, TOKENS, VOCABULARY


def reason(library, grammar):
    with pytest.raises(RequestError) as caught:
        library.compile(grammar)
    assert caught.value.param == "grammar"
    return caught.value.message


def test_a_grammar_follows_the_models_own_tokens(library):
    matcher = library.compile('start: "ab"')

    assert matcher.try_consume_tokens([ord("a"), ord("b")]) == 2
    assert matcher.is_accepting()


def test_special_tokens_are_no_text_but_can_be_named(library):
    assert library.compile('start: "<bos>"').try_consume_tokens([256]) == 0
    assert library.compile("start: <bos>").try_consume_tokens([256]) == 1


def test_ids_beyond_the_vocabulary_are_never_allowed(library):
    mask = library.compile("start: /(?s:.*)/").compute_bitmask()

    assert len(mask) == -(-TOKENS.vocab_size // 32) * 4
    assert mask[EOS_ID // 8] >> EOS_ID % 8 == 1
    assert mask[258 // 8 + 1 :] == bytes(len(mask) - 258 // 8 - 1)


def test_a_model_without_an_end_can_be_constrained_all_the_same():
    endless = Library.open(VOCABULARY, vocab_size=264, eos_ids=(), num_threads=1)

    assert endless.tokenizer.eos_tokens == [264]
    assert endless.compile('start: "a"').consume_token(ord("a"))


def test_what_a_grammar_forces_may_be_spelled_in_any_way(library):
    matcher = library.compile('start: "abc"')

    assert matcher.compute_ff_tokens() == []


def test_a_grammar_that_is_none_is_refused_with_the_reason_and_its_place(library):
    assert (
        reason(library, "start: x")
        == 'the constraint on the output cannot be compiled: at 1(8): unknown name: "x"'
    )


def test_a_schema_that_cannot_be_enforced_is_refused_with_keyword_and_path(library):
    schema = '{"type": "object", "properties": {"a": {"items": {"not": {}}}}}'

    message = reason(library, f"start: %json {schema}")
    assert message.endswith('Unimplemented keys: ["not"] (in the schema at #/properties/a/items)')
    assert "1(8)" not in message


def test_a_reason_is_short(library):
    assert len(reason(library, f"start: {'x' * 5000}")) < MAX_REASON_CHARS + 100

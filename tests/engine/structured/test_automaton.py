import pytest

from engine.errors import RequestError
from tests.support.byte_vocabulary import EOS_ID


def test_it_is_complete_once_nothing_can_follow(automaton):
    one = automaton('start: "ab"')
    before = one.is_complete
    for token_id in b"ab":
        one.advance(token_id)

    assert (before, one.is_complete, one.failure) == (False, True, None)


def test_it_goes_on_while_something_can_follow_until_the_end_is_drawn(automaton):
    one = automaton("start: /a+/")
    one.advance(ord("a"))
    before = one.is_complete
    one.advance(EOS_ID)

    assert (before, one.is_complete, one.failure) == (False, True, None)


@pytest.mark.parametrize("token_id", [ord("b"), EOS_ID, 260], ids=["text", "end", "no token"])
def test_a_token_that_may_not_follow_is_a_failure(automaton, token_id):
    one = automaton('start: "a"')
    one.advance(token_id)

    assert isinstance(one.failure, RequestError)
    assert (one.failure.param, one.is_complete) == ("grammar", False)


def test_each_automaton_of_a_grammar_stands_by_itself(library):
    from engine.structured.compiler import Grammar

    grammar = Grammar(library, library.compile('start: "ab" | "cd"'))
    first, second = grammar.new_automaton(), grammar.new_automaton()
    first.advance(ord("a"))
    second.advance(ord("c"))
    second.advance(ord("d"))

    assert (first.is_complete, second.is_complete) == (False, True)

"""Prompts have exactly as many tokens as they should, whatever the tokenizer."""

import asyncio

import pytest

from benchmarks.load.prompts import PromptForm, find_text_form

LONG = {"sentence": 3, "differ": 2}


async def count_tokens(text):
    """A tokenizer that adds two tokens to a text and splits some words."""
    return 2 + sum(LONG.get(word, 1) for word in text.split())


def test_ids_begin_at_the_first():
    assert PromptForm(first_id=10, last_id=20).prompt((0, 4)) == [10, 14]


def test_as_many_numbers_as_ids():
    assert PromptForm(first_id=10, last_id=20).num_words == 10


def test_words_of_several_tokens_are_left_out():
    form = asyncio.run(find_text_form(count_tokens))

    assert form.num_words > 100
    assert not LONG.keys() & set(form.words)
    assert form.extra_tokens == 2


def test_a_text_has_exactly_as_many_tokens_as_numbers():
    form = asyncio.run(find_text_form(count_tokens))

    text = form.prompt(range(17))

    assert asyncio.run(count_tokens(text)) == 17


def test_a_text_shorter_than_what_is_added_is_refused():
    with pytest.raises(ValueError, match="the server adds 2"):
        PromptForm(words=("a",), extra_tokens=2).prompt((0, 0))


def test_a_vocabulary_without_words_is_refused():
    async def count_letters(text):
        return len(text)

    with pytest.raises(ValueError, match="send ids instead"):
        asyncio.run(find_text_form(count_letters, "every word long"))

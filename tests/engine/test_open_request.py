import asyncio

import pytest

from engine.errors import RequestError
from engine.messages import Finish
from engine.open_request import OpenRequest
from engine.request import FinishReason
from engine.stream import TokenStream
from engine.text.detokenizer import ChoiceText, TextRules
from tests.support.byte_tokenizer import EOS_ID, ByteTokenizer
from tests.support.new_request import new_request


def opened(sent, **fields):
    """A request that was just opened; what it posts comes into `sent`."""
    request, tokenizer = new_request(**fields), ByteTokenizer()
    rules = TextRules.of(request.sampling, tokenizer.special_ids, frozenset({EOS_ID}))
    return OpenRequest(
        TokenStream(request, on_abort=lambda: None),
        [ChoiceText(tokenizer, rules) for _ in range(request.num_choices)],
        first_sequence_id=0,
        post=sent.append,
        opened_s=0.0,
    )


def test_a_stop_string_ends_its_choice_and_the_engine_is_told():
    async def act():
        sent = []
        own = opened(sent, num_choices=2, stop=("!",))
        own.feed(1, tuple(b"hi! more"), None, None)
        event = await anext(own.stream)
        return event.text, event.finish_reason, own.is_finished, sent

    text, reason, is_finished, sent = asyncio.run(act())
    assert (text, reason, is_finished) == ("hi", FinishReason.STOP, False)
    assert sent == [Finish(request_id="a", choice=1)]


def test_it_is_finished_with_its_last_choice():
    async def act():
        own = opened([], num_choices=2)
        for choice in range(2):
            own.feed(choice, tuple(b"x"), None, FinishReason.LENGTH)
        return own.is_finished, own.num_output_tokens

    assert asyncio.run(act()) == (True, 2)


def test_the_first_answer_counts():
    async def act():
        own = opened([])
        own.answer(RequestError("no"))
        own.answer(None)
        await own.wait_accepted()

    with pytest.raises(RequestError, match="no"):
        asyncio.run(act())

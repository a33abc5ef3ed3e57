import pytest
from pydantic import ValidationError

from server.contract.table import DETOKENIZE, TOKENIZE
from server.schemas.common import unknown_fields
from server.schemas.tokens import DetokenizeRequest, TokenizeRequest

USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": [USER]}], ids=["neither", "both"])
def test_a_text_or_a_conversation_is_tokenized(body):
    with pytest.raises(ValidationError) as caught:
        TokenizeRequest.model_validate(body)

    assert caught.value.errors()[0]["ctx"]["param"] == "prompt"


def test_an_empty_text_is_a_text():
    assert TokenizeRequest.model_validate({"prompt": ""}).prompt == ""


def test_the_schemas_have_the_fields_of_the_contract():
    assert set(TokenizeRequest.model_fields) == set(TokenizeRequest.NAMED)
    assert {field.name for field in TOKENIZE} > set(TokenizeRequest.model_fields)
    assert set(DetokenizeRequest.model_fields) == {field.name for field in DETOKENIZE}


def test_unknown_fields_of_its_messages_are_found():
    body = TokenizeRequest.model_validate({"messages": [{**USER, "mood": 1}]})

    assert list(unknown_fields(body)) == [("messages", 0, "mood")]


@pytest.mark.parametrize(
    ("param", "value"),
    [("add_generation_prompt", False), ("continue_final_message", True), ("chat_template_kwargs", {"a": 1})],
)
def test_a_text_has_no_template(param, value):
    with pytest.raises(ValidationError) as caught:
        TokenizeRequest.model_validate({"prompt": "a", param: value})

    assert caught.value.errors()[0]["ctx"]["param"] == param

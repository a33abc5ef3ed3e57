from inspect import signature

from openai.resources.chat.completions import Completions

from server.contract.chat import CHAT
from server.schemas.chat import ChatCompletionRequest, ChatMessage

OF_THE_CLIENT = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}


def test_the_schema_has_exactly_the_fields_that_are_not_refused():
    for model in (ChatCompletionRequest, ChatMessage):
        assert set(model.model_fields) == set(model.NAMED) - set(model.REFUSED)


def test_every_parameter_of_the_official_client_is_in_the_table():
    parameters = set(signature(Completions.create).parameters) - OF_THE_CLIENT

    assert parameters <= {field.name for field in CHAT}

from server.contract.generation import COMPLETIONS, GENERATION
from server.schemas.completions import CompletionRequest
from server.schemas.generation import GenerationBody, StreamOptions


def test_the_schema_has_exactly_the_fields_that_are_not_refused():
    assert set(GenerationBody.model_fields) == set(GenerationBody.NAMED) - set(GenerationBody.REFUSED)
    assert set(CompletionRequest.model_fields) == set(CompletionRequest.NAMED) - set(
        CompletionRequest.REFUSED
    )


def test_so_do_the_options_of_a_stream():
    assert set(StreamOptions.model_fields) == set(StreamOptions.NAMED)


def test_completions_take_what_both_endpoints_take():
    assert {field.name for field in GENERATION} < {field.name for field in COMPLETIONS}

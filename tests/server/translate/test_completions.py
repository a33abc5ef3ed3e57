import json

import pytest

from engine import FinishReason
from server.schemas.completions import CompletionChunk, CompletionRequest
from server.translate.completions import CompletionChunks, CompletionFold, to_requests
from server.translate.generation import Ticket
from tests.server.translate.test_chat import chunks_of
from tests.server.translate.test_generation import event

TICKET = Ticket(answer_id="cmpl-1", created_s=5.0, model_id="m", fingerprint="fp_1", seed=77)
PROMPTS = [(1, 2, 3), (4,)]


def read(**fields: object) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "m", "prompt": ["a", "b"], **fields})


def streamed(body: CompletionRequest, *events) -> list[dict]:
    chunks = CompletionChunks(body, TICKET, PROMPTS)
    return chunks_of(b"".join(chunks.add(index, e) for index, e in events) + chunks.end())


def folded(body: CompletionRequest, *events) -> dict:
    fold = CompletionFold(body, TICKET, PROMPTS)
    for index, e in events:
        fold.add(index, e)
    return json.loads(fold.to_json())


def test_each_prompt_is_a_request_of_its_own():
    requests = to_requests(read(n=3, logprobs=0), PROMPTS, TICKET)

    assert [request.request_id for request in requests] == ["cmpl-1-0", "cmpl-1-1"]
    assert [request.prompt_ids for request in requests] == PROMPTS
    assert all(request.num_choices == 3 and request.sampling.logprobs for request in requests)


def test_without_a_limit_an_answer_has_sixteen_tokens():
    assert to_requests(read(), PROMPTS, TICKET)[0].sampling.max_tokens == 16
    assert to_requests(read(max_tokens=9), PROMPTS, TICKET)[0].sampling.max_tokens == 9


def test_without_logprobs_none_are_asked_for():
    assert not to_requests(read(), PROMPTS, TICKET)[0].sampling.logprobs


def test_choices_are_numbered_prompt_by_prompt():
    events = [(p, event("x", choice=c, finish_reason=FinishReason.STOP)) for p in (0, 1) for c in (0, 1)]

    assert [chunk["choices"][0]["index"] for chunk in streamed(read(n=2), *events)] == [0, 1, 2, 3]
    assert [choice["index"] for choice in folded(read(n=2), *events)["choices"]] == [0, 1, 2, 3]


def test_the_last_chunk_of_a_choice_has_its_finish_reason():
    chunks = streamed(read(), (0, event("a")), (0, event("b", finish_reason=FinishReason.LENGTH)))

    assert [(c["choices"][0]["text"], c["choices"][0]["finish_reason"]) for c in chunks] == [
        ("a", None),
        ("b", "length"),
    ]


def test_held_back_text_makes_no_chunk():
    assert streamed(read(), (0, event(""))) == []


def test_usage_comes_last_and_is_null_before():
    body = read(stream=True, stream_options={"include_usage": True})
    chunks = streamed(body, (0, event("a", count=2)), (1, event("b", count=3)))

    assert [chunk["usage"] for chunk in chunks[:-1]] == [None, None]
    assert chunks[-1]["usage"] == {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}


def test_offsets_go_on_from_chunk_to_chunk():
    chunks = streamed(read(logprobs=0), (0, event("ab", logged=("a", "b"))), (0, event("c", logged=("c",))))

    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks] == [[0, 1], [2]]


def test_log_probabilities_are_lists_side_by_side():
    answer = folded(
        read(logprobs=0),
        *((p, event("ab", logged=("a", "b"), finish_reason=FinishReason.STOP)) for p in (0, 1)),
    )

    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["a", "b"],
        "token_logprobs": [-1.0, -1.0],
        "top_logprobs": None,
        "text_offset": [0, 1],
    }


def test_token_ids_come_where_asked_for():
    chunks = streamed(
        read(return_token_ids=True), (1, event("", token_ids=(5,))), (1, event("a", token_ids=(6,)))
    )

    assert [chunk["choices"][0]["token_ids"] for chunk in chunks] == [[5], [6]]
    assert [chunk["choices"][0].get("prompt_token_ids") for chunk in chunks] == [[4], None]


def test_a_whole_answer_has_token_ids_where_asked_for():
    events = [(p, event("a", token_ids=(7 + p,), finish_reason=FinishReason.STOP)) for p in (0, 1)]
    choices = folded(read(return_token_ids=True), *events)["choices"]

    assert [choice["token_ids"] for choice in choices] == [[7], [8]]
    assert [choice["prompt_token_ids"] for choice in choices] == [[1, 2, 3], [4]]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"logprobs": 0},
        {"return_token_ids": True},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
    ids=["plain", "logprobs", "token ids", "usage"],
)
def test_every_chunk_is_of_openais_type(fields):
    chunks = streamed(
        read(**fields), (0, event("a🙂", logged=("a",))), (0, event("", finish_reason=FinishReason.LENGTH))
    )

    for chunk in chunks:
        checked = CompletionChunk.model_validate(chunk, strict=True)
        assert not checked.model_extra
        assert not any(choice.model_extra for choice in checked.choices)


def test_a_whole_answer_has_no_more_than_was_asked_for():
    answer = folded(read(), *((p, event("a", finish_reason=FinishReason.STOP)) for p in (0, 1)))

    assert set(answer) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert answer["choices"][0] == {"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"}

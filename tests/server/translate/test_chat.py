import json

import pytest

from engine import ContextLengthError, FinishReason, RequestError
from server.schemas.answers import ChatChunk
from server.schemas.chat import ChatCompletionRequest
from server.translate.chat import ChatChunks, ChatFold, to_request
from server.translate.generation import Ticket, encode_json, sse_event
from tests.server.translate.test_generation import event, plain_usage
from tests.support.fake_engine import FakeTokenizer, scored

TICKET = Ticket(answer_id="chatcmpl-1", created_s=5.0, model_id="m", fingerprint="fp_1", seed=77)
PROMPT_IDS = (1, 2, 3)
ENCODER = FakeTokenizer({}, frozenset())


def read(**fields: object) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    )


def requested(body: ChatCompletionRequest, *, max_context: int):
    return to_request(body, PROMPT_IDS, TICKET, max_context=max_context, encoder=ENCODER)


def chunks_of(written: bytes) -> list[dict]:
    return [json.loads(line.removeprefix("data: ")) for line in written.decode().split("\n\n") if line]


def streamed(body: ChatCompletionRequest, *events) -> list[dict]:
    chunks = ChatChunks(body, TICKET, PROMPT_IDS)
    return chunks_of(b"".join(chunks.add(0, e) for e in events) + chunks.end())


def folded(body: ChatCompletionRequest, *events) -> dict:
    fold = ChatFold(body, TICKET, PROMPT_IDS)
    for e in events:
        fold.add(0, e)
    return json.loads(fold.to_json())


def test_without_a_limit_an_answer_may_fill_the_context():
    assert requested(read(), max_context=10).sampling.max_tokens == 7


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_either_limit_counts(name):
    assert requested(read(**{name: 4}), max_context=10).sampling.max_tokens == 4


@pytest.mark.parametrize(
    ("limits", "max_context", "param"),
    [
        ({}, 3, "messages"),
        ({"max_tokens": 1}, 3, "messages"),
        ({"max_tokens": 3}, 5, "max_tokens"),
        ({"max_completion_tokens": 3}, 5, "max_completion_tokens"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_by_the_name_to_change(limits, max_context, param):
    with pytest.raises(ContextLengthError) as caught:
        requested(read(**limits), max_context=max_context)

    assert caught.value.param == param


def test_a_request_carries_what_the_body_says():
    request = requested(read(n=2, logprobs=True, seed=5), max_context=10)

    assert (request.request_id, request.prompt_ids, request.num_choices) == ("chatcmpl-1", PROMPT_IDS, 2)
    assert (request.sampling.seed, request.sampling.logprobs, request.arrival_s) == (5, True, 5.0)


def test_without_a_seed_the_tickets_is_used():
    assert requested(read(), max_context=10).sampling.seed == 77


def test_an_empty_prompt_is_refused():
    with pytest.raises(RequestError):
        to_request(read(), (), TICKET, max_context=10, encoder=ENCODER)


def test_a_choice_is_its_role_its_text_and_its_end():
    chunks = streamed(read(), event("a"), event("b", finish_reason=FinishReason.STOP))
    choices = [chunk["choices"][0] for chunk in chunks]

    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "a"},
        {"content": "b"},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]


@pytest.mark.parametrize("options", [{}, {"include_usage": True}], ids=["", "with usage"])
def test_a_chunk_of_text_alone_has_the_bytes_of_its_members_in_order(options):
    chunks = ChatChunks(read(n=2, stream=True, stream_options=options), TICKET, PROMPT_IDS)
    chunks.add(0, event("first", choice=1))
    usage = {"usage": None} if options else {}
    choice = {"index": 1, "delta": {"content": 'é"\u2028'}, "logprobs": None, "finish_reason": None}

    assert chunks.add(0, event('é"\u2028', choice=1)) == sse_event(
        encode_json({**TICKET.head("chat.completion.chunk"), "choices": [choice], **usage})
    )


def test_every_choice_has_its_own_role_and_end():
    ends = [event("x", choice=c, finish_reason=FinishReason.LENGTH) for c in (1, 0)]
    chunks = streamed(read(n=2), *ends)

    assert [chunk["choices"][0]["index"] for chunk in chunks] == [1, 1, 1, 0, 0, 0]


def test_held_back_text_makes_no_chunk():
    assert len(streamed(read(), event("a"), event(""), event("b"))) == 3


def test_all_chunks_share_their_head():
    chunks = streamed(read(), event("a"), event("", finish_reason=FinishReason.STOP))

    assert {(c["id"], c["object"], c["created"], c["model"], c["system_fingerprint"]) for c in chunks} == {
        ("chatcmpl-1", "chat.completion.chunk", 5, "m", "fp_1")
    }


def test_usage_comes_last_and_is_null_before():
    body = read(stream=True, stream_options={"include_usage": True}, return_token_ids=True)
    chunks = streamed(body, event("a", count=1), event("b", count=2, finish_reason=FinishReason.STOP))

    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == []
    assert plain_usage(chunks[-1]) == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_usage_is_absent_unless_asked_for():
    assert all(
        "usage" not in chunk for chunk in streamed(read(), event("a", finish_reason=FinishReason.STOP))
    )


def test_log_probabilities_come_with_their_text():
    chunks = streamed(read(logprobs=True), event("é", logged=("é",)))

    assert chunks[1]["choices"][0]["logprobs"] == {
        "content": [{"token": "é", "logprob": -1.0, "bytes": [195, 169], "top_logprobs": []}],
        "refusal": None,
    }


def test_token_ids_come_where_asked_for():
    chunks = streamed(read(return_token_ids=True), event("", token_ids=(4, 5)), event("a", token_ids=(6,)))

    assert chunks[0]["prompt_token_ids"] == [1, 2, 3]
    assert [chunk["choices"][0].get("token_ids") for chunk in chunks] == [None, [4, 5], [6]]
    assert all("prompt_token_ids" not in chunk for chunk in chunks[1:])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"logprobs": True},
        {"return_token_ids": True},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
    ids=["plain", "logprobs", "token ids", "usage"],
)
def test_every_chunk_is_as_its_schema_says_and_no_more(fields):
    chunks = streamed(
        read(**fields), event("a🙂", logged=("a",)), event("", finish_reason=FinishReason.LENGTH)
    )

    for chunk in chunks:
        assert ChatChunk.model_validate(chunk, strict=True).model_dump(exclude_unset=True) == chunk


def test_a_whole_answer_has_every_choice():
    answer = folded(
        read(n=2),
        event("a", choice=0, count=1),
        event("x", choice=1, count=1, finish_reason=FinishReason.LENGTH),
        event("b", choice=0, count=2, finish_reason=FinishReason.STOP),
    )

    assert [choice["message"]["content"] for choice in answer["choices"]] == ["ab", "x"]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop", "length"]
    assert plain_usage(answer) == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


def test_a_whole_answer_has_what_was_asked_for():
    body = read(logprobs=True, return_token_ids=True)
    answer = folded(body, event("é", logged=("é",), token_ids=(9,), finish_reason=FinishReason.STOP))

    assert answer["prompt_token_ids"] == [1, 2, 3]
    assert answer["choices"][0]["token_ids"] == [9]
    assert answer["choices"][0]["logprobs"]["content"][0]["bytes"] == [195, 169]


def test_a_whole_answer_has_no_more_than_was_asked_for():
    answer = folded(read(), event("a", finish_reason=FinishReason.STOP))

    assert set(answer) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert answer["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "a", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }


SCORES = (None, scored("b", -0.5), scored("c", -0.5))


def test_alternatives_are_asked_for_and_told():
    body = read(logprobs=True, top_logprobs=2)
    end = event("é", finish_reason=FinishReason.STOP)
    end = end._replace(logprobs=(scored("é", -1.0, 2),))
    answer = folded(body, end)

    assert requested(body, max_context=10).sampling.num_top_logprobs == 2
    (entry,) = answer["choices"][0]["logprobs"]["content"]
    assert [other["token"] for other in entry["top_logprobs"]] == ["A", "B"]
    assert entry["top_logprobs"][0]["bytes"] == [65]


def test_scores_of_the_prompt_come_where_asked_for():
    body = read(prompt_logprobs=0)
    end = event("x", finish_reason=FinishReason.STOP, prompt_logprobs=SCORES)
    answer, chunks = folded(body, end), streamed(body, end)

    assert [list(entry or ()) for entry in answer["prompt_logprobs"]] == [[], ["98"], ["99"]]
    assert chunks[0]["prompt_logprobs"] == answer["prompt_logprobs"]
    assert all("prompt_logprobs" not in chunk for chunk in chunks[1:])


def test_scores_come_although_another_choice_began():
    chunks = streamed(read(prompt_logprobs=0, n=2), event("a", choice=1), event("b", prompt_logprobs=SCORES))

    assert sum("prompt_logprobs" in chunk for chunk in chunks) == 1


def test_usage_may_be_told_in_every_chunk():
    body = read(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    chunks = streamed(body, event("a", count=1), event("b", count=2))

    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 1, 2, 2]


def test_usage_has_its_details():
    usage = folded(read(), event("a", finish_reason=FinishReason.STOP))["usage"]

    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


def test_the_priority_reaches_the_engine():
    assert requested(read(priority=-3), max_context=10).priority == -3

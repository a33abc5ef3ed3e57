import json
from dataclasses import replace

import pytest

from engine import FinishReason
from server.schemas.answers import CompletionChunk
from server.schemas.completions import CompletionRequest
from server.translate.completions import CompletionChunks, CompletionFold, to_requests
from server.translate.generation import Ticket, encode_json, sse_event
from server.translate.prompt import Prompt
from tests.server.translate.test_chat import chunks_of
from tests.server.translate.test_generation import event, plain_usage
from tests.support.fake_engine import FakeTokenizer, scored

TICKET = Ticket(answer_id="cmpl-1", created_s=5.0, model_id="m", fingerprint="fp_1", seed=77)
PROMPTS = [Prompt(token_ids=(1, 2, 3)), Prompt(token_ids=(4,))]
ENCODER = FakeTokenizer({}, frozenset())


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
    requests = to_requests(read(n=3, logprobs=0), PROMPTS, TICKET, ENCODER)

    assert [request.request_id for request in requests] == ["cmpl-1-0", "cmpl-1-1"]
    assert [request.prompt_ids for request in requests] == [(1, 2, 3), (4,)]
    assert all(request.num_choices == 3 and request.sampling.logprobs for request in requests)


def test_without_a_seed_equal_prompts_are_drawn_for_by_different_numbers():
    seeds = [request.sampling.seed for request in to_requests(read(), [PROMPTS[0]] * 3, TICKET, ENCODER)]
    again = [request.sampling.seed for request in to_requests(read(), [PROMPTS[0]] * 3, TICKET, ENCODER)]
    others = to_requests(read(), [PROMPTS[0]] * 3, replace(TICKET, seed=78), ENCODER)

    assert len({*seeds, *(request.sampling.seed for request in others)}) == 6
    assert again == seeds


def test_a_seed_in_the_body_serves_for_each_prompt():
    requests = to_requests(read(seed=-5), PROMPTS, TICKET, ENCODER)

    assert [request.sampling.seed for request in requests] == [2**64 - 5] * 2


def test_without_a_limit_an_answer_has_sixteen_tokens():
    assert to_requests(read(), PROMPTS, TICKET, ENCODER)[0].sampling.max_tokens == 16
    assert to_requests(read(max_tokens=9), PROMPTS, TICKET, ENCODER)[0].sampling.max_tokens == 9


def test_without_a_limit_an_answer_ends_with_the_context_too():
    prompts = [replace(PROMPTS[0], num_left=5), PROMPTS[1]]
    requests = to_requests(read(), prompts, TICKET, ENCODER)

    assert [request.sampling.max_tokens for request in requests] == [5, 16]


def test_without_logprobs_none_are_asked_for():
    assert not to_requests(read(), PROMPTS, TICKET, ENCODER)[0].sampling.logprobs


def test_choices_are_numbered_prompt_by_prompt():
    events = [(p, event("x", choice=c, finish_reason=FinishReason.STOP)) for p in (0, 1) for c in (0, 1)]

    assert [chunk["choices"][0]["index"] for chunk in streamed(read(n=2), *events)] == [0, 1, 2, 3]
    assert [choice["index"] for choice in folded(read(n=2), *events)["choices"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("options", [{}, {"include_usage": True}], ids=["", "with usage"])
def test_a_chunk_of_text_alone_has_the_bytes_of_its_members_in_order(options):
    chunks = CompletionChunks(read(n=2, stream=True, stream_options=options), TICKET, PROMPTS)
    usage = {"usage": None} if options else {}
    choice = {"index": 3, "text": 'é"\u2028', "logprobs": None, "finish_reason": None}

    assert chunks.add(1, event('é"\u2028', choice=1)) == sse_event(
        encode_json({**TICKET.head("text_completion"), "choices": [choice], **usage})
    )


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
    assert plain_usage(chunks[-1]) == {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}


def test_offsets_go_on_from_chunk_to_chunk():
    events = [event("ab", logged=("a", "b")), event("c", logged=("c",), start=2)]
    chunks = streamed(read(logprobs=0), *((0, event) for event in events))

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
def test_every_chunk_is_as_its_schema_says_and_no_more(fields):
    chunks = streamed(
        read(**fields), (0, event("a🙂", logged=("a",))), (0, event("", finish_reason=FinishReason.LENGTH))
    )

    for chunk in chunks:
        assert CompletionChunk.model_validate(chunk, strict=True).model_dump(exclude_unset=True) == chunk


def test_a_whole_answer_has_no_more_than_was_asked_for():
    answer = folded(read(), *((p, event("a", finish_reason=FinishReason.STOP)) for p in (0, 1)))

    assert set(answer) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert answer["choices"][0] == {"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"}


HI = Prompt(token_ids=(72, 105), text="Hi", text_offsets=(0, 1), opening=b"H")
SCORES = (None, scored("i", -0.5, 1))


def told(body: CompletionRequest, *events, prompts=(HI,)) -> list[dict]:
    chunks = CompletionChunks(body, TICKET, prompts)
    return chunks_of(b"".join(chunks.add(0, e) for e in events) + chunks.end())


def answered(body: CompletionRequest, *events) -> list[dict]:
    fold = CompletionFold(body, TICKET, [HI])
    for e in events:
        fold.add(0, e)
    return json.loads(fold.to_json())["choices"]


def test_scoring_asks_for_the_prompts_log_probabilities():
    (request,) = to_requests(read(echo=True, logprobs=2, max_tokens=0), [HI], TICKET, ENCODER)

    assert (request.sampling.prompt_logprobs, request.sampling.num_top_logprobs) == (2, 2)
    assert request.sampling.max_tokens == 0


@pytest.mark.parametrize(
    ("fields", "scores"),
    [
        ({}, None),
        ({"echo": True}, None),
        ({"logprobs": 3}, None),
        ({"echo": True, "max_tokens": 0}, 0),
        ({"prompt_logprobs": 4, "echo": True, "logprobs": 1}, 4),
    ],
    ids=str,
)
def test_a_prompt_is_scored_only_where_the_answer_needs_it(fields, scores):
    (request,) = to_requests(read(**fields), [HI], TICKET, ENCODER)

    assert request.sampling.prompt_logprobs == scores


def test_an_echo_repeats_the_prompt_with_its_scores():
    end = event("!", logged=("!",), finish_reason=FinishReason.LENGTH, prompt_logprobs=SCORES)
    (choice,) = answered(read(echo=True, logprobs=1, max_tokens=1), end)

    assert choice["text"] == "Hi!"
    assert choice["logprobs"] == {
        "tokens": ["H", "i", "!"],
        "token_logprobs": [None, -0.5, -1.0],
        "top_logprobs": [None, {"A": -0.125, "i": -0.5}, {"!": -1.0}],
        "text_offset": [0, 1, 2],
    }


def test_an_echo_without_log_probabilities_is_only_text():
    (choice,) = answered(read(echo=True), event("!", finish_reason=FinishReason.STOP))

    assert (choice["text"], choice["logprobs"]) == ("Hi!", None)


def test_a_scored_prompt_alone_is_an_answer():
    end = event(count=0, token_ids=(), finish_reason=FinishReason.LENGTH, prompt_logprobs=SCORES)
    (choice,) = answered(read(echo=True, logprobs=0, max_tokens=0), end)

    assert choice["text"] == "Hi"
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5]


def test_each_streamed_choice_begins_with_the_echo():
    body = read(echo=True, logprobs=1, n=2)
    chunks = told(
        body,
        event("b", choice=1, logged=("b",)),
        event("a", choice=0, logged=("a",), prompt_logprobs=SCORES),
        event("c", choice=1, logged=("c",), start=1),
    )
    choices = [chunk["choices"][0] for chunk in chunks]

    assert [(choice["index"], choice["text"]) for choice in choices] == [(0, "Hia"), (1, "Hib"), (1, "c")]
    assert [choice["logprobs"]["text_offset"] for choice in choices] == [[0, 1, 2], [0, 1, 2], [3]]


def test_a_streamed_score_comes_without_any_token():
    chunks = told(
        read(echo=True, logprobs=0, max_tokens=0),
        event(count=0, token_ids=(), finish_reason=FinishReason.LENGTH, prompt_logprobs=SCORES),
    )

    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Hi"]


def test_scores_of_the_prompt_come_where_asked_for():
    end = event("!", finish_reason=FinishReason.STOP, prompt_logprobs=SCORES)
    (choice,) = answered(read(prompt_logprobs=0), end)
    chunks = told(read(prompt_logprobs=0), end)

    scores = [None, {"105": {"logprob": -0.5, "rank": 2, "decoded_token": "i"}}]
    assert choice["prompt_logprobs"] == scores
    assert chunks[0]["choices"][0]["prompt_logprobs"] == scores


def test_the_best_choices_are_shown_and_all_are_counted():
    body = read(best_of=3, n=2)
    fold = CompletionFold(body, TICKET, [HI])
    for choice, value in enumerate((-3.0, -1.0, -2.0)):
        logprobs = (scored("x", value),)
        fold.add(
            0, event(str(choice), choice=choice, finish_reason=FinishReason.STOP)._replace(logprobs=logprobs)
        )
    answer = json.loads(fold.to_json())

    assert [choice["text"] for choice in answer["choices"]] == ["1", "2"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["choices"][0]["logprobs"] is None
    assert answer["usage"]["completion_tokens"] == 3


def test_choosing_the_best_needs_log_probabilities():
    (request,) = to_requests(read(best_of=3, n=2), [HI], TICKET, ENCODER)

    assert (request.num_choices, request.sampling.logprobs) == (3, True)


def test_usage_may_be_told_in_every_chunk():
    body = read(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    chunks = told(body, event("a", count=1), event("b", count=2))

    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 2, 2]


def test_the_best_is_that_of_the_highest_mean_and_not_of_the_highest_sum():
    fold = CompletionFold(read(best_of=2, n=1), TICKET, [HI])
    for choice, values in enumerate(((-1.0,), (-0.75, -0.75))):
        told = event(str(choice), choice=choice, finish_reason=FinishReason.STOP)
        fold.add(0, told._replace(logprobs=tuple(scored("x", value) for value in values)))

    assert [choice["text"] for choice in json.loads(fold.to_json())["choices"]] == ["1"]


def test_cached_tokens_of_a_prompt_are_counted_once_however_many_choices_it_has():
    events = [
        (p, event("x", choice=c, finish_reason=FinishReason.STOP)._replace(num_cached_tokens=2))
        for p in (0, 1)
        for c in (0, 1, 2)
    ]

    assert folded(read(n=3), *events)["usage"]["prompt_tokens_details"]["cached_tokens"] == 4


def test_usage_in_every_chunk_has_the_details_of_the_whole():
    body = read(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    first, last = streamed(body, (0, event("a", count=1)))

    assert first["usage"] == last["usage"]
    assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 0, "audio_tokens": 0}


def test_no_more_alternatives_are_told_than_were_asked_for():
    body = read(logprobs=1, echo=True, prompt_logprobs=3)
    of_prompt = (None, *(scored("b", -0.5, 3) for _ in range(2)))
    told = event("x", finish_reason=FinishReason.STOP)._replace(logprobs=(scored("x", -0.5, 3),))
    fold = CompletionFold(body, TICKET, PROMPTS[:1])
    fold.add(0, told._replace(prompt_logprobs=of_prompt))
    (choice,) = json.loads(fold.to_json())["choices"]

    assert [None if own is None else len(own) for own in choice["logprobs"]["top_logprobs"]] == [
        None,
        2,
        2,
        2,
    ]
    assert [None if own is None else len(own) for own in choice["prompt_logprobs"]] == [None, 4, 4]

import json

import pytest

from engine import FinishReason, TokenEvent
from server.reasoning import THINK
from server.schemas.answers import ChatChunk
from server.schemas.chat import ChatCompletionRequest
from server.tools.formats import HERMES, JSON, LLAMA3, MISTRAL, MISTRAL_NAMED
from server.translate.answer_parts import AnswerRules, ChoiceReader, call_id_of
from server.translate.chat import ChatChunks, ChatFold
from tests.server.translate.test_chat import PROMPT_IDS, TICKET, chunks_of
from tests.server.translate.test_generation import event

NAMES = frozenset({"add"})
RULES = AnswerRules(tool_format=HERMES, names=NAMES, tags=THINK, closing_ids=tuple(map(ord, "</think>")))
TEXT = "<think>Hm.</think>Sure. " + HERMES.spell([("add", '{"a": 1}'), ("add", "{}")])


def read(**fields: object) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    )


def played(
    text: str, size: int, *, reason: FinishReason = FinishReason.STOP, choice: int = 0
) -> list[TokenEvent]:
    """The text as events of `size` characters, each a token."""
    parts = [text[i : i + size] for i in range(0, len(text), size)] or [""]
    counts = [min(len(text), (i + 1) * size) for i in range(len(parts))]
    return [
        event(
            part,
            choice=choice,
            count=count,
            token_ids=tuple(map(ord, part)),
            finish_reason=reason if i == len(parts) - 1 else None,
        )
        for i, (part, count) in enumerate(zip(parts, counts, strict=True))
    ]


def streamed(events, rules: AnswerRules = RULES, **fields: object) -> list[dict]:
    chunks = ChatChunks(read(**fields), TICKET, PROMPT_IDS, rules)
    return chunks_of(b"".join(chunks.add(0, e) for e in events) + chunks.end())


def folded(events, rules: AnswerRules = RULES, **fields: object) -> dict:
    fold = ChatFold(read(**fields), TICKET, PROMPT_IDS, rules)
    for e in events:
        fold.add(0, e)
    return json.loads(fold.to_json())


def accumulated(chunks: list[dict], index: int = 0) -> dict:
    """The message that the deltas of a choice make, as clients put it together."""
    message: dict = {"content": None, "tool_calls": []}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            for key in ("content", "reasoning", "reasoning_content"):
                if delta.get(key) is not None:
                    message[key] = (message.get(key) or "") + delta[key]
            for call in delta.get("tool_calls", ()):
                if call["index"] == len(message["tool_calls"]):
                    message["tool_calls"].append(
                        {"id": call["id"], "type": call["type"], "function": call["function"]}
                    )
                else:
                    function = message["tool_calls"][call["index"]]["function"]
                    function["arguments"] += call["function"]["arguments"]
            message["finish_reason"] = choice["finish_reason"]
    return message


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_stream_makes_the_same_message_as_the_whole_answer(size):
    events = played(TEXT, size)
    (choice,) = folded(events)["choices"]
    made = accumulated(streamed(events))

    assert choice["message"] == {
        "role": "assistant",
        "refusal": None,
        **{key: value for key, value in made.items() if key != "finish_reason"},
    }
    assert choice["finish_reason"] == made["finish_reason"] == "tool_calls"
    assert [call["function"]["arguments"] for call in made["tool_calls"]] == ['{"a": 1}', "{}"]
    assert (made["content"], made["reasoning"], made["reasoning_content"]) == ("Sure.", "Hm.", "Hm.")


@pytest.mark.parametrize("size", [1, 1000])
def test_reasoning_is_counted_up_to_its_closing_token(size):
    usage = folded(played(TEXT, size))["usage"]

    assert usage["completion_tokens_details"]["reasoning_tokens"] == len("<think>Hm.</think>")


def test_without_a_closing_token_the_whole_event_counts():
    rules = AnswerRules(tags=THINK, is_inside=True, closing_ids=(9,))
    usage = folded(played("Hm.</think>Yes", 1000), rules)["usage"]

    assert usage["completion_tokens_details"]["reasoning_tokens"] == len("Hm.</think>Yes")


def test_an_answer_cut_in_its_reasoning_is_all_reasoning():
    rules = AnswerRules(tags=THINK, is_inside=True)
    answer = folded(played("Hm, let me", 2, reason=FinishReason.LENGTH), rules)
    (choice,) = answer["choices"]

    assert (choice["message"]["reasoning"], choice["message"]["content"]) == ("Hm, let me", "")
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 10


@pytest.mark.parametrize(
    ("text", "rules", "reason", "told"),
    [
        (TEXT, RULES, FinishReason.STOP, "tool_calls"),
        (TEXT, RULES, FinishReason.LENGTH, "length"),
        (TEXT, AnswerRules(tool_format=HERMES, names=NAMES, is_named=True), FinishReason.STOP, "stop"),
        (
            TEXT,
            AnswerRules(tool_format=HERMES, names=NAMES, is_legacy=True),
            FinishReason.STOP,
            "function_call",
        ),
        ("Hi", RULES, FinishReason.STOP, "stop"),
        ('<tool_call>{"name": "add", "arguments": {"a"}', RULES, FinishReason.STOP, "stop"),
    ],
    ids=["calls", "cut", "named", "older form", "text", "broken call"],
)
def test_the_reason_tells_whether_something_was_called(text, rules, reason, told):
    events = played(text, 5, reason=reason)

    assert folded(events, rules)["choices"][0]["finish_reason"] == told
    assert accumulated(streamed(events, rules))["finish_reason"] == told


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("tool_format", [HERMES, MISTRAL, MISTRAL_NAMED, LLAMA3, JSON])
def test_a_forced_call_that_was_cut_is_no_content_wherever_it_was_cut(tool_format, size):
    rules = AnswerRules(tool_format=tool_format, names=NAMES, is_forced=True)
    text = tool_format.spell([("add", '{"a": 1}'), ("add", "{}")])

    for end in range(1, len(text)):
        events = played(text[:end], size, reason=FinishReason.LENGTH)
        made = accumulated(streamed(events, rules))
        told = folded(events, rules)["choices"][0]["message"]
        assert not told["content"], text[:end]
        assert (told["content"], told.get("tool_calls", [])) == (made["content"], made["tool_calls"])
        assert made["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("is_forced", "reason"),
    [(False, FinishReason.LENGTH), (True, FinishReason.STOP)],
    ids=["free", "ended by a stop string"],
)
def test_any_other_answer_keeps_what_was_begun_of_a_call(is_forced, reason):
    rules = AnswerRules(tool_format=JSON, names=NAMES, is_forced=is_forced)
    text = JSON.spell([("add", "{}")]) + '\n{"name": "ad'
    message = folded(played(text, 3, reason=reason), rules)["choices"][0]["message"]

    assert message["content"].strip() == '{"name": "ad'
    assert len(message["tool_calls"]) == 1


def test_content_is_null_beside_calls_alone_and_text_otherwise():
    calls = HERMES.spell([("add", "{}")])

    assert folded(played(calls, 4))["choices"][0]["message"]["content"] is None
    assert accumulated(streamed(played(calls, 4)))["content"] is None
    assert folded(played("", 4))["choices"][0]["message"]["content"] == ""
    assert accumulated(streamed(played("", 4)))["content"] == ""


def test_the_older_form_has_one_call_in_the_message():
    rules = AnswerRules(tool_format=HERMES, names=NAMES, is_legacy=True)
    events = played(HERMES.spell([("add", '{"a": 1}')]), 3)
    message = folded(events, rules)["choices"][0]["message"]
    deltas = [chunk["choices"][0]["delta"].get("function_call", {}) for chunk in streamed(events, rules)]

    assert message["function_call"] == {"name": "add", "arguments": '{"a": 1}'}
    assert [delta["name"] for delta in deltas if "name" in delta] == ["add"]
    assert "".join(delta.get("arguments", "") for delta in deltas) == '{"a": 1}'


def test_a_call_says_its_id_and_name_once():
    deltas = [
        call
        for chunk in streamed(played(TEXT, 1))
        for call in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]

    assert [call["index"] for call in deltas if "id" in call] == [0, 1]
    assert [call["function"]["name"] for call in deltas if "name" in call["function"]] == ["add", "add"]
    assert all(set(call) == {"index", "function"} for call in deltas if "id" not in call)


def test_ids_differ_between_choices_calls_and_answers():
    ids = {call_id_of(RULES, TICKET, choice, index) for choice in (0, 1) for index in (0, 1)}

    assert len(ids) == 4
    assert all(call_id.startswith("call_") for call_id in ids)
    assert len(call_id_of(AnswerRules(tool_format=MISTRAL), TICKET, 0, 0)) == 9


def test_choices_are_read_each_for_itself():
    events = [e for pair in zip(played(TEXT, 9), played(TEXT, 9, choice=1), strict=True) for e in pair]
    chunks = streamed(events, n=2)
    first, second = (accumulated(chunks, index) for index in (0, 1))

    assert first["content"] == second["content"] == "Sure."
    assert len({call["id"] for message in (first, second) for call in message["tool_calls"]}) == 4


def test_log_probabilities_and_ids_come_with_their_tokens_even_where_nothing_can_be_told():
    events = [event("<tool_", token_ids=(1, 2), logged=("<", "t")), *played('call>{"name": "add"}', 50)]
    chunks = streamed(events, logprobs=True, return_token_ids=True)
    choices = [chunk["choices"][0] for chunk in chunks]

    assert (choices[1]["delta"], choices[1]["token_ids"]) == ({}, [1, 2])
    assert len(choices[1]["logprobs"]["content"]) == 2
    assert choices[2]["token_ids"]
    assert all("token_ids" not in choice for choice in choices[3:])


@pytest.mark.parametrize("fields", [{}, {"logprobs": True}, {"return_token_ids": True}], ids=str)
def test_every_chunk_is_as_its_schema_says_and_no_more(fields):
    for chunk in streamed(played(TEXT, 4), **fields):
        assert ChatChunk.model_validate(chunk, strict=True).model_dump(exclude_unset=True) == chunk


def test_an_event_after_the_block_counts_nothing_more():
    reader = ChoiceReader(RULES)
    for e in played("<think>a</think>b", 1):
        reader.feed(e)

    assert reader.num_reasoning_tokens == len("<think>a</think>")

import pytest

from engine import ContextLengthError, RequestError
from server.prompting import known_variables, read_prompts, render_conversation, render_for_tokenize
from server.schemas.chat import ChatCompletionRequest
from server.schemas.completions import CompletionRequest
from server.schemas.tokens import TokenizeRequest
from server.settings import Settings
from server.translate.safety import SAFE_PROMPT
from tests.support.fake_engine import CARD

pytestmark = pytest.mark.anyio
USER = {"role": "user", "content": "Hi"}


def chat(**fields: object) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"model": "m", "messages": [USER], **fields})


def completion(**fields: object) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "m", "prompt": "Hi", **fields})


async def test_the_safety_prompt_is_a_system_message(engine):
    rendered = await render_conversation(engine, Settings(), chat(safe_prompt=True))

    assert rendered.text == f"system:{SAFE_PROMPT}\nuser:Hi\n"


async def test_where_the_template_knows_no_system_the_user_says_it(engine):
    engine.refuses_system = True
    rendered = await render_conversation(engine, Settings(), chat(safe_prompt=True))

    assert rendered.text == f"user:{SAFE_PROMPT}\n\nHi\n"


async def test_without_the_wish_there_is_no_safety_prompt(engine):
    assert (await render_conversation(engine, Settings(), chat(safe_prompt=False))).text == "user:Hi\n"


async def test_variables_reach_the_template(engine):
    body = chat(chat_template_kwargs={"enable_thinking": False}, reasoning_effort="low")
    await render_conversation(engine, Settings(), body)

    assert engine.options[0].variables == {"enable_thinking": False, "reasoning_effort": "low"}


async def test_a_variable_that_the_template_does_not_read_is_refused(engine):
    with pytest.raises(RequestError, match="'mood'") as caught:
        await render_conversation(engine, Settings(), chat(chat_template_kwargs={"mood": 1}))

    assert caught.value.param == "chat_template_kwargs"


async def test_or_passed_on_where_unknown_fields_are_ignored(engine):
    settings = Settings(unknown_fields="ignore")
    await render_conversation(engine, settings, chat(chat_template_kwargs={"mood": 1}))

    assert engine.options[0].variables == {"mood": 1}
    assert known_variables(engine, settings) is None


@pytest.mark.parametrize(("effort", "is_refused"), [("none", False), ("high", True)])
async def test_effort_needs_a_template_that_reads_it(engine, effort, is_refused):
    engine.template_variables = frozenset()
    if not is_refused:
        await render_conversation(engine, Settings(), chat(reasoning_effort=effort))
        assert engine.options[0].variables == {}
        return
    with pytest.raises(RequestError) as caught:
        await render_conversation(engine, Settings(), chat(reasoning_effort=effort))

    assert caught.value.param == "reasoning_effort"


async def test_a_truncated_conversation_is_shown_as_the_model_gets_it(engine):
    rendered = await render_conversation(engine, Settings(), chat(truncate_prompt_tokens=3))

    assert (rendered.text, len(rendered.token_ids)) == ("Hi\n", 3)


async def test_the_ends_of_the_prompt_reach_the_template(engine):
    body = chat(continue_final_message=True, add_generation_prompt=False, add_special_tokens=True)
    await render_conversation(engine, Settings(), body)

    options = engine.options[0]
    assert (options.continue_final_message, options.add_generation_prompt) == (True, False)
    assert options.add_special_tokens


async def test_only_prompts_that_are_echoed_are_spelled(engine):
    (plain,) = await read_prompts(engine, CARD, completion())
    (shown,) = await read_prompts(engine, CARD, completion(echo=True))

    assert (plain.token_ids, plain.text) == ((72, 105), "")
    assert (shown.token_ids, shown.text, shown.text_offsets) == ((72, 105), "Hi", (0, 1))


async def test_a_truncated_prompt_is_echoed_truncated(engine):
    (prompt,) = await read_prompts(
        engine, CARD, completion(prompt="abc", echo=True, truncate_prompt_tokens=2)
    )

    assert prompt.text == "bc"


async def test_an_id_that_is_none_cannot_be_echoed(engine):
    with pytest.raises(RequestError) as caught:
        await read_prompts(engine, CARD, completion(prompt=[2**30], echo=True))

    assert caught.value.param == "prompt"


async def test_a_gap_is_asked_for_with_the_models_own_tokens(engine):
    engine.special = {"<fim_prefix>": 0x100000, "<fim_suffix>": 0x100001, "<fim_middle>": 0x100002}
    (prompt,) = await read_prompts(engine, CARD, completion(prompt="a", suffix="b"))

    assert prompt.token_ids == (0x100000, 97, 0x100001, 98, 0x100002)


async def test_a_conversation_can_be_tokenized(engine):
    body = TokenizeRequest.model_validate({"messages": [USER]})

    assert await render_for_tokenize(engine, Settings(), body) == tuple(map(ord, "user:Hi\n"))


TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds."}}]


async def test_a_template_that_reads_tools_is_given_them(engine):
    engine.reads_tools = True
    rendered = await render_conversation(engine, Settings(), chat(tools=TOOLS))

    assert rendered.text == "user:Hi\n"
    assert [tool["function"]["name"] for tool in engine.options[0].tools] == ["add"]


async def test_any_other_is_given_a_preamble(engine):
    rendered = await render_conversation(engine, Settings(tool_format="hermes"), chat(tools=TOOLS))

    assert rendered.text.startswith("system:You can call functions.")
    assert "<tool_call>" in rendered.text
    assert engine.options[0].tools == ()


async def test_the_user_gives_the_preamble_where_the_template_knows_no_system(engine):
    engine.refuses_system = True
    rendered = await render_conversation(engine, Settings(), chat(tools=TOOLS, safe_prompt=True))

    assert rendered.text.startswith(f"user:{SAFE_PROMPT}\n\nYou can call functions.")


@pytest.mark.parametrize("reads_tools", [True, False])
async def test_where_nothing_may_be_called_nothing_is_told_of_it(engine, reads_tools):
    engine.reads_tools = reads_tools
    rendered = await render_conversation(engine, Settings(), chat(tools=TOOLS, tool_choice="none"))

    assert (rendered.text, engine.options[0].tools) == ("user:Hi\n", ())


async def test_past_reasoning_is_told_where_asked_for(engine):
    engine.template_source = "<think></think>"
    messages = [USER, {"role": "assistant", "content": "x", "reasoning": "Hm."}, USER]
    plain = await render_conversation(engine, Settings(), chat(messages=messages))
    full = await render_conversation(engine, Settings(), chat(messages=messages, include_past_reasoning=True))

    assert "Hm." not in plain.text
    assert "<think>\nHm.\n</think>\n\nx" in full.text


async def test_what_is_certain_not_to_fit_is_refused_before_it_is_encoded(engine):
    engine.special = {"<s>": 0x100000}  # one token of three letters, which the fake bound does not know

    with pytest.raises(ContextLengthError, match="at least 1200") as caught:
        await read_prompts(engine, CARD, completion(prompt="<s>" * 400))

    assert caught.value.param == "prompt"


async def test_truncation_saves_what_would_not_fit(engine):
    (prompt,) = await read_prompts(engine, CARD, completion(prompt="x" * 5000, truncate_prompt_tokens=3))

    assert prompt.token_ids == (120, 120, 120)


@pytest.mark.parametrize(
    "fields", [{"prompt": [7] * 1000}, {"prompt": ["a", "x" * 1000]}], ids=["ids", "second"]
)
async def test_a_prompt_that_leaves_no_room_is_refused(engine, fields):
    with pytest.raises(ContextLengthError, match="maximum context length is 1000 tokens") as caught:
        await read_prompts(engine, CARD, completion(**fields))

    assert caught.value.param == "prompt"


async def test_a_prompt_that_is_only_scored_may_fill_the_context(engine):
    body = completion(prompt=[7] * 1000, max_tokens=0, prompt_logprobs=0)
    (prompt,) = await read_prompts(engine, CARD, body)

    assert (len(prompt.token_ids), prompt.num_left) == (1000, 0)


async def test_the_engine_is_told_which_conversations_need_not_be_encoded(engine):
    await render_conversation(engine, Settings(), chat(), CARD.max_context)
    await render_conversation(engine, Settings(), chat(truncate_prompt_tokens=3), CARD.max_context)
    await render_conversation(engine, Settings(), chat())

    assert [options.max_context for options in engine.options] == [CARD.max_context, None, None]


async def test_a_conversation_that_does_not_fit_is_not_tried_with_another_role(engine):
    async def too_long(messages, options):
        engine.messages.append(messages)
        raise ContextLengthError("too long", "messages")

    engine.render_chat = too_long
    with pytest.raises(ContextLengthError):
        await render_conversation(engine, Settings(), chat(safe_prompt=True))

    assert len(engine.messages) == 1


async def test_two_efforts_that_differ_are_refused(engine):
    agreeing = chat(chat_template_kwargs={"reasoning_effort": "low"}, reasoning_effort="low")
    await render_conversation(engine, Settings(), agreeing)
    body = chat(chat_template_kwargs={"reasoning_effort": "high"}, reasoning_effort="low")
    with pytest.raises(RequestError) as caught:
        await render_conversation(engine, Settings(), body)

    assert caught.value.param == "reasoning_effort"


async def test_an_empty_text_is_the_start_of_a_document(engine):
    engine.special = {"<s>": 0x100000}
    (started,) = await read_prompts(engine, CARD, completion(prompt=""))
    (bare,) = await read_prompts(engine, CARD, completion(prompt="", add_special_tokens=False))

    assert (started.token_ids, bare.token_ids) == ((0x100000,), ())

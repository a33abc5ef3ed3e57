"""langchain-openai: chat, streaming, batches, usage, log-probabilities, completions, errors, tools."""

import json
import sys
from typing import Literal

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI

asked = json.loads(sys.argv[1])


@tool
def get_weather(city: Literal["Paris", "London"], days: Literal[1, 2, 3]) -> str:
    """Get the weather of a city."""
    return f"Sunny in {city} for {days} days."


options = {
    "base_url": asked["url"],
    "api_key": "any",
    "model": asked["model"],
    "temperature": 0,
    "max_tokens": 12,
    "max_retries": 0,
}
messages = [SystemMessage("Answer in one sentence."), HumanMessage(asked["question"])]
chat = ChatOpenAI(**options)
whole = chat.invoke(messages)
chunks = list(ChatOpenAI(**options, stream_usage=True).stream(messages))
streamed = chunks[0]
for chunk in chunks[1:]:
    streamed += chunk
detailed = ChatOpenAI(**options, logprobs=True, top_logprobs=3).invoke(messages)
try:
    chat.bind(temperature=9).invoke(messages)
    refusal = "none"
except openai.BadRequestError as error:
    refusal = str(error.param)
calling = ChatOpenAI(**{**options, "max_tokens": 60}).bind_tools(
    [get_weather], tool_choice="required", strict=True, parallel_tool_calls=False
)
called = calling.invoke(messages)
fragments = list(calling.stream(messages))
gathered = fragments[0]
for fragment in fragments[1:]:
    gathered += fragment
results = [get_weather.invoke(call) for call in called.tool_calls]
told = (
    ChatOpenAI(**options).bind_tools([get_weather], tool_choice="none").invoke([*messages, called, *results])
)
answer = {
    "calls": [[call["name"], call["args"]] for call in called.tool_calls],
    "streamed_calls": [[call["name"], call["args"]] for call in gathered.tool_calls],
    "told": told.content,
    "text": whole.content,
    "finish_reason": whole.response_metadata["finish_reason"],
    "usage": whole.usage_metadata["output_tokens"],
    "streamed_text": streamed.content,
    "streamed_usage": streamed.usage_metadata["output_tokens"],
    "num_chunks": len(chunks),
    "batch": [one.content for one in chat.batch([messages, messages])],
    "logprobs": [
        {"chosen": entry["logprob"], "num_top": len(entry["top_logprobs"])}
        for entry in detailed.response_metadata["logprobs"]["content"]
    ],
    "completion": OpenAI(**options).invoke(asked["prompt"]),
    "refusal": refusal,
}
sys.stdout.write(json.dumps(answer) + "\n")

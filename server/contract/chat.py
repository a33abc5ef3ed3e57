"""The fields of a chat body, and of the messages in it."""

from server.contract.constraint import PEERS
from server.contract.fields import hint, refused, works
from server.contract.generation import GENERATION

TEXT_PART = [{"type": "text", "text": "Hi"}]

MESSAGE = (
    works("messages[].role", "user", "system, developer, user, assistant, tool or function."),
    works("messages[].content", TEXT_PART, "A string, or an array of text parts; null beside calls."),
    works("messages[].name", "ann", "Who speaks, where the chat template uses it."),
    works("messages[].refusal", "No.", "Of an assistant, in the place of content."),
    works(
        "messages[].tool_calls",
        [],
        "Of an assistant: the calls it made, each answered by a tool's message behind it.",
    ),
    works("messages[].tool_call_id", "c1", "Of a tool: the call that it answers."),
    works(
        "messages[].function_call",
        {"name": "f", "arguments": "{}"},
        "Of an assistant: the older form of a single call, answered by a function's message.",
    ),
    works(
        "messages[].reasoning",
        "Hm.",
        "Of an assistant: its reasoning; left out of the prompt but with include_past_reasoning.",
        source=PEERS,
    ),
    works("messages[].reasoning_content", "Hm.", "Another name of it.", source=PEERS),
    refused("messages[].audio", {"id": "a"}, "A text model has no audio."),
    refused("messages[].annotations", [{"type": "x"}], "A text model has no annotations.", neutral=([],)),
)

TEMPLATE = (
    works(
        "chat_template_kwargs",
        {},
        "More variables for the chat template, which has to use them.",
        source=PEERS,
    ),
    works("add_generation_prompt", True, "Open the assistant's answer; true if left out.", source=PEERS),
    works(
        "continue_final_message",
        True,
        "Go on with the last message instead of answering it.",
        source=PEERS,
        add_generation_prompt=False,
    ),
    works("add_special_tokens", False, "Add the model's own tokens to those of the template.", source=PEERS),
    works("reasoning_effort", "none", "Passed to chat templates that use it; others take none only."),
    works(
        "include_past_reasoning",
        True,
        "Put the reasoning of earlier turns into the prompt; false if left out.",
        source="ringserve",
    ),
    works("safe_prompt", True, "Put the safety prompt of the Mistral 7B paper in front.", source="Mistral"),
    refused(
        "chat_template", "{{ 1 }}", "Templates are foreign code; set one with --chat-template.", source=PEERS
    ),
    refused("documents", [{}], "No retrieval here; write documents into the messages.", source=PEERS),
)

_TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
_FUNCTIONS = [{"name": "f", "parameters": {"type": "object"}}]

TOOLS = (
    works(
        "tools",
        _TOOLS,
        "Up to 128 functions that may be called; custom tools are refused. A strict function's arguments "
        "always fit its schema.",
    ),
    works(
        "tool_choice",
        "required",
        "none, auto, required, a named function, or allowed_tools; auto if left out. What must be called "
        "is constrained to the schema.",
        tools=_TOOLS,
    ),
    works("parallel_tool_calls", False, "False allows one call at most; true if left out.", tools=_TOOLS),
    works("functions", _FUNCTIONS, "The older form of tools: one call at most, told as function_call."),
    works("function_call", {"name": "f"}, "The older form of tool_choice.", functions=_FUNCTIONS),
)

REFUSED = (
    refused("modalities", ["text", "audio"], "A text model answers in text.", neutral=(["text"],)),
    refused("audio", {"voice": "x"}, "A text model has no audio."),
    refused("verbosity", "low", "No model here knows it; say it in a message.", neutral=("medium",)),
    refused("web_search_options", {}, "This server searches no web."),
    refused("moderation", {}, "No moderation here; see safe_prompt."),
    refused("prompt_cache_options", {}, "There is no prompt cache to steer."),
)

HINTS = (
    hint(
        "prediction",
        {"type": "content", "content": "Hi"},
        "Accepted as a hint that may speed the answer up; without effect so far.",
    ),
)

CHAT = (
    works("messages", [{"role": "user", "content": "Hi"}], "The conversation so far, oldest first."),
    *MESSAGE,
    *GENERATION,
    works("max_completion_tokens", 5, "Most tokens of one choice; what is left of the context if left out."),
    works("logprobs", True, "Tell the log-probability of each token."),
    works("top_logprobs", 2, "And of this many alternatives to each.", logprobs=True),
    *TOOLS,
    *TEMPLATE,
    *HINTS,
    *REFUSED,
)

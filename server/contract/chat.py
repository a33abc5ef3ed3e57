"""The fields of a chat body, and of the messages in it."""

from server.contract.constraint import PEERS
from server.contract.fields import hint, refused, works
from server.contract.generation import GENERATION

TEXT_PART = [{"type": "text", "text": "Hi"}]

MESSAGE = (
    works("messages[].role", "user", "system, developer, user, assistant or tool."),
    works("messages[].content", TEXT_PART, "A string, or an array of text parts."),
    works("messages[].name", "ann", "Who speaks, where the chat template uses it."),
    works("messages[].refusal", "No.", "Of an assistant, in the place of content."),
    works("messages[].tool_call_id", "c1", "Of a tool: the call that it answers."),
    refused("messages[].tool_calls", [{"id": "c1"}], "Tool calls are not built yet.", neutral=([],)),
    refused("messages[].function_call", {"name": "f"}, "Function calls are not built yet."),
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
    works("safe_prompt", True, "Put the safety prompt of the Mistral 7B paper in front.", source="Mistral"),
    refused(
        "chat_template", "{{ 1 }}", "Templates are foreign code; set one with --chat-template.", source=PEERS
    ),
    refused("documents", [{}], "No retrieval here; write documents into the messages.", source=PEERS),
)

REFUSED = (
    refused("tools", [{"type": "function"}], "Tool calls are not built yet.", neutral=([],)),
    refused("tool_choice", "required", "Tool calls are not built yet.", neutral=("none", "auto")),
    refused("parallel_tool_calls", False, "Tool calls are not built yet.", neutral=(True,)),
    refused("functions", [{"name": "f"}], "Function calls are not built yet.", neutral=([],)),
    refused("function_call", {"name": "f"}, "Function calls are not built yet.", neutral=("none", "auto")),
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
    *TEMPLATE,
    *HINTS,
    *REFUSED,
)

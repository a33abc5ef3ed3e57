"""Every endpoint with a body, and what this server does with each of its fields."""

from collections.abc import Mapping

from server.contract.chat import CHAT, MESSAGE, TEMPLATE
from server.contract.constraint import PEERS
from server.contract.fields import ContractField, works
from server.contract.generation import COMPLETIONS

_MODEL = works("model", None, "Id of the served model; may be left out.", source=PEERS)
_TEMPLATE = tuple(
    field
    for field in TEMPLATE
    if field.name in ("chat_template_kwargs", "add_generation_prompt", "continue_final_message")
)

TOKENIZE = (
    _MODEL,
    works("prompt", "Hi", "Text to encode; this or messages.", source=PEERS),
    works(
        "messages", [{"role": "user", "content": "Hi"}], "A conversation, as its chat prompt.", source=PEERS
    ),
    *MESSAGE,
    works(
        "add_special_tokens", False, "Add the model's own tokens; true for a text if left out.", source=PEERS
    ),
    works("return_token_strs", True, "Add the text of each token.", source=PEERS),
    *_TEMPLATE,
)

DETOKENIZE = (_MODEL, works("tokens", [72, 105], "Token ids to decode.", source=PEERS))

ENDPOINTS: Mapping[str, tuple[ContractField, ...]] = {
    "POST /v1/chat/completions": CHAT,
    "POST /v1/chat/completions/render": CHAT,
    "POST /v1/completions": COMPLETIONS,
    "POST /tokenize": TOKENIZE,
    "POST /detokenize": DETOKENIZE,
}

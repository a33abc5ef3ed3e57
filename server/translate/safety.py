"""The guardrail prompt of the Mistral 7B paper, in front of a conversation.

Source: Jiang et al. 2023, Mistral 7B, section 4, whose words it quotes.
"""

from collections.abc import Mapping, Sequence

SAFE_PROMPT = (
    "Always assist with care, respect, and truth. Respond with utmost utility yet securely. "
    "Avoid harmful, unethical, prejudiced, or negative content. "
    "Ensure replies promote fairness and positivity."
)


def with_safe_prompt(messages: Sequence[Mapping[str, object]], role: str) -> list[dict[str, object]]:
    """`messages` with the safety prompt in front of the first one, if `role` says it, else as a message.

    A conversation that has it already is left alone. `role` is system, or user for templates that
    know no system.
    """
    copies = [dict(message) for message in messages]
    if any(
        SAFE_PROMPT in str(message.get("content"))
        for message in copies
        if message["role"] in ("system", role)
    ):
        return copies
    first = next((message for message in copies if message["role"] == role), None)
    if first is None or (role == "system" and first is not copies[0]):
        return [{"role": role, "content": SAFE_PROMPT}, *copies]
    first["content"] = f"{SAFE_PROMPT}\n\n{first['content']}"
    return copies

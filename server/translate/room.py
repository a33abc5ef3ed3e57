"""`Room`: whether a prompt and what is to follow it fit into the model's context, and which field is to blame.

The engine sees token ids; only a body's own names for prompt and limit help its sender.
"""

from dataclasses import dataclass

from engine import ContextLengthError


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A model's context, and what a body asks of it.

    `prompt_field` is where the prompt stands, and `max_tokens` what stands in `limit_field` (None: the
    body has no limit, so that an answer takes what is left).
    """

    max_context: int
    prompt_field: str
    max_tokens: int | None
    limit_field: str = "max_tokens"

    @property
    def max_prompt_tokens(self) -> int:
        """Most tokens of a prompt that leaves room for a token, if one is to be generated."""
        return self.max_context - (0 if self.max_tokens == 0 else 1)

    def left_behind(self, num_prompt_tokens: int) -> int:
        """Tokens that may follow the prompt; ContextLengthError where that is not what the body needs."""
        if num_prompt_tokens > self.max_prompt_tokens:
            raise ContextLengthError.of_prompt(num_prompt_tokens, self.max_context, self.prompt_field)
        left = self.max_context - num_prompt_tokens
        if self.max_tokens is not None and self.max_tokens > left:
            raise ContextLengthError(
                f"This model's maximum context length is {self.max_context} tokens, but "
                f"{num_prompt_tokens + self.max_tokens} were requested: {num_prompt_tokens} in the "
                f"{self.prompt_field} and {self.max_tokens} for the completion. Shorten the "
                f"{self.prompt_field} or lower {self.limit_field}.",
                self.limit_field,
            )
        return left

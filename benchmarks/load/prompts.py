"""Prompts of an exact number of tokens, as ids or as text. It knows no tokenizer: it asks the server.

A text is made of words that are one token each. Which of the words below are, in the served model's
vocabulary, is found by asking for prompts and reading `usage.prompt_tokens`: a list of words that is
repeated must cost as many tokens more as it has words. What a chat template or a beginning-of-text token
adds is found in the same way, and a text is made shorter by it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

FIRST_ID, LAST_ID = 1_000, 20_000
COMMON_WORDS = """
the of and to in is that it was for on are as with his they be at one have this from or had by hot but some
what there we can out other were all your when up use word how said an each she which do their time if will
way about many then them would write like so these her long make thing see him two has look more day could
go come did my sound no most number who over know water than call first people may down side been now find
any new work part take get place made live where after back little only round man year came show every good
me give our under name very through just form much great think say help low line before turn cause same mean
differ move right boy old too does tell sentence set three want air well also play small end put home read
hand port large spell add even land here must big high such
"""

CountTokens = Callable[[str], Awaitable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptForm:
    """How numbers become a prompt: ids if `words` is None, else text of those words.

    `extra_tokens` are those the server adds to every text by itself.
    """

    words: tuple[str, ...] | None = None
    extra_tokens: int = 0
    first_id: int = FIRST_ID
    last_id: int = LAST_ID

    @property
    def num_words(self) -> int:
        """How many different numbers there are for a token."""
        return len(self.words) if self.words is not None else self.last_id - self.first_id

    def prompt(self, numbers: Sequence[int]) -> str | list[int]:
        """The prompt of as many tokens as there are numbers, with what the server adds."""
        if self.words is None:
            return [self.first_id + number for number in numbers]
        if len(numbers) <= self.extra_tokens:
            raise ValueError(
                f"a prompt of {len(numbers)} tokens cannot be made: the server adds {self.extra_tokens}"
            )
        return " ".join(self.words[number] for number in numbers[: len(numbers) - self.extra_tokens])


async def find_text_form(count_tokens: CountTokens, words: str = COMMON_WORDS) -> PromptForm:
    """The form for texts: which words are one token each, and what the server adds."""
    kept = await _single_tokens(count_tokens, words.split())
    if not kept:
        raise ValueError("the served model has no word that is one token; send ids instead")
    sample = " ".join(kept)
    extra = await count_tokens(sample) - len(kept)
    return PromptForm(words=kept, extra_tokens=extra)


async def _single_tokens(count_tokens: CountTokens, words: Sequence[str]) -> tuple[str, ...]:
    """Those words that cost one token: halves of a list that costs more are looked at by themselves."""
    once = await count_tokens(" ".join(words))
    twice = await count_tokens(" ".join([*words, *words]))
    if twice - once == len(words):
        return tuple(words)
    if len(words) == 1:
        return ()
    middle = len(words) // 2
    return (
        *await _single_tokens(count_tokens, words[:middle]),
        *await _single_tokens(count_tokens, words[middle:]),
    )

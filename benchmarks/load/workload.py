"""What a load asks for: how many requests, when, how long, what they share. It knows no server.

Everything random is drawn from the load's seed, so two servers given the same load are asked the same.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Pattern = Literal["poisson", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A number of tokens: from `least` to `most`, both included, each as likely."""

    least: int
    most: int

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ValueError(f"{self.least}:{self.most} is no span of token counts")

    @classmethod
    def read(cls, text: str) -> "Span":
        """`64` is always 64, `32:512` anything between."""
        least, _, most = text.partition(":")
        return cls(least=int(least), most=int(most or least))

    def draw(self, rng: random.Random) -> int:
        """One number of tokens."""
        return rng.randint(self.least, self.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load.

    Closed loop: `concurrency` clients, each sends its next request when its last one is answered. Open
    loop, if `rate_per_s` is set: requests come at that rate whether or not others are answered, and
    `concurrency` is not used. `shared_tokens` of each prompt are the same for all requests of a group,
    and count towards `input_tokens`. `num_warmup` requests are sent before, with other prompts, and not
    measured.
    """

    num_requests: int
    input_tokens: Span
    output_tokens: Span
    concurrency: int = 1
    rate_per_s: float | None = None
    pattern: Pattern = "poisson"
    shared_tokens: int = 0
    num_groups: int = 1
    num_warmup: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.num_requests, self.concurrency, self.num_groups, self.output_tokens.least) < 1:
            raise ValueError("requests, concurrency, groups and output tokens are at least 1")
        if self.rate_per_s is not None and self.rate_per_s <= 0:
            raise ValueError(f"{self.rate_per_s} requests a second is no rate")
        if not 0 <= self.shared_tokens < self.input_tokens.least:
            raise ValueError(
                f"{self.shared_tokens} shared tokens leave nothing to a prompt of {self.input_tokens.least}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request to send. `prompt` holds a number per token, for a PromptForm to turn into a prompt.

    `due_s` is when, in seconds after the load's start; None in a closed loop.
    """

    prompt: tuple[int, ...]
    output_tokens: int
    due_s: float | None


def plan_orders(load: Load, num_words: int) -> tuple[Order, ...]:
    """The measured requests of `load`; a token is drawn from `range(num_words)`."""
    rng = random.Random(load.seed)
    return _draw_orders(load, rng, num_words, due_s=arrivals(load))


def plan_warmup(load: Load, num_words: int) -> tuple[Order, ...]:
    """Requests like those of `load`, but with prompts of their own and at most 8 output tokens."""
    rng = random.Random(f"warm-up {load.seed}")
    drawn = _draw_orders(load, rng, num_words, due_s=[None] * load.num_warmup)
    return tuple(
        Order(prompt=order.prompt, output_tokens=min(order.output_tokens, 8), due_s=None) for order in drawn
    )


def arrivals(load: Load) -> list[float | None]:
    """When each request is due; Nones in a closed loop.

    At a constant rate of 4 a second: 0, 0.25, 0.5 … As a Poisson process the first comes at 0 too, and
    the gaps are exponential with the same mean.
    """
    if load.rate_per_s is None:
        return [None] * load.num_requests
    rng = random.Random(f"arrivals {load.seed}")
    due_s, times = 0.0, []
    for _ in range(load.num_requests):
        times.append(due_s)
        due_s += 1 / load.rate_per_s if load.pattern == "constant" else rng.expovariate(load.rate_per_s)
    return list(times)


def _draw_orders(
    load: Load, rng: random.Random, num_words: int, due_s: list[float | None]
) -> tuple[Order, ...]:
    shared = [_draw_tokens(rng, load.shared_tokens, num_words) for _ in range(load.num_groups)]
    return tuple(_draw_each(load, rng, num_words, due_s, shared))


def _draw_each(
    load: Load,
    rng: random.Random,
    num_words: int,
    due_s: list[float | None],
    shared: list[tuple[int, ...]],
) -> Iterator[Order]:
    for index, due in enumerate(due_s):
        own_tokens = load.input_tokens.draw(rng) - load.shared_tokens
        prefix = shared[index % load.num_groups]
        yield Order(
            prompt=prefix + _draw_tokens(rng, own_tokens, num_words),
            output_tokens=load.output_tokens.draw(rng),
            due_s=due,
        )


def _draw_tokens(rng: random.Random, count: int, num_words: int) -> tuple[int, ...]:
    return tuple(rng.randrange(num_words) for _ in range(count))

"""Requests in one line."""

from collections.abc import Iterable

from engine.request import Request, SamplingParams


def new_request(
    prompt: str | Iterable[int] = "hello",
    *,
    request_id: str = "a",
    max_tokens: int = 50,
    num_choices: int = 1,
    stop: tuple[str, ...] = (),
    logprobs: bool = False,
    grammar: str = "",
) -> Request:
    prompt_ids = tuple(prompt.encode()) if isinstance(prompt, str) else tuple(prompt)
    sampling = SamplingParams(max_tokens=max_tokens, seed=1, stop=stop, logprobs=logprobs, grammar=grammar)
    return Request(request_id=request_id, prompt_ids=prompt_ids, sampling=sampling, num_choices=num_choices)

"""`Limits`: which requests an engine refuses at its door, for good or for now."""

from engine.config import SchedulingConfig
from engine.errors import ContextLengthError, OverloadedError, RateLimitedError, RequestError
from engine.messages import ModelCard
from engine.open_requests import OpenRequests
from engine.request import Request

LONGEST_RETRY_S = 30.0


class Limits:
    """Compares a request with what the engine was built for, and with what is under way."""

    def __init__(self, config: SchedulingConfig, requests: OpenRequests) -> None:
        self._config = config
        self._requests = requests

    def refuse_misfit(self, request: Request, card: ModelCard) -> None:
        """RequestError for what this model, or one request at a time, can never do."""
        if request.request_id in self._requests:
            raise RequestError(
                f"request id {request.request_id!r} is under way; ids must differ", "request_id"
            )
        request.refuse_foreign_ids(card.vocab_size)
        if request.max_total_tokens > card.max_context:
            raise ContextLengthError(
                f"This model's maximum context length is {card.max_context} tokens, but "
                f"{request.max_total_tokens} were requested: {len(request.prompt_ids)} in the prompt and "
                f"{request.sampling.max_tokens} for the completion. Shorten the prompt or lower max_tokens.",
                "max_tokens" if len(request.prompt_ids) < card.max_context else None,
            )
        most = min(self._max_sequences, self._config.max_per_key or self._max_sequences)
        if request.num_choices > most:
            raise RequestError(f"n is {request.num_choices}; at most {most} fit here", "n")

    def refuse_overload(self, request: Request) -> None:
        """RateLimitedError if the caller has enough under way, OverloadedError if there is no place at all.

        To be tried again when what is under way has been served.
        """
        if self._config.max_per_key is not None:
            self._refuse_greed(request, self._config.max_per_key)
        num_open = self._requests.num_sequences
        if num_open + request.num_choices <= self._max_sequences:
            return
        max_running = self._config.max_running
        retry_after_s = self._retry_after_s(max(0, num_open - max_running) / max_running)
        raise OverloadedError(
            f"{num_open} sequences are running or waiting, of at most {self._max_sequences}; "
            f"try again in {retry_after_s:.0f} s",
            retry_after_s,
        )

    def _refuse_greed(self, request: Request, limit: int) -> None:
        num_own = self._requests.num_sequences_of(request.caller)
        if num_own + request.num_choices > limit:
            retry_after_s = self._retry_after_s(1.0)
            raise RateLimitedError(
                f"{num_own} sequences of this API key are running or waiting, of at most {limit}; "
                f"try again in {retry_after_s:.0f} s",
                retry_after_s,
            )

    def _retry_after_s(self, num_rounds: float) -> float:
        """How long so many requests after each other take, as far as is known; within sensible bounds."""
        return min(max(1.0, num_rounds * self._requests.mean_duration_s), LONGEST_RETRY_S)

    @property
    def _max_sequences(self) -> int:
        return self._config.max_running + self._config.max_waiting

"""What the generating endpoints do alike: find the model, name the answer, fold a whole one.

A route is: translate, submit, render; this is what lies between. It knows no wire format.
"""

import asyncio
import secrets
from collections.abc import Mapping
from hashlib import sha256
from typing import Protocol

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from starlette.types import Receive

from engine import (
    Engine,
    EngineUnavailableError,
    ModelCard,
    RequestError,
    TokenEvent,
    UnknownModelError,
)
from server.dependencies import Caller
from server.schemas.common import WireModel, unknown_fields
from server.settings import Settings
from server.streams import MergedStreams
from server.translate.generation import Ticket

CLIENT_GONE = 499  # for the log only: nobody reads this answer


class Fold(Protocol):
    """Gathers the events of one answer."""

    def add(self, prompt_index: int, event: TokenEvent) -> None:
        """Take the next event."""

    def to_json(self) -> str:
        """The whole answer, once every choice has ended."""


def served_names(engine: Engine, settings: Settings) -> tuple[str, ...]:
    """The names that the model answers to, its own first."""
    return tuple(dict.fromkeys((engine.model_id, *settings.served_model_name)))


def require_model(engine: Engine, settings: Settings, model_id: str) -> None:
    """Raise UnknownModelError unless `model_id` is a name of the model that is served."""
    names = served_names(engine, settings)
    if model_id not in names:
        known = "', '".join(names)
        raise UnknownModelError(
            f"The model '{model_id}' does not exist here; this server serves '{known}'", "model"
        )


def require_card(engine: Engine, settings: Settings, model_id: str) -> ModelCard:
    """The facts of the model that a body names; raises where there is no such model, or not yet."""
    require_model(engine, settings, model_id)
    card = engine.card
    if card is None:
        raise unavailable(engine)
    return card


def refuse_unknown(settings: Settings, body: WireModel) -> None:
    """Refuse a body with fields that nobody knows, unless the server was told to ignore them."""
    if settings.unknown_fields == "ignore":
        return
    for *steps, name in unknown_fields(body):
        location = ("body", *steps, name)
        raise RequestValidationError(
            [{"type": "extra_forbidden", "loc": location, "msg": ""}], body=body.model_dump()
        )


def require_logprobs(settings: Settings, limits: Mapping[str, tuple[int | None, int]]) -> None:
    """Raise RequestError where more alternatives are asked for than the server tells.

    `limits` has, by parameter, the number asked for and what is allowed without `--max-logprobs`.
    """
    for param, (asked, default) in limits.items():
        allowed = default if settings.max_logprobs is None else settings.max_logprobs
        if asked is not None and asked > allowed:
            raise RequestError(f"{param} is {asked}; at most {allowed} are told here", param)


def require_places(settings: Settings, num_sequences: int) -> None:
    """Raise RequestError for more choices than could ever be open at once: waiting would not help."""
    num_places = settings.max_running + settings.max_waiting
    num_places = min(num_places, settings.max_per_key or num_places)
    if num_sequences > num_places:
        raise RequestError(
            f"The request asks for {num_sequences} choices over all its prompts; this server holds at most "
            f"{num_places} at once for one caller; send fewer prompts or a smaller n",
            "n",
        )


def unavailable(engine: Engine) -> EngineUnavailableError:
    """Why the engine does not answer now, in its own words."""
    return engine.health().to_error()


def new_ticket(prefix: str, card: ModelCard, caller: Caller, model_id: str, settings: Settings) -> Ticket:
    """The identity of a new answer from the model, under the name `model_id`, and a random seed for it."""
    return Ticket(
        answer_id=f"{prefix}-{caller.number}",
        created_s=caller.arrived_s,
        model_id=model_id,
        fingerprint=f"fp_{sha256(repr(card).encode()).hexdigest()[:10]}",
        seed=secrets.randbits(64),
        caller=caller.name,
        max_timeout_s=settings.request_timeout_s,
    )


async def answer_whole(receive: Receive, streams: MergedStreams, fold: Fold) -> Response:
    """Gather the streams into one answer beside a watcher of the connection; both end here.

    A client that goes away cancels its answer, which aborts its requests.
    """
    folding = asyncio.create_task(_fold(streams, fold))
    watching = asyncio.create_task(_watch(receive))
    try:
        await asyncio.wait({folding, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not folding.done():
            return Response(status_code=CLIENT_GONE)
        return Response(folding.result(), media_type="application/json")
    finally:
        folding.cancel()
        watching.cancel()
        await asyncio.gather(folding, watching, return_exceptions=True)
        await streams.aclose()


async def _fold(streams: MergedStreams, fold: Fold) -> str:
    while arrived := await streams.ready():
        for index, event in arrived:
            fold.add(index, event)
    return fold.to_json()


async def _watch(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

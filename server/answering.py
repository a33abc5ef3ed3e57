"""What the generating endpoints do alike: find the model, name the answer, fold a whole one.

A route is: translate, submit, render; this is what lies between. It knows no wire format.
"""

import asyncio
import secrets
from hashlib import sha256
from typing import Protocol

from fastapi import Response
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


def require_model(engine: Engine, model_id: str) -> None:
    """Raise UnknownModelError unless `model_id` is the model that is served."""
    if model_id != engine.model_id:
        raise UnknownModelError(
            f"The model '{model_id}' does not exist here; this server serves '{engine.model_id}'", "model"
        )


def require_card(engine: Engine, model_id: str) -> ModelCard:
    """The facts of the model that a body names; raises where there is no such model, or not yet."""
    require_model(engine, model_id)
    card = engine.card
    if card is None:
        raise unavailable(engine)
    return card


def require_places(settings: Settings, num_sequences: int) -> None:
    """Raise RequestError for more choices than could ever be open at once: waiting would not help."""
    num_places = settings.max_running + settings.max_waiting
    if num_sequences > num_places:
        raise RequestError(
            f"The request asks for {num_sequences} choices over all its prompts; this server holds at most "
            f"{num_places} at once; send fewer prompts or a smaller n",
            "n",
        )


def unavailable(engine: Engine) -> EngineUnavailableError:
    """Why the engine does not answer now, in its own words."""
    return engine.health().to_error()


def new_ticket(prefix: str, card: ModelCard, caller: Caller) -> Ticket:
    """The identity of a new answer, and a random seed for it."""
    return Ticket(
        answer_id=f"{prefix}-{caller.number}",
        created_s=caller.arrived_s,
        model_id=card.model_id,
        fingerprint=f"fp_{sha256(repr(card).encode()).hexdigest()[:10]}",
        seed=secrets.randbits(64),
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

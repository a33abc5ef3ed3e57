"""What a route may ask for: the engine, the settings, and who is calling.

This module knows where the app keeps them, and nothing of what routes do with them.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from engine import Engine
from server.middleware import CALLER, NUMBER, REQUEST_ID
from server.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent a request, and when (wall-clock seconds since the epoch).

    `name` is a short digest of the key, or `anonymous` where none is needed. `number` is the request's
    own, which its answer is named after; `request_id` may be the client's choice.
    """

    name: str
    request_id: str
    number: str
    arrived_s: float


# All of them async: the framework runs any other kind on a thread, which takes longer than all they do.
async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


# The middleware has let the request in already; this puts the scheme into the OpenAPI document.
_bearer = HTTPBearer(auto_error=False, description="Needed where the server was given API keys.")


async def _caller(request: Request, _: Annotated[object, Security(_bearer)]) -> Caller:
    return Caller(
        name=getattr(request.state, CALLER, "anonymous"),
        request_id=getattr(request.state, REQUEST_ID),
        number=getattr(request.state, NUMBER),
        arrived_s=request.app.state.clock(),
    )


EngineDep = Annotated[Engine, Depends(_engine)]
SettingsDep = Annotated[Settings, Depends(_settings)]
CallerDep = Annotated[Caller, Depends(_caller)]

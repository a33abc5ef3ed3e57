"""What a route may ask for: the engine, the settings, who is calling, and when it is.

This module knows where the app keeps them, and nothing of what routes do with them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from engine import Engine
from server.middleware import CALLER, REQUEST_ID
from server.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent a request: `name` is a short digest of the key, or `anonymous` where none is needed."""

    name: str
    request_id: str


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _clock(request: Request) -> Callable[[], float]:
    clock: Callable[[], float] = request.app.state.clock
    return clock


# The middleware has let the request in already; this puts the scheme into the OpenAPI document.
_bearer = HTTPBearer(auto_error=False, description="Needed where the server was given API keys.")


def _caller(request: Request, _: Annotated[object, Security(_bearer)]) -> Caller:
    return Caller(
        name=getattr(request.state, CALLER, "anonymous"), request_id=getattr(request.state, REQUEST_ID)
    )


EngineDep = Annotated[Engine, Depends(_engine)]
SettingsDep = Annotated[Settings, Depends(_settings)]
ClockDep = Annotated[Callable[[], float], Depends(_clock)]
CallerDep = Annotated[Caller, Depends(_caller)]

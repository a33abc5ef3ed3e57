"""The HTTP application: routers, middlewares and error handlers around one engine."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from engine import Engine, EngineError, RetryableError
from server.errors import from_engine_error, from_http_error, from_validation
from server.keys import Keyring
from server.metrics.collector import installed_version
from server.metrics.http import HttpTally
from server.metrics.registry import Registry
from server.middleware import LimitBody, RequestId, RequireKey, UnderRoot
from server.routes import cache, chat, completions, contract, health, metrics, models, stats, tokens
from server.settings import Settings
from server.traces import Traces

ROUTERS = (
    chat.router,
    completions.router,
    tokens.router,
    models.router,
    contract.router,
    cache.router,
    health.router,
    metrics.router,
    stats.router,
)

logger = logging.getLogger(__name__)


def create_app(
    settings: Settings, engine: Engine, *, is_started: bool = False, clock: Callable[[], float] = time.time
) -> FastAPI:
    """The application that serves `engine`, and stops it at the end of its lifespan.

    The lifespan also starts the engine, unless `is_started` says that it was. `clock` gives
    wall-clock seconds since the epoch.
    """

    traces = _open_traces(settings, engine)
    observers = () if traces is None else (traces.observe,)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if not is_started:
            await engine.start()
        try:
            yield
        finally:
            await engine.stop(settings.drain_s)
            if traces is not None:
                await asyncio.to_thread(traces.close)

    http = HttpTally()
    app = FastAPI(
        title="ringserve",
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
        middleware=[
            Middleware(UnderRoot, root_path=settings.root_path),
            *_cross_origin(settings),
            Middleware(RequestId, http=http, observers=observers),
            Middleware(RequireKey, keyring=Keyring(settings.scopes_by_digest)),
            Middleware(LimitBody, max_body_bytes=int(settings.max_body_bytes)),
        ],
        exception_handlers={
            EngineError: _on_engine_error,
            RequestValidationError: _on_invalid_body,
            HTTPException: _on_http_error,
        },
    )
    for router in ROUTERS:
        app.include_router(router)
    app.state.settings, app.state.engine, app.state.clock = settings, engine, clock
    app.state.registry = Registry(engine, http)
    app.state.started_s = int(clock())
    return app


def _open_traces(settings: Settings, engine: Engine) -> Traces | None:
    """What sends traces, where they are asked for."""
    if settings.otlp_endpoint is None:
        return None
    return Traces.open(settings.otlp_endpoint, engine.model_id, version=installed_version())


def _cross_origin(settings: Settings) -> list[Middleware]:
    """What lets pages of other origins call the API; nothing unless origins are given.

    It stands before the check of keys, since a browser asks for permission without one, and around all
    that answers, since a browser shows its page no answer that does not allow it.
    """
    if not settings.cors_origin:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origin,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "x-should-retry", "retry-after"],
        )
    ]


async def _on_engine_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    refusal = from_engine_error(error)
    if refusal.status >= 500 and not isinstance(error, RetryableError):  # what passes by itself is no news
        logger.warning(
            "request refused id=%s error=%s message=%r",
            request.state.request_id,
            type(error).__name__,
            error.message,
        )
    return refusal.to_response()


async def _on_invalid_body(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return from_validation(error.errors(), error.body).to_response()


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return from_http_error(error, request.method, request.url.path).to_response()

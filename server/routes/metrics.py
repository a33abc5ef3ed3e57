"""GET /metrics: the server's figures in Prometheus' text format, or OpenMetrics where it is asked for."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from prometheus_client.exposition import choose_encoder

from server.dependencies import CallerDep
from server.schemas.common import answers_with

router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=Response, responses=answers_with())
async def get_metrics(
    request: Request, _: CallerDep, accept: Annotated[str, Header()] = "text/plain"
) -> Response:
    """Tell all counters, gauges and histograms."""
    encode, content_type = choose_encoder(accept)
    snapshot = request.app.state.registry.snapshot()
    return Response(await asyncio.to_thread(encode, snapshot), media_type=content_type)

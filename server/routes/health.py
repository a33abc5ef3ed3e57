"""GET /health says that the server lives, GET /ready that the engine takes requests. Neither needs a key."""

from fastapi import APIRouter

from engine import EngineState, Health
from server.answering import unavailable
from server.dependencies import EngineDep
from server.schemas.common import HealthReport, LoadReport, answers_with

router = APIRouter(tags=["health"])


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def get_health(engine: EngineDep) -> HealthReport:
    """Tell the state of the engine; always 200 while the server lives."""
    return report_of(engine.health())


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=answers_with())
async def get_ready(engine: EngineDep) -> HealthReport:
    """Answer 200 when the engine takes requests, 503 with Retry-After when it does not."""
    report = report_of(engine.health())
    if report.state != EngineState.READY:
        raise unavailable(engine)
    return report


def report_of(health: Health) -> HealthReport:
    """The engine's health on the wire."""
    return HealthReport(
        state=health.state,
        detail=health.detail,
        generation=health.generation,
        num_restarts=health.num_restarts,
        load=LoadReport(**health.load._asdict()),
    )

"""GET /stats: what is live in the engine, sequence by sequence, asked of its loop on demand."""

from collections import Counter
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from engine import EngineView, Health, PoolGauges, PrefixCounters, RingView, SequenceView, Stats
from server.dependencies import CallerDep, EngineDep
from server.routes.health import report_of
from server.schemas.common import answers_with
from server.schemas.stats import (
    CallerReport,
    PoolReport,
    PrefixFigures,
    RingReport,
    SequenceReport,
    StatsReport,
)

LIMIT_S = 2.0

router = APIRouter(tags=["operations"])


@router.get("/stats", responses=answers_with())
async def get_stats(
    engine: EngineDep, _: CallerDep, timeout_s: Annotated[float, Query(gt=0, le=30)] = LIMIT_S
) -> StatsReport:
    """Tell what runs, what waits, and what each sequence holds of the pool."""
    view = await engine.insight.inspect(timeout_s)
    stats, health = engine.insight.stats(), engine.health()
    counters = stats.counters
    return StatsReport(
        engine=report_of(health),
        engine_pid=stats.pid,
        silent_s=stats.silent_s,
        is_live=view is not None,
        detail="" if view is not None else _why_not(health, stats, timeout_s),
        num_preempted=counters.num_preempted,
        num_failed_steps=counters.num_failed_steps,
        num_steps=counters.step_s.num_values,
        pool=_pool(stats.pool if view is None else view.stats.pool),
        prefix_cache=_prefix(counters.prefix),
        open_requests=dict(stats.ages_s),
        callers={} if view is None else _callers(view),
        sequences=[] if view is None else _sequences(view, stats),
    )


def _why_not(health: Health, stats: Stats, limit_s: float) -> str:
    if health.state != "ready":
        return f"the engine is {health.state}" + (f": {health.detail}" if health.detail else "")
    heard = "never heard of" if stats.silent_s is None else f"last heard of {stats.silent_s:.1f} s ago"
    return f"the engine's loop has not answered within {limit_s:g} s; it was {heard}"


def _pool(pool: PoolGauges) -> PoolReport:
    return PoolReport(**asdict(pool), num_held=pool.num_held)


def _prefix(prefix: PrefixCounters) -> PrefixFigures:
    queried, hit = prefix.num_tokens, prefix.num_cached_tokens
    return PrefixFigures(
        queried_tokens=queried,
        hit_tokens=hit,
        hit_rate=hit / queried if queried else None,
        lookups=prefix.num_by_result,
        num_evicted_blocks=prefix.num_evicted_blocks,
        num_cleared_blocks=prefix.num_cleared_blocks,
    )


def _callers(view: EngineView) -> dict[str, CallerReport]:
    """How many sequences each caller has, by its name."""
    states = Counter((sequence.caller, sequence.state) for sequence in view.sequences)
    return {
        name: CallerReport(num_running=states[name, "running"], num_waiting=states[name, "waiting"])
        for name in sorted({caller for caller, _ in states})
    }


def _sequences(view: EngineView, stats: Stats) -> list[SequenceReport]:
    return [_sequence(sequence, stats.ages_s.get(sequence.request_id)) for sequence in view.sequences]


def _sequence(sequence: SequenceView, age_s: float | None) -> SequenceReport:
    return SequenceReport(
        sequence_id=sequence.sequence_id,
        request_id=sequence.request_id,
        caller=sequence.caller,
        choice=sequence.choice,
        state=sequence.state,
        priority=sequence.priority,
        age_s=age_s,
        num_prompt_tokens=sequence.num_prompt_tokens,
        num_tokens=sequence.num_tokens,
        num_computed=sequence.num_computed,
        num_cached=sequence.num_cached,
        num_blocks=sequence.num_blocks,
        rings=[_ring(ring) for ring in sequence.rings],
    )


def _ring(ring: RingView) -> RingReport:
    return RingReport(
        window=ring.window,
        entries=list(ring.block_ids),
        base=ring.base,
        length=ring.length,
        max_entries=ring.max_blocks,
    )

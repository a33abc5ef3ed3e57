"""A closed loop keeps so many requests under way, an open loop sends when they are due."""

import asyncio
import os
from dataclasses import replace

import pytest

from benchmarks.load.answer import Target
from benchmarks.load.connection import Host
from benchmarks.load.drive import drive
from benchmarks.load.workload import Load, Span
from tests.support.event_server import Answer, EventServer, streamed

LOAD = Load(
    num_requests=6,
    concurrency=2,
    input_tokens=Span(least=4, most=4),
    output_tokens=Span(least=6, most=6),
)


def run_of(load, answerer=streamed, pid=None):
    """The run of a load against a server that answers so, and that server."""
    server = EventServer(answerer)

    async def run():
        async with server.listening() as url:
            host = Host(url)
            try:
                return await drive(Target(host=host, model="tiny"), load, pid)
            finally:
                await host.close()

    return asyncio.run(run()), server


def test_every_request_of_a_closed_loop_is_answered():
    run, server = run_of(LOAD)

    assert [outcome.output_tokens for outcome in run.outcomes] == [6] * 6
    assert len(server.bodies) == 6


def test_a_closed_loop_has_so_many_under_way():
    _, server = run_of(LOAD)

    assert server.most_at_once == 2
    assert server.num_connections == 2


def test_an_open_loop_waits_for_nobody():
    _, server = run_of(replace(LOAD, rate_per_s=1e6, pattern="constant"))

    assert server.most_at_once > 2


def test_an_open_loop_sends_no_earlier_than_due():
    run, _ = run_of(replace(LOAD, num_requests=3, rate_per_s=50.0, pattern="constant"))

    first, second, third = sorted(outcome.due_s for outcome in run.outcomes)
    assert second - first == pytest.approx(0.02)
    assert third - first == pytest.approx(0.04)
    assert all(outcome.sent_s >= outcome.due_s for outcome in run.outcomes)


def test_the_warm_up_is_not_measured():
    run, server = run_of(replace(LOAD, num_warmup=3))

    assert len(server.bodies) == 9
    assert len(run.outcomes) == 6


def test_a_failed_warm_up_ends_it():
    with pytest.raises(RuntimeError, match="503 no room"):
        run_of(replace(LOAD, num_warmup=1), lambda body: Answer([b"no room"], 503))


def test_failures_are_outcomes_of_the_run():
    run, _ = run_of(LOAD, lambda body: Answer([b"no room"], 503))

    assert {outcome.status for outcome in run.outcomes} == {"503"}


def test_a_watched_process_has_a_peak():
    run, _ = run_of(LOAD, pid=os.getpid())

    assert run.peak_pss_bytes > 1e6
    assert run.client_cpu_s > 0
    assert run.strangers_cpu_s >= 0


def test_without_a_process_there_is_no_peak():
    run, _ = run_of(LOAD)

    assert run.peak_pss_bytes is None
    assert run.strangers_cpu_s is None

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from engine import EngineCounters, EngineState, Histogram, PoolGauges, PrefixCounters, RequestStats
from server.metrics.collector import Collector
from server.metrics.http import HttpTally
from tests.server.test_observation import answered
from tests.support.fake_engine import CARD, FakeEngine

STEPS = Histogram(bounds=(0.5, 1.0), counts=(3, 2, 1), total=4.25)


@pytest.fixture
def figures():
    """Every sample of a server with some history, by name and labels."""
    engine = FakeEngine(
        counters=EngineCounters(
            num_preempted=3,
            num_failed_steps=1,
            prefix=PrefixCounters(num_tokens=100, num_cached_tokens=64, num_complete=3, num_differs=2),
            step_s=STEPS,
        ),
        pool=PoolGauges(
            num_blocks=64, num_free=30, num_evictable=4, max_sequence_blocks=9, sequence_blocks_bound=12
        ),
        request_stats=RequestStats(
            num_by_outcome={"stop": 2, "abort": 1}, num_prompt_tokens=50, num_generated_tokens=70
        ),
    )
    http = HttpTally()
    http.observe(answered())
    return samples(Collector(engine, http))


def samples(collector: Collector) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(f"{key}={value}" for key, value in sample.labels.items())): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        (("ringserve_requests_total", "outcome=stop"), 2),
        (("ringserve_requests_total", "outcome=abort"), 1),
        (("ringserve_prompt_tokens_total",), 50),
        (("ringserve_generated_tokens_total",), 70),
        (("ringserve_preemptions_total",), 3),
        (("ringserve_failed_steps_total",), 1),
        (("ringserve_prefix_queried_tokens_total",), 100),
        (("ringserve_prefix_hit_tokens_total",), 64),
        (("ringserve_prefix_lookups_total", "result=complete"), 3),
        (("ringserve_prefix_lookups_total", "result=differs"), 2),
        (("ringserve_prefix_lookups_total", "result=evicted"), 0),
        (("ringserve_evicted_blocks_total",), 0),
        (("ringserve_pool_blocks", "state=free"), 30),
        (("ringserve_pool_blocks", "state=evictable"), 4),
        (("ringserve_pool_blocks", "state=held"), 30),
        (("ringserve_pool_capacity_blocks",), 64),
        (("ringserve_sequence_blocks_max",), 9),
        (("ringserve_sequence_blocks_bound",), 12),
        (("ringserve_engine_generation",), 1),
        (("ringserve_engine_restarts_total",), 0),
        (("ringserve_engine_state", "state=ready"), 1),
        (("ringserve_engine_state", "state=failed"), 0),
        (("ringserve_engine_silence_seconds",), 0.5),
        (
            ("ringserve_http_requests_total", "method=POST", "route=/v1/completions", "status=200"),
            1,
        ),
        (("ringserve_http_request_duration_seconds_count", "route=/v1/completions"), 1),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_figure_is_told_under_its_name(figures, sample, value):
    assert figures[sample] == value


def test_buckets_are_cumulative_and_end_with_infinity(figures):
    name = "ringserve_step_duration_seconds"
    buckets = {key[1]: value for key, value in figures.items() if key[0] == f"{name}_bucket"}

    assert buckets == {"le=0.5": 3, "le=1.0": 5, "le=+Inf": 6}
    assert (figures[f"{name}_sum",], figures[f"{name}_count",]) == (4.25, 6)


def test_a_name_says_its_unit_and_a_counter_ends_in_total():
    families = list(Collector(FakeEngine(), HttpTally()).collect())

    for family in families:
        assert family.name.startswith("ringserve_")
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)
        if "duration" in family.name or "time_to" in family.name:
            assert family.name.endswith("_seconds")
    assert len({family.name for family in families}) == len(families)


def test_before_the_model_is_known_the_rest_is_told(figures):
    engine = FakeEngine(card=None, state=EngineState.STARTING, silent_s=None)
    found = samples(Collector(engine, HttpTally()))

    assert not [key for key in found if key[0].startswith("ringserve_model_info")]
    assert found["ringserve_engine_state", "state=starting"] == 1
    assert "ringserve_engine_silence_seconds" not in {key[0] for key in found}


def test_the_model_is_described():
    engine = FakeEngine(card=replace(CARD, window=4096))
    (info,) = [key for key in samples(Collector(engine, HttpTally())) if key[0] == "ringserve_model_info"]

    assert {"model=fake/model", "window=4096", "dtype=float32"} <= set(info)


def test_every_family_can_be_read_back():
    registry = CollectorRegistry()
    registry.register(Collector(FakeEngine(), HttpTally()))
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))

    assert len(families) > 25

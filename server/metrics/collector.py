"""`Collector`: the figures of one server as Prometheus' metric families, made anew at each scrape.

Names, units and suffixes follow Prometheus' conventions (prometheus.io/docs/practices/naming): base
units, `_total` for counters. Counters are sums over all engine processes since the server started.
"""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector as PrometheusCollector

from engine import (
    Engine,
    EngineCounters,
    EngineState,
    Health,
    Histogram,
    PoolGauges,
    PrefixCounters,
    RequestStats,
    Stats,
)
from server.metrics.http import HttpTally

PREFIX = "ringserve_"


class Collector(PrometheusCollector):
    """Reads the engine's figures and the tally of HTTP requests; changes neither."""

    def __init__(self, engine: Engine, http: HttpTally) -> None:
        self._engine = engine
        self._http = http
        self._version = installed_version()

    def collect(self) -> Iterator[Metric]:
        """Every family, once."""
        stats = self._engine.insight.stats()
        yield from self._info()
        yield from _state(self._engine.health(), stats)
        yield from _http(self._http)
        yield from _requests(stats.requests)
        yield from _steps(stats.counters)
        yield from _pool(stats.pool)

    def _info(self) -> Iterator[Metric]:
        yield InfoMetricFamily(f"{PREFIX}build", "What is running.", {"version": self._version})
        card = self._engine.card
        if card is not None:
            facts = {
                "model": card.model_id,
                "family": card.family,
                "device": card.device,
                "dtype": card.dtype,
                "max_context": str(card.max_context),
                "window": "none" if card.window is None else str(card.window),
                "block_size": str(card.block_size),
                "block_bytes": str(card.block_bytes),
            }
            yield InfoMetricFamily(f"{PREFIX}model", "What is served.", facts)


def installed_version() -> str:
    """The distribution's version; `source` where it runs without being installed."""
    try:
        return version("ringserve")
    except PackageNotFoundError:
        return "source"


def _state(health: Health, stats: Stats) -> Iterator[Metric]:
    states = GaugeMetricFamily(f"{PREFIX}engine_state", "1 for the state the engine is in.", labels=["state"])
    for state in EngineState:
        states.add_metric([state.value], float(state is health.state))
    yield states
    yield _gauge("engine_generation", "Engine processes started so far.", health.generation)
    yield _counter("engine_restarts", "Engine processes started after one had died.", health.num_restarts)
    if stats.silent_s is not None:
        yield _gauge("engine_silence_seconds", "Time since the engine's loop was heard of.", stats.silent_s)
    yield _gauge("sequences_running", "Sequences computed in each step.", health.load.num_running)
    yield _gauge("sequences_waiting", "Sequences in the engine's queue.", health.load.num_waiting)
    yield _gauge("requests_open", "Requests that the engine has taken and not ended.", len(stats.ages_s))


def _http(http: HttpTally) -> Iterator[Metric]:
    yield _gauge("http_requests_under_way", "HTTP requests being answered.", http.num_under_way)
    labels = ["method", "route", "status"]
    counts = CounterMetricFamily(f"{PREFIX}http_requests", "HTTP requests answered.", labels=labels)
    for names, count in http.counts.items():
        counts.add_metric(list(names), count)
    yield counts
    durations = HistogramMetricFamily(
        f"{PREFIX}http_request_duration_seconds", "First byte in to last byte out.", labels=["route"]
    )
    for route, histogram in http.durations_s.items():
        durations.add_metric([route], _buckets(histogram), histogram.total)
    yield durations


def _requests(requests: RequestStats) -> Iterator[Metric]:
    outcomes = CounterMetricFamily(
        f"{PREFIX}requests", "Requests that ended, by finish reason, `abort` or error.", labels=["outcome"]
    )
    for outcome, count in requests.num_by_outcome.items():
        outcomes.add_metric([outcome], count)
    yield outcomes
    yield _counter("prompt_tokens", "Tokens of computed prompts.", requests.num_prompt_tokens)
    yield _counter("cached_prompt_tokens", "Of those, found in the cache.", requests.num_cached_tokens)
    yield _counter("generated_tokens", "Tokens generated.", requests.num_generated_tokens)
    yield _histogram("request_queue_seconds", "Wait for the first step.", requests.queue_s)
    yield _histogram("time_to_first_token_seconds", "Submission to first token.", requests.first_token_s)
    yield _histogram("inter_token_seconds", "From one token to the next.", requests.inter_token_s)
    yield _histogram("request_duration_seconds", "Submission to the end.", requests.duration_s)


def _steps(counters: EngineCounters) -> Iterator[Metric]:
    yield _counter("preemptions", "Running sequences sent back to the queue.", counters.num_preempted)
    yield _counter("failed_steps", "Steps that could not be computed.", counters.num_failed_steps)
    yield from _prefix(counters.prefix)
    yield _histogram("step_duration_seconds", "Time to compute a step.", counters.step_s)
    yield _histogram("step_rows", "Sequences in a step.", counters.step_rows)
    yield _histogram("step_tokens", "Tokens computed in a step.", counters.step_tokens)


def _prefix(prefix: PrefixCounters) -> Iterator[Metric]:
    lookups = CounterMetricFamily(
        f"{PREFIX}prefix_lookups", "Prompts looked up in the prefix cache, by result.", labels=["result"]
    )
    for result, count in prefix.num_by_result.items():
        lookups.add_metric([result], count)
    yield lookups
    yield _counter("prefix_queried_tokens", "Prompt tokens looked up in the prefix cache.", prefix.num_tokens)
    yield _counter("prefix_hit_tokens", "Of those, found.", prefix.num_cached_tokens)
    yield _counter("evicted_blocks", "Cached blocks taken for something else.", prefix.num_evicted_blocks)


def _pool(pool: PoolGauges) -> Iterator[Metric]:
    blocks = GaugeMetricFamily(f"{PREFIX}pool_blocks", "Blocks of the cache pool.", labels=["state"])
    for state, count in (("free", pool.num_free), ("evictable", pool.num_evictable), ("held", pool.num_held)):
        blocks.add_metric([state], count)
    yield blocks
    yield _gauge("pool_capacity_blocks", "All blocks of the cache pool.", pool.num_blocks)
    yield _gauge("sequence_blocks_max", "Blocks of the sequence with most.", pool.max_sequence_blocks)
    yield _gauge("sequence_blocks_bound", "Blocks no sequence exceeds.", pool.sequence_blocks_bound)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(PREFIX + name, text, buckets=_buckets(histogram), sum_value=histogram.total)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, as the text format wants them."""
    bounds = [f"{bound:g}" if bound != int(bound) else f"{bound:.1f}" for bound in histogram.bounds]
    cumulative = 0
    found: list[tuple[str, float]] = []
    for bound, count in zip([*bounds, "+Inf"], histogram.counts, strict=True):
        cumulative += count
        found.append((bound, float(cumulative)))
    return found

import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest

from engine.config import CacheConfig, EngineConfig, ModelConfig, SchedulingConfig, SupervisionConfig
from engine.errors import ConfigError


def model(**fields: object) -> ModelConfig:
    return ModelConfig(path="p", model_id="m", **fields)


def engine(**fields: object) -> EngineConfig:
    return EngineConfig(model=model(), **fields)


@pytest.mark.parametrize(
    ("make", "field", "value", "right"),
    [
        (model, "device", "tpu", "one of auto, cpu, cuda"),
        (model, "dtype", "int8", "one of auto, float32"),
        (model, "kernels", "fast", "one of auto, native, reference, triton"),
        (model, "quantization", "int3", "one of none, int8, int4"),
        (model, "window", 0, "at least 1"),
        (model, "max_context", 0, "at least 1"),
        (model, "cpu_threads", -2, "at least 1"),
        (CacheConfig, "block_size", 0, "at least 1"),
        (CacheConfig, "kv_dtype", "fp4", "one of auto, float32, bfloat16, int8, fp8"),
        (CacheConfig, "kv_cache_bytes", 0, "at least 1"),
        (CacheConfig, "memory_fraction", 0.0, "above 0 and at most 1"),
        (CacheConfig, "memory_fraction", 1.1, "above 0 and at most 1"),
        (SchedulingConfig, "max_step_tokens", 0, "at least 1"),
        (SchedulingConfig, "max_chunk_tokens", 0, "at least 1"),
        (SchedulingConfig, "max_running", 0, "at least 1"),
        (SchedulingConfig, "max_waiting", -1, "at least 0"),
        (SchedulingConfig, "steps_in_flight", 3, "1 or 2"),
        (SchedulingConfig, "max_mixed_tokens", 0, "at least 1"),
        (SchedulingConfig, "max_per_key", 0, "at least 1"),
        (SchedulingConfig, "admission", "strict", "one of optimistic, guaranteed"),
        (SchedulingConfig, "priority_ageing_s", 0.0, "above 0"),
        (SchedulingConfig, "priority_ageing_s", float("inf"), "at most 1e+06"),
        (SupervisionConfig, "start_timeout_s", 0.0, "above 0"),
        (SupervisionConfig, "step_timeout_s", -1.0, "above 0"),
        (SupervisionConfig, "restart_window_s", 0.0, "above 0"),
        (SupervisionConfig, "max_restarts", -1, "at least 0"),
        (engine, "log_level", "loud", "one of debug, info, warning, error"),
        (engine, "log_format", "xml", "one of text, json"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_its_value_and_what_would_be_right(
    make: Callable[..., object], field: str, value: object, right: str
):
    with pytest.raises(ConfigError) as caught:
        make(**{field: value})

    assert caught.value.message.startswith(f"{field} is {value!r}; it must be ")
    assert right in caught.value.message


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (model, {"window": 1, "max_context": 1, "cpu_threads": 1}),
        (CacheConfig, {"block_size": 1, "kv_cache_bytes": 1, "memory_fraction": 1.0}),
        (SchedulingConfig, {"max_waiting": 0, "steps_in_flight": 2, "max_chunk_tokens": 1}),
        (SupervisionConfig, {"max_restarts": 0, "step_timeout_s": 0.01}),
        (engine, {"log_level": "debug"}),
    ],
    ids=["model", "cache", "scheduling", "supervision", "engine"],
)
def test_the_limits_themselves_are_allowed(make: Callable[..., object], fields: dict[str, object]):
    made = make(**fields)

    assert {name: getattr(made, name) for name in fields} == fields


def test_a_configuration_crosses_the_border_and_compares_equal():
    config = engine(cache=CacheConfig(block_size=8), scheduling=SchedulingConfig(max_running=2))

    assert pickle.loads(pickle.dumps(config)) == config


def test_a_configuration_does_not_change():
    with pytest.raises(FrozenInstanceError):
        engine().log_level = "debug"

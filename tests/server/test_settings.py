import hashlib
from pathlib import Path

import pytest

from engine import DEMO_MODEL, ConfigError, ModelSource
from server.keys import Scope, digest_of
from server.settings import ChatSettings, PullSettings, SelftestSettings, Settings, default_cache_dir

SOURCE = ModelSource(path=Path("/models/m"), model_id="m")


def read(*arguments: str) -> Settings:
    return Settings.from_command_line(list(arguments))


def test_a_flag_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("RINGSERVE_PORT", "9000")

    assert read("--port", "9001").port == 9001


def test_the_environment_wins_over_the_default(monkeypatch):
    monkeypatch.setenv("RINGSERVE_PORT", "9000")

    assert read().port == 9000


def test_an_empty_environment_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("RINGSERVE_PORT", "")

    assert read().port == 8000


def test_the_model_is_the_positional_argument():
    assert read("some/model").model == "some/model"


def test_the_demo_model_is_served_without_any_argument():
    assert read().model == DEMO_MODEL


@pytest.mark.parametrize(
    ("written", "num_bytes"), [("256MiB", 256 << 20), ("2GiB", 2 << 30), ("1000", 1000)], ids=str
)
def test_a_size_may_be_written_with_its_unit(written, num_bytes):
    config = read("--kv-cache-bytes", written).to_engine_config(SOURCE)

    assert config.cache.kv_cache_bytes == num_bytes
    assert type(config.cache.kv_cache_bytes) is int


def test_keys_are_kept_as_digests_only():
    settings = read("--api-key", "secret")

    assert settings.api_key == (hashlib.sha256(b"secret").hexdigest(),)
    assert "secret" not in repr(settings)


def test_keys_may_be_repeated_or_separated_by_commas(monkeypatch):
    monkeypatch.setenv("RINGSERVE_API_KEY", "a,b")

    assert read().api_key == read("--api-key", "a", "--api-key", "b").api_key
    assert len(read().api_key) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_loopback_needs_no_key(host):
    assert read("--host", host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_beyond_loopback_a_key_is_required(host):
    with pytest.raises(ConfigError, match="API key"):
        read("--host", host)


def test_beyond_loopback_with_a_key_is_allowed():
    assert read("--host", "0.0.0.0", "--api-key", "k").host == "0.0.0.0"


def test_beyond_loopback_without_a_key_is_allowed_when_asked_for():
    assert read("--host", "0.0.0.0", "--no-auth").host == "0.0.0.0"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "many"], "--port"),
        (["--port", "65536"], "--port"),
        (["--kv-cache-bytes", "12Gix"], "--kv-cache-bytes"),
        (["--drain-s", "nan"], "--drain-s"),
        (["--drain-s", "-1"], "--drain-s"),
        (["--max-body-bytes", "0"], "--max-body-bytes"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--port"], "--port"),
        (["--api-key", ""], "--api-key"),
        (["--api-key="], "--api-key"),
        (["--api-key", "a,,b"], "--api-key"),
        (["one", "two"], "two"),
        (["--api-key-file", "/nowhere/keys"], "--api-key-file"),
        (["--chat-template", "/nowhere/t.jinja"], "--chat-template"),
        (["--ssl-certfile", "/nowhere/c.pem"], "--ssl-certfile"),
        (["--root-path", "llm"], "--root-path"),
        (["--root-path", "/llm/"], "--root-path"),
        (["--unknown-fields", "maybe"], "--unknown-fields"),
        (["--max-logprobs", "-1"], "--max-logprobs"),
        (["--served-model-name", "a,,b"], "--served-model-name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_setting_is_refused_in_one_line_that_names_it(arguments, named):
    with pytest.raises(ConfigError) as caught:
        read(*arguments)

    assert named in caught.value.message
    assert "\n" not in caught.value.message


def test_a_refused_key_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        read("--api-key", "secret,")

    assert "secret" not in caught.value.message


def test_keys_of_a_file_have_their_scopes(tmp_path):
    file = tmp_path / "keys"
    file.write_text("metrics:a\nb\n")
    settings = read("--host", "0.0.0.0", "--api-key-file", str(file), "--api-key", "a")

    assert settings.scopes_by_digest == {
        digest_of("a"): {Scope.METRICS, Scope.INFERENCE},
        digest_of("b"): {Scope.INFERENCE},
    }
    assert "metrics" not in repr(settings)


def test_a_template_file_reaches_the_engine(tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text("x")

    assert read("--chat-template", str(file)).to_engine_config(SOURCE).model.chat_template == str(file)


def test_names_and_origins_may_be_separated_by_commas(monkeypatch):
    monkeypatch.setenv("RINGSERVE_SERVED_MODEL_NAME", "a, b")
    monkeypatch.setenv("RINGSERVE_CORS_ORIGIN", "https://a,https://b")

    assert read().served_model_name == ("a", "b")
    assert read().cors_origin == ("https://a", "https://b")


def test_a_private_key_needs_a_certificate(tmp_path):
    file = tmp_path / "key.pem"
    file.write_text("x")
    with pytest.raises(ConfigError, match="--ssl-certfile"):
        read("--ssl-keyfile", str(file))


def test_every_engine_setting_reaches_the_engine():
    flags = {
        "device": "cpu",
        "dtype": "float64",
        "kernels": "reference",
        "quantization": "int4",
        "kv_dtype": "float32",
        "cpu_threads": 3,
        "eager": True,
        "deterministic": True,
        "window": 8,
        "max_context": 99,
        "block_size": 4,
        "memory_fraction": 0.5,
        "max_step_tokens": 64,
        "max_chunk_tokens": 32,
        "max_mixed_tokens": 16,
        "max_running": 5,
        "max_waiting": 6,
        "max_per_key": 3,
        "admission": "guaranteed",
        "priority_ageing_s": 5.0,
        "steps_in_flight": 2,
        "start_timeout_s": 7.0,
        "step_timeout_s": 8.0,
        "max_restarts": 9,
        "restart_window_s": 10.0,
    }
    arguments = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in flags.items()
    ]
    config = read(*arguments).to_engine_config(SOURCE)
    parts = (config.model, config.cache, config.scheduling, config.supervision)
    reached = {name: getattr(part, name) for part in parts for name in part.__slots__ if name in flags}

    assert reached == flags


def test_the_first_served_name_replaces_the_models_own():
    settings = read("--served-model-name", "x", "--served-model-name", "y")

    assert settings.served_model_name == ("x", "y")
    assert settings.to_engine_config(SOURCE).model.model_id == "x"
    assert read().to_engine_config(SOURCE).model.model_id == "m"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window=0"], "window is 0"),
        (["--device=moon"], "device is 'moon'"),
        (["--log-level=loud"], "log_level is 'loud'"),
    ],
    ids=["window", "device", "log level"],
)
def test_a_value_that_the_engine_cannot_use_is_refused_before_anything_is_fetched(arguments, message):
    with pytest.raises(ConfigError, match=message):
        read(*arguments)


def test_every_setting_has_a_sentence():
    sentences = [field.description or "" for field in Settings.model_fields.values()]

    assert all(sentence.endswith(".") and sentence[0].isupper() for sentence in sentences)


def test_help_shows_every_setting_with_its_variable(capsys):
    with pytest.raises(SystemExit) as caught:
        read("--help")

    shown = capsys.readouterr().out
    assert caught.value.code == 0
    for name in set(Settings.model_fields) - {"model"}:
        assert f"--{name.replace('_', '-')}" in shown
        assert f"RINGSERVE_{name.upper()}" in shown


def test_the_cache_folder_follows_the_standard_variable(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")

    assert default_cache_dir() == Path("/caches/ringserve")


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_the_cache_folder_is_under_home_otherwise(monkeypatch, value):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value)

    assert default_cache_dir() == Path("/home/somebody/.cache/ringserve")


def test_pull_takes_a_model_and_a_folder():
    settings = PullSettings.from_command_line(["org/model", "--cache-dir", "/c"])

    assert (settings.model, settings.cache_dir) == ("org/model", Path("/c"))


def test_the_chat_key_is_not_shown():
    settings = ChatSettings.from_command_line(["--api-key", "secret"])

    assert "secret" not in repr(settings)


def test_selftest_sends_the_first_of_several_keys():
    settings = SelftestSettings.from_command_line(["--api-key", "secret,other"])

    assert (settings.first_api_key, settings.url, settings.drain_pid) == (
        "secret",
        "http://127.0.0.1:8000",
        None,
    )
    assert "secret" not in repr(settings)

"""The command line, against a real small server with the fake engine behind it."""

import asyncio
import json

import pytest

from benchmarks.load.__main__ import load_of, main, parser, send
from benchmarks.load.workload import Load, Span
from engine import OverloadedError
from tests.support.event_server import EventServer, streamed
from tests.support.fake_engine import FakeEngine
from tests.support.live_server import live_server


def test_the_command_line_describes_a_load():
    options = parser().parse_args(
        [
            "http://x",
            "--requests",
            "9",
            "--rate",
            "2",
            "--pattern",
            "constant",
            "--input",
            "8:16",
            "--output",
            "4",
            "--shared",
            "3",
            "--groups",
            "2",
        ]
    )

    assert load_of(options) == Load(
        num_requests=9,
        rate_per_s=2.0,
        pattern="constant",
        input_tokens=Span(least=8, most=16),
        output_tokens=Span(least=4, most=4),
        shared_tokens=3,
        num_groups=2,
        num_warmup=1,
    )


@pytest.mark.parametrize("more", [[], ["--text"], ["--chat"], ["--whole"]], ids=" ".join)
def test_a_prompt_has_as_many_tokens_as_told_in_every_form(more):
    server = EventServer(streamed)

    async def run():
        async with server.listening() as url:
            return await send(
                parser().parse_args([url, "--requests", "3", "--input", "20", "--output", "6", *more])
            )

    outcomes = asyncio.run(run()).outcomes

    assert [(one.status, one.input_tokens, one.output_tokens) for one in outcomes] == [("ok", 20, 6)] * 3


def test_fields_of_the_dialect_and_of_the_command_line_are_sent():
    server = EventServer(streamed)

    async def run():
        async with server.listening() as url:
            words = [url, "--requests", "1", "--server", "vllm", "--body", '{"min_p": 0.1}', "--warmup", "0"]
            return await send(parser().parse_args(words))

    asyncio.run(run())

    assert server.bodies[0]["ignore_eos"] is True
    assert server.bodies[0]["min_p"] == 0.1


def test_a_load_of_a_real_server_is_answered_in_full_and_told(tmp_path, capsys):
    path = tmp_path / "run.json"
    words = "--requests 4 --concurrency 2 --input 40 --output 5 --ids 1:200"
    with live_server(FakeEngine) as live:
        status = main([live.url, *words.split(), "--json", str(path)])

    assert status == 0
    assert json.loads(path.read_text())["summary"]["num_ok"] == 4
    assert "4 of 4 requests answered" in capsys.readouterr().out


def test_failed_requests_are_the_exit_status(capsys):
    with live_server(lambda: FakeEngine(submit_error=OverloadedError("no room", 1.0))) as live:
        status = main([live.url, "--requests", "2", "--warmup", "0", "--ids", "1:200"])

    assert status == 1
    assert "2 failed" in capsys.readouterr().out

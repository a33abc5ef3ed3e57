"""Load for any OpenAI-compatible server, and what it took.

    python -m benchmarks.load http://127.0.0.1:8000 --requests 32 --concurrency 8 --input 64 --output 128

Prompts are token ids, or with --text or --chat words of one token each. Everything drawn at random
depends on --seed alone. Streams, unless --whole says otherwise. Exit status 1 if a request failed.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.load.answer import DIALECTS, PATHS, Target, count_prompt_tokens, first_model
from benchmarks.load.connection import Host
from benchmarks.load.drive import Run, drive
from benchmarks.load.prompts import PromptForm, find_text_form
from benchmarks.load.report import describe, write_json
from benchmarks.load.summary import Objective, summarize
from benchmarks.load.workload import Load, Span
from benchmarks.machine import describe_machine


def main(words: list[str] | None = None) -> int:
    """Send the load that the command line asks for."""
    options = parser().parse_args(words)
    run = asyncio.run(send(options))
    summary = summarize(run, options.slo)
    print(describe(summary))
    if options.json:
        conditions = {"command": sys.argv, "machine": describe_machine()}
        write_json(options.json, run, summary, conditions)
    if options.plot:
        from benchmarks.load.plots import plot  # noqa: PLC0415  matplotlib is an extra

        plot(run, options.plot)
    return 0 if summary.num_ok == summary.num_requests else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.split("\n")[0])
    result.add_argument("url", help="the server's address, without /v1")
    _add_load(result)
    _add_target(result)
    watched = result.add_argument_group("what is measured")
    watched.add_argument("--pid", type=int, help="watch this process and all below it: peak PSS")
    watched.add_argument(
        "--slo", type=Objective.read, metavar="first=MS,token=MS,total=MS", help="what a good answer keeps"
    )
    watched.add_argument("--json", type=Path, help="write everything here")
    watched.add_argument("--plot", type=Path, help="draw the distributions here")
    return result


async def send(options: argparse.Namespace) -> Run:
    """Find out what is still to be known of the server, then send the load."""
    host = Host(options.url, options.api_key)
    try:
        target = Target(
            host=host,
            model=options.model or await first_model(host),
            endpoint="chat" if options.chat else "completions",
            body=dict(DIALECTS[options.server]) | options.body,
            is_streamed=not options.whole,
            timeout_s=options.timeout_s,
        )
        form = PromptForm(first_id=options.ids.least, last_id=options.ids.most)
        if options.text or options.chat:
            counting = target
            form = await find_text_form(lambda text: count_prompt_tokens(counting, text))
        return await drive(replace(target, form=form), load_of(options), options.pid)
    finally:
        await host.close()


def load_of(options: argparse.Namespace) -> Load:
    """The load that the command line describes."""
    return Load(
        num_requests=options.requests,
        input_tokens=options.input,
        output_tokens=options.output,
        concurrency=options.concurrency,
        rate_per_s=options.rate,
        pattern=options.pattern,
        shared_tokens=options.shared,
        num_groups=options.groups,
        num_warmup=options.warmup,
        seed=options.seed,
    )


def _add_load(result: argparse.ArgumentParser) -> None:
    load = result.add_argument_group("the load")
    load.add_argument("--requests", type=int, default=16)
    load.add_argument("--concurrency", type=int, default=1, help="closed loop: so many at a time")
    load.add_argument("--rate", type=float, help="open loop: so many a second")
    load.add_argument("--pattern", choices=("poisson", "constant"), default="poisson")
    load.add_argument("--input", type=Span.read, default=Span.read("64"), help="tokens, N or LEAST:MOST")
    load.add_argument("--output", type=Span.read, default=Span.read("128"), help="tokens, N or LEAST:MOST")
    load.add_argument("--shared", type=int, default=0, help="tokens at the beginning that a group shares")
    load.add_argument("--groups", type=int, default=1)
    load.add_argument("--warmup", type=int, default=1, help="requests beforehand, not measured")
    load.add_argument("--seed", type=int, default=0)


def _add_target(result: argparse.ArgumentParser) -> None:
    target = result.add_argument_group("the server")
    target.add_argument("--server", choices=DIALECTS, default="openai", help="how answers are kept going")
    target.add_argument("--model", help="its model id; by default the first it lists")
    target.add_argument("--api-key")
    target.add_argument("--chat", action="store_true", help=f"{PATHS['chat']}, instead of completions")
    target.add_argument("--text", action="store_true", help="prompts are text, not ids")
    target.add_argument(
        "--ids", type=Span.read, default=Span(least=1_000, most=20_000), help="token ids to draw prompts from"
    )
    target.add_argument("--body", type=json.loads, default={}, metavar="JSON", help="more fields")
    target.add_argument("--whole", action="store_true", help="do not stream")
    target.add_argument("--timeout-s", type=float, default=600.0)


if __name__ == "__main__":
    sys.exit(main())

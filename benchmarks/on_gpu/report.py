"""The report of all parts: the table of goals first, then every figure of every part."""

from collections.abc import Mapping

Outcomes = Mapping[str, Mapping[str, object]]

# Load, part, its figure, the least (or for times the most) that is to be reached, the limit on one H100.
GOALS = (
    ("batch 1, 1 k context, bf16", "batch-1", "tokens_per_s", 180.0, 209.0),
    ("batch 1, 1 k context, fp8", "batch-1-fp8", "tokens_per_s", 330.0, 410.0),
    ("32 × 1 k decode, bf16", "batch-32", "tokens_per_s", 4500.0, 5185.0),
    ("1000 in / 1000 out, saturated", "long-answers", "tokens_per_s", 7600.0, 10_100.0),
    ("128 / 128 saturated", "short-answers", "tokens_per_s", 17_000.0, 28_000.0),
    ("8,192 in / 512 out", "long-prompts", "tokens_per_s", 1450.0, 1870.0),
    ("time to first token, 2,048 tokens (ms)", "first-token", "first_token_ms", 50.0, 38.0),
    ("HTTP with 256 streams, of the engine's own rate", "serving", "share", 0.9, 1.0),
)


def to_markdown(outcomes: Outcomes, *, is_tiny: bool) -> str:
    """The whole report."""
    lines = [
        "# Measured on a GPU" if not is_tiny else "# A tiny run on the host: its figures mean nothing",
        "",
    ]
    hardware = _figures(outcomes.get("hardware"))
    if hardware:
        lines += [", ".join(f"{name} {_shown(value)}" for name, value in hardware.items()), ""]
    lines += ["| load | limit | reach | found | of the limit | reached |", "|---|---|---|---|---|---|"]
    lines += [_goal_line(goal, outcomes) for goal in GOALS]
    lines += ["", "Limits are those of one H100 at 3.0 TB/s and 798 TFLOP/s.", "", "## Parts", ""]
    lines += ["| part | state | seconds |", "|---|---|---|"]
    lines += [
        f"| {name} | {outcome['state']} | {outcome.get('seconds', '')} |"
        for name, outcome in outcomes.items()
    ]
    for name, outcome in outcomes.items():
        lines += ["", f"### {name}", ""]
        if outcome["state"] != "done":
            lines += ["```", str(outcome.get("reason", "")).strip(), "```"]
        lines += [f"- {line}" for line in _flat(_figures(outcome))]
    return "\n".join(lines) + "\n"


def failures(outcomes: Outcomes) -> list[str]:
    """What is wrong, in words: parts that failed, and checks that do not hold."""
    found = [f"{name}: {outcome['state']}" for name, outcome in outcomes.items() if outcome["state"] in BAD]
    for name in ("correctness", "tests"):
        found += [f"{name}: {what}" for what in _figures(outcomes.get(name)).get("failed", ())]
    return found


BAD = ("failed", "out of time")


def _goal_line(goal: tuple[str, str, str, float, float], outcomes: Outcomes) -> str:
    load, part, figure, reach, limit = goal
    value = _figures(outcomes.get(part)).get(figure)
    if not isinstance(value, float):
        state = outcomes[part]["state"] if part in outcomes else "not measured"
        return f"| {load} | {_shown(limit)} | {_shown(reach)} | {state} | | |"
    is_time = figure.endswith("_ms")
    fraction = limit / value if is_time else value / limit
    is_reached = value <= reach if is_time else value >= reach
    return (
        f"| {load} | {_shown(limit)} | {_shown(reach)} | {_shown(value)} | {fraction:.2f} "
        f"| {'yes' if is_reached else 'no'} |"
    )


def _figures(outcome: Mapping[str, object] | None) -> dict[str, object]:
    figures = (outcome or {}).get("figures")
    return figures if isinstance(figures, dict) else {}


def _flat(figures: Mapping[str, object], prefix: str = "") -> list[str]:
    lines = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{name} · ")
        else:
            lines.append(f"{prefix}{name}: {_shown(value)}")
    return lines


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)

"""What a body allows to be called, and what it demands, by whichever fields it says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.schemas.tools import AllowedToolChoice, FunctionDefinition, NamedFunction, NamedTool, ToolBody


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """The functions a model is told of (`declared`), and those of them it may call (`callable`).

    `is_legacy` answers in the older form, with one call at most.
    """

    declared: Sequence[FunctionDefinition]
    callable: Sequence[FunctionDefinition]
    must_call: bool = False
    is_named: bool = False
    is_parallel: bool = True
    is_legacy: bool = False

    @property
    def names(self) -> frozenset[str]:
        """The names that may be called."""
        return frozenset(function.name for function in self.callable)

    @property
    def needs_grammar(self) -> bool:
        """Whether free text would not do: something has to be called, or not anything, or strictly."""
        is_limited = not self.is_parallel or len(self.callable) < len(self.declared)
        return self.must_call or is_limited or any(function.strict for function in self.callable)


def plan_calls(body: ToolBody) -> CallPlan | None:
    """What `body` says about calls; None where nothing may be called."""
    if body.functions:
        return _legacy_plan(body)
    declared, choice = body.declared, body.tool_choice
    if not declared or choice == "none":
        return None
    is_parallel = body.parallel_tool_calls is not False
    if isinstance(choice, NamedTool):
        return CallPlan(
            declared=declared,
            callable=_those(declared, [choice.function.name]),
            must_call=True,
            is_named=True,
            is_parallel=False,
        )
    if isinstance(choice, AllowedToolChoice):
        allowed = choice.allowed_tools
        return CallPlan(
            declared=declared,
            callable=_those(declared, [tool.function.name for tool in allowed.tools]),
            must_call=allowed.mode == "required",
            is_parallel=is_parallel,
        )
    return CallPlan(
        declared=declared, callable=declared, must_call=choice == "required", is_parallel=is_parallel
    )


def _legacy_plan(body: ToolBody) -> CallPlan | None:
    declared, choice = body.declared, body.function_call
    if choice == "none":
        return None
    is_named = isinstance(choice, NamedFunction)
    return CallPlan(
        declared=declared,
        callable=_those(declared, [choice.name]) if isinstance(choice, NamedFunction) else declared,
        must_call=is_named,
        is_named=is_named,
        is_parallel=False,
        is_legacy=True,
    )


def _those(declared: Sequence[FunctionDefinition], names: Sequence[str]) -> list[FunctionDefinition]:
    return [function for function in declared if function.name in names]

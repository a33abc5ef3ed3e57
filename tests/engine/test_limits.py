from dataclasses import replace

import pytest

from engine.config import SchedulingConfig
from engine.errors import OverloadedError, RateLimitedError, RequestError
from engine.limits import LONGEST_RETRY_S, Limits
from tests.engine.test_messages import CARD
from tests.engine.test_open_requests import in_loop
from tests.support.new_request import new_request
from tests.support.request_world import World


def asked(request_id="new", *, caller="a", n=1):
    return replace(new_request("hi", request_id=request_id, num_choices=n, max_tokens=5), caller=caller)


def refused(act, **config):
    """What `act` was refused with, in a world where callers a and b have two sequences each."""

    async def run(world: World) -> object:
        for number, caller in enumerate("aabb"):
            world.open(asked(str(number), caller=caller))
        limits = Limits(SchedulingConfig(**config), world.requests)
        with pytest.raises((RequestError, RateLimitedError, OverloadedError)) as caught:
            act(limits)
        return caught.value

    return in_loop(run)


def test_a_caller_above_its_own_limit_is_told_so():
    error = refused(lambda limits: limits.refuse_overload(asked()), max_per_key=2)

    assert type(error) is RateLimitedError
    assert "2 sequences of this API key are running or waiting, of at most 2" in error.message
    assert error.retry_after_s == 1.0


def test_the_limit_counts_choices():
    error = refused(lambda limits: limits.refuse_overload(asked(n=2)), max_per_key=3)

    assert type(error) is RateLimitedError


def test_others_are_let_in_beside_a_caller_at_its_limit():
    async def run(world: World) -> object:
        for number in range(2):
            world.open(asked(str(number)))
        return Limits(SchedulingConfig(max_per_key=2), world.requests).refuse_overload(asked(caller="b"))

    assert in_loop(run) is None


def test_what_has_ended_counts_no_more():
    async def run(world: World) -> object:
        opened = [world.open(asked(str(number))) for number in range(2)]
        await opened[0].stream.aclose()
        return Limits(SchedulingConfig(max_per_key=2), world.requests).refuse_overload(asked())

    assert in_loop(run) is None


def test_a_request_that_can_never_have_so_many_places_is_the_callers_mistake():
    error = refused(lambda limits: limits.refuse_misfit(asked(n=3), CARD), max_per_key=2)

    assert (type(error), error.param) == (RequestError, "n")


def test_a_full_server_refuses_whoever_comes():
    error = refused(
        lambda limits: limits.refuse_overload(asked(caller="c")), max_running=3, max_waiting=1, max_per_key=2
    )

    assert type(error) is OverloadedError
    assert "4 sequences are running or waiting, of at most 4" in error.message


def test_the_last_place_is_given():
    async def run(world: World) -> object:
        for number in range(3):
            world.open(asked(str(number)))
        return Limits(SchedulingConfig(max_running=3, max_waiting=1), world.requests).refuse_overload(asked())

    assert in_loop(run) is None


def test_the_time_to_try_again_is_bounded():
    async def run(world: World) -> object:
        slow = world.open(asked("slow"))
        world.hear((slow.first_sequence_id, "x", None))
        world.clock.jump(10_000.0)
        await slow.stream.aclose()
        world.open(asked("other"))
        with pytest.raises(RateLimitedError) as caught:
            Limits(SchedulingConfig(max_per_key=1), world.requests).refuse_overload(asked())
        return caught.value.retry_after_s

    assert in_loop(run) == LONGEST_RETRY_S

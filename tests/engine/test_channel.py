import asyncio
import pickle
import socket
import threading

import pytest

from engine.channel import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    AsyncEnd,
    BlockingEnd,
    ChannelError,
    channel_pair,
    to_frame,
)
from engine.messages import Abort, Drain, Load, Loading, Pulse, Submit, Updates
from engine.request import Request, SamplingParams

WAIT_S = 10.0


def submit(num_tokens: int) -> Submit:
    sampling = SamplingParams(max_tokens=1, seed=0)
    request = Request(request_id="a", prompt_ids=tuple(range(num_tokens)), sampling=sampling)
    return Submit(request=request, first_sequence_id=0)


def pulse(num_steps: int) -> Pulse:
    return Pulse(load=Load(num_steps=num_steps))


def received_from(raw: bytes) -> list[object]:
    """What an AsyncEnd makes of `raw` followed by the end: messages, and None or an error at the end."""

    async def run() -> list[object]:
        ours, theirs = channel_pair()
        end = await AsyncEnd.open(ours)
        theirs.sendall(raw)
        theirs.close()
        found: list[object] = []
        try:
            while not found or found[-1] is not None:
                found.append(await asyncio.wait_for(end.receive(), WAIT_S))
        except ChannelError as error:
            found.append(error)
        finally:
            await end.close()
        return found

    return asyncio.run(run())


def test_messages_to_the_server_arrive_in_order_and_equal():
    async def run() -> list[object]:
        ours, theirs = channel_pair()
        end, engine = await AsyncEnd.open(ours), BlockingEnd(theirs)
        for num_steps in range(3):
            engine.send(pulse(num_steps))
        engine.close()
        found = [await asyncio.wait_for(end.receive(), WAIT_S) for _ in range(4)]
        await end.close()
        return found

    found = asyncio.run(run())

    assert found == [pulse(0), pulse(1), pulse(2), None]


def test_posted_and_sent_messages_leave_in_the_order_of_the_calls():
    async def run() -> list[object]:
        ours, theirs = channel_pair()
        end, engine = await AsyncEnd.open(ours), BlockingEnd(theirs)
        await end.send(submit(5))
        end.post(Abort(request_id="a"))
        await end.send(Drain())
        found = [await asyncio.to_thread(engine.receive) for _ in range(3)]
        await end.close()
        found.append(await asyncio.to_thread(engine.receive))
        engine.close()
        return found

    found = asyncio.run(run())

    assert found == [submit(5), Abort(request_id="a"), Drain(), None]


def test_a_frame_that_comes_byte_by_byte_is_one_message():
    async def run() -> object:
        ours, theirs = channel_pair()
        end = await AsyncEnd.open(ours)
        receiving = asyncio.create_task(end.receive())
        for byte in to_frame(pulse(7)):
            theirs.sendall(bytes([byte]))
            await asyncio.sleep(0)
        found = await asyncio.wait_for(receiving, WAIT_S)
        theirs.close()
        await end.close()
        return found

    assert asyncio.run(run()) == pulse(7)


@pytest.mark.parametrize(
    "num_bytes", [1, HEADER_BYTES, HEADER_BYTES + 1], ids=["header", "border", "payload"]
)
def test_an_end_in_the_middle_of_a_frame_is_an_end_for_the_server(num_bytes: int):
    assert received_from(to_frame(pulse(1)) + to_frame(pulse(2))[:num_bytes]) == [pulse(1), None]


@pytest.mark.parametrize(
    "num_bytes", [1, HEADER_BYTES, HEADER_BYTES + 1], ids=["header", "border", "payload"]
)
def test_an_end_in_the_middle_of_a_frame_is_an_end_for_the_engine(num_bytes: int):
    ours, theirs = channel_pair()
    ours.sendall(to_frame(Drain()) + to_frame(submit(9))[:num_bytes])
    ours.close()
    engine = BlockingEnd(theirs)

    found = [engine.receive(), engine.receive()]

    engine.close()
    assert found == [Drain(), None]


def test_a_huge_frame_is_refused_by_the_server_before_its_payload():
    (error,) = received_from((MAX_FRAME_BYTES + 1).to_bytes(HEADER_BYTES, "big"))

    assert isinstance(error, ChannelError)
    assert str(MAX_FRAME_BYTES) in str(error)


def test_a_huge_frame_is_refused_by_the_engine_before_its_payload():
    ours, theirs = channel_pair()
    ours.sendall(b"\xff" * HEADER_BYTES)
    engine = BlockingEnd(theirs)

    with pytest.raises(ChannelError, match="refused"):
        engine.receive()

    ours.close()
    engine.close()


def test_a_huge_message_is_refused_by_its_sender():
    message = Loading(stage="x" * MAX_FRAME_BYTES, done=0, total=0)

    with pytest.raises(ChannelError, match=f"the most is {MAX_FRAME_BYTES}"):
        to_frame(message)


@pytest.mark.parametrize(
    "payload",
    [b"", b"garbage", pickle.dumps(pulse(1))[:-2], b"cno.such.module\nname\n."],
    ids=["empty", "noise", "cut", "unknown class"],
)
def test_a_frame_without_a_message_is_a_channel_error(payload: bytes):
    (error,) = received_from(len(payload).to_bytes(HEADER_BYTES, "big") + payload)

    assert isinstance(error, ChannelError)


def test_send_waits_for_a_slow_reader():
    async def run() -> tuple[bool, int]:
        ours, theirs = channel_pair()
        end, engine = await AsyncEnd.open(ours), BlockingEnd(theirs)
        message = submit(1_000_000)  # some megabytes: more than the socket and the writer buffer hold
        sending = asyncio.create_task(end.send(message))
        for _ in range(10):
            await asyncio.sleep(0)
        was_waiting = not sending.done()
        found = await asyncio.to_thread(engine.receive)
        await asyncio.wait_for(sending, WAIT_S)
        engine.close()
        await end.close()
        return was_waiting, len(found.request.prompt_ids)

    assert asyncio.run(run()) == (True, 1_000_000)


def test_messages_to_an_end_that_is_gone_are_dropped():
    async def run() -> object:
        ours, theirs = channel_pair()
        end = await AsyncEnd.open(ours)
        theirs.close()
        for _ in range(10):
            await end.send(submit(100_000))
            end.post(Drain())
        found = await asyncio.wait_for(end.receive(), WAIT_S)
        await end.close()
        return found

    assert asyncio.run(run()) is None


def test_an_async_end_closes_twice_and_at_once_although_nobody_reads():
    async def run() -> None:
        ours, theirs = channel_pair()
        end = await AsyncEnd.open(ours)
        sending = asyncio.create_task(end.send(submit(1_000_000)))
        await asyncio.sleep(0)
        await asyncio.wait_for(end.close(), WAIT_S)
        await asyncio.wait_for(end.close(), WAIT_S)
        await asyncio.wait_for(sending, WAIT_S)
        theirs.close()

    asyncio.run(run())


def test_sending_to_a_server_that_is_gone_is_an_error_for_the_engine():
    ours, theirs = channel_pair()
    ours.close()
    engine = BlockingEnd(theirs)

    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        engine.send(pulse(1))

    engine.close()


def test_closing_the_engine_end_wakes_its_reader_and_may_be_repeated():
    ours, theirs = channel_pair()
    engine = BlockingEnd(theirs)
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.append(engine.receive()))
    reader.start()

    engine.close()
    engine.close()

    reader.join(WAIT_S)
    ours.close()
    assert found == [None]


def test_an_engine_end_works_on_an_inherited_descriptor():
    ours, theirs = channel_pair()
    engine = BlockingEnd(socket.socket(fileno=theirs.detach()))
    ours.sendall(to_frame(Drain()))

    found = engine.receive()

    ours.close()
    engine.close()
    assert found == Drain()


def test_one_thread_receives_while_another_sends():
    async def run() -> list[object]:
        ours, theirs = channel_pair()
        end, engine = await AsyncEnd.open(ours), BlockingEnd(theirs)
        big = Updates(sequence_ids=tuple(range(200_000)))
        receiving = asyncio.create_task(asyncio.to_thread(engine.receive))
        sending = asyncio.create_task(asyncio.to_thread(engine.send, big))
        await end.send(submit(200_000))
        found = [await asyncio.wait_for(end.receive(), WAIT_S), await receiving]
        await sending
        engine.close()
        await end.close()
        return found

    assert asyncio.run(run()) == [Updates(sequence_ids=tuple(range(200_000))), submit(200_000)]


def forwarded(act, *, before: bytes = b"", after: bytes = b"") -> tuple[list[object], object]:
    """What `act` took of the messages sent before and after it began to, and the error that ended it."""

    async def run() -> tuple[list[object], object]:
        ours, theirs = channel_pair()
        end = await AsyncEnd.open(ours)
        theirs.sendall(before)
        for _ in range(3):
            await asyncio.sleep(0)
        taken: list[object] = []

        def take(message: object) -> bool:
            taken.append(message)
            return act(message)

        forwarding = asyncio.create_task(end.forward(take))
        await asyncio.sleep(0)
        theirs.sendall(after)
        theirs.close()
        outcome = await asyncio.wait_for(asyncio.gather(forwarding, return_exceptions=True), WAIT_S)
        await end.close()
        return taken, outcome[0]

    return asyncio.run(run())


def test_forwarded_messages_come_in_order_whenever_they_arrived():
    early, late = to_frame(pulse(1)) + to_frame(pulse(2))[:5], to_frame(pulse(2))[5:] + to_frame(pulse(3))

    assert forwarded(lambda _: True, before=early, after=late) == ([pulse(1), pulse(2), pulse(3)], None)


@pytest.mark.parametrize("when", ["before", "after"])
def test_no_more_is_forwarded_than_is_wanted(when: str):
    raw = to_frame(pulse(1)) + to_frame(pulse(2))

    assert forwarded(lambda _: False, **{when: raw}) == ([pulse(1)], None)


def test_an_error_of_who_takes_messages_ends_the_forwarding():
    def fail(message: object) -> bool:
        raise MemoryError("planted")

    taken, error = forwarded(fail, after=to_frame(pulse(1)) + to_frame(pulse(2)))

    assert taken == [pulse(1)]
    assert isinstance(error, MemoryError)


def test_what_is_no_message_ends_the_forwarding_with_a_channel_error():
    taken, error = forwarded(lambda _: True, after=to_frame(pulse(1)) + b"\xff" * HEADER_BYTES)

    assert taken == [pulse(1)]
    assert isinstance(error, ChannelError)


def test_the_engine_writes_at_once_what_the_channel_takes_and_tells_how_much_that_was():
    ours, theirs = channel_pair()
    engine = BlockingEnd(theirs)
    frame = to_frame(Updates(sequence_ids=tuple(range(1_000_000))))

    num_taken = engine.offer(frame)
    num_more = engine.offer(frame[num_taken:])

    ours.close()
    engine.close()
    assert 0 < num_taken < len(frame)
    assert num_more == 0

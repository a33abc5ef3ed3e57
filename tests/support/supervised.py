"""A Supervisor over a scripted engine process: started, played with, stopped."""

import asyncio
from collections.abc import Awaitable, Callable

from engine.config import SupervisionConfig
from engine.errors import EngineError
from engine.messages import Submit
from engine.open_request import OpenRequest
from engine.open_requests import OpenRequests
from engine.supervisor import EngineState, Supervisor
from engine.text.detokenizer import ChoiceText, TextRules
from tests.support.byte_tokenizer import ByteTokenizer
from tests.support.children import assert_no_more_than, child_pids
from tests.support.manual_clock import ManualClock
from tests.support.new_request import new_request
from tests.support.scripted_command import scripted, scripted_config
from tests.support.until import WAIT_S, until


class Scene:
    """A Supervisor over a scripted engine, with a clock that only the test moves."""

    def __init__(self, *flags: object, **supervision: object) -> None:
        self.clock = ManualClock()
        self.requests = OpenRequests(self.clock.now)
        self.states: list[EngineState] = []
        self.pids: list[int] = []
        self.supervisor = Supervisor(
            scripted_config(supervision=SupervisionConfig(**supervision)),
            self.requests,
            on_change=lambda: self.states.append(self.supervisor.status.state),
            command=scripted(*flags),
            clock=self.clock,
        )

    @property
    def state(self) -> EngineState:
        return self.supervisor.status.state

    @property
    def pid(self) -> int:
        return self.supervisor._process.pid

    async def ready(self, generation: int = 1) -> None:
        status = self.supervisor.status
        await until(lambda: status.state is EngineState.READY and status.generation == generation)
        self.pids.append(self.pid)

    async def submit(self, *prompt: int, request_id: str = "a") -> OpenRequest:
        request = new_request(prompt, request_id=request_id)
        opened = self.requests.open(request, [ChoiceText(ByteTokenizer(), TextRules())], self.supervisor.post)
        self.supervisor.post(Submit(request=request, first_sequence_id=opened.first_sequence_id))
        return opened

    async def paused(self, pause_s: float) -> None:
        """Wait until the supervisor pauses after a crash."""
        told = f"starting again in {pause_s:g} s"
        await until(lambda: told in self.supervisor.status.detail, f"no pause of {pause_s} s")


def play(scene: Scene, act: Callable[[Scene], Awaitable[object]]) -> object:
    """Start, act, stop; nothing is left behind."""

    async def run() -> object:
        scene.supervisor.start()
        try:
            return await asyncio.wait_for(act(scene), WAIT_S)
        finally:
            stopping = asyncio.create_task(scene.supervisor.stop())
            while not stopping.done():
                await scene.clock.advance(1.0)
                await asyncio.sleep(0.002)
            await stopping

    before = child_pids()
    result = asyncio.run(run())
    assert_no_more_than(before)
    return result


async def text_and_error(opened: OpenRequest) -> tuple[str, EngineError | None]:
    text = ""
    try:
        async for event in opened.stream:
            text += event.text
    except EngineError as error:
        return text, error
    return text, None

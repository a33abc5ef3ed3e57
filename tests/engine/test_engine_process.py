import asyncio
import contextlib
import io
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import psutil
import pytest

from engine.engine_process import ENGINE_COMMAND, MAX_LINE_BYTES, NUM_LINES_KEPT, EngineProcess
from tests.support.children import child_pids
from tests.support.until import WAIT_S

READ_CHANNEL = "import os, sys; fd = int(sys.argv[1]); os.read(fd, 1)"


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", code)


def with_process(code: str, act: Callable[[EngineProcess, list[str]], Awaitable[object]]) -> object:
    async def run() -> object:
        lines: list[str] = []
        process = await EngineProcess.start(python(code), lines.append)
        try:
            return await asyncio.wait_for(act(process, lines), WAIT_S)
        finally:
            await process.reap()
            process.close()

    return asyncio.run(run())


def test_the_engine_is_started_as_a_program_that_sees_no_current_folder():
    assert (sys.executable, "-P", "-m", "engine") == ENGINE_COMMAND


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("raise SystemExit(0)", "exit status 0"),
        ("raise SystemExit(7)", "exit status 7"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("import os; os.abort()", "killed by SIGABRT"),
    ],
    ids=["good", "bad", "killed", "aborted"],
)
def test_it_says_how_it_ended(code: str, how: str):
    async def act(process: EngineProcess, lines: list[str]) -> object:
        await process.exited
        return process.how_it_ended

    assert with_process(code, act) == how


def test_both_outputs_are_forwarded_line_by_line_and_the_last_are_kept():
    code = (
        "import os, sys\n"
        f"for i in range({NUM_LINES_KEPT + 5}): os.write(1 + i % 2, b'line %d\\n' % i)\n"
        "os.write(2, b'\\xff no end')"
    )

    async def act(process: EngineProcess, lines: list[str]) -> object:
        await process.wrote_all
        return lines, process.last_lines

    lines, last_lines = with_process(code, act)
    assert lines == [*(f"line {i}" for i in range(NUM_LINES_KEPT + 5)), "\N{REPLACEMENT CHARACTER} no end"]
    assert last_lines == tuple(lines[-NUM_LINES_KEPT:])


def test_a_line_without_end_is_cut():
    code = f"import os\nfor i in range(8): os.write(2, b'x' * {MAX_LINE_BYTES // 2})"

    async def act(process: EngineProcess, lines: list[str]) -> object:
        await process.wrote_all
        return [len(line) for line in lines]

    lengths = with_process(code, act)
    assert sum(lengths) == 4 * MAX_LINE_BYTES
    assert max(lengths) <= 2 * MAX_LINE_BYTES


def test_by_default_lines_go_to_our_own_standard_error(capsys: pytest.CaptureFixture[str]):
    async def run() -> None:
        process = await EngineProcess.start(python("import os; os.write(1, b'hello\\n')"))
        await asyncio.wait_for(process.wrote_all, WAIT_S)
        await process.reap()
        process.close()

    asyncio.run(run())

    assert capsys.readouterr().err == "hello\n"


def test_a_closed_standard_error_of_ours_does_not_stop_the_reading():
    async def run() -> tuple[str, ...]:
        process = await EngineProcess.start(python("import os; os.write(1, b'one\\ntwo\\n')"))
        closed = io.StringIO()
        closed.close()
        with contextlib.redirect_stderr(closed):
            await asyncio.wait_for(process.wrote_all, WAIT_S)
        await process.reap()
        process.close()
        return process.last_lines

    assert asyncio.run(run()) == ("one", "two")


def test_it_reads_nothing_and_inherits_only_its_end_of_the_channel():
    code = (
        "import os, sys\n"
        "fds = [fd for fd in range(3, 256) if os.path.exists(f'/proc/self/fd/{fd}')]\n"
        "print(repr(sys.stdin.read()), fds == [int(sys.argv[1])])"
    )

    async def act(process: EngineProcess, lines: list[str]) -> object:
        await process.wrote_all
        return lines

    assert with_process(code, act) == ["'' True"]


def test_the_terminals_interrupt_does_not_reach_it():
    async def act(process: EngineProcess, lines: list[str]) -> object:
        return os.getpgid(process.pid) == os.getpgid(0)

    assert with_process(READ_CHANNEL, act) is False


def test_it_sees_the_end_of_the_channel_when_we_close_ours():
    async def act(process: EngineProcess, lines: list[str]) -> object:
        await process.channel.close()
        await process.exited
        return process.how_it_ended

    assert with_process(READ_CHANNEL, act) == "exit status 0"


def test_we_see_the_end_of_the_channel_when_it_dies():
    async def act(process: EngineProcess, lines: list[str]) -> object:
        os.kill(process.pid, signal.SIGKILL)
        return await process.channel.receive()

    assert with_process(READ_CHANNEL, act) is None


def test_closing_kills_and_may_be_repeated():
    async def act(process: EngineProcess, lines: list[str]) -> object:
        assert process.how_it_ended == "still alive"
        process.close()
        process.close()
        await process.reap()
        await process.reap()
        return process.how_it_ended, psutil.pid_exists(process.pid)

    assert with_process("import time; time.sleep(600)", act) == ("killed by SIGKILL", False)


def test_reaping_is_finished_although_it_is_cancelled_again_and_again():
    async def act(process: EngineProcess, lines: list[str]) -> object:
        reaping = asyncio.create_task(process.reap())
        while not reaping.done():
            await asyncio.sleep(0)
            reaping.cancel()
        return reaping.cancelled(), process.how_it_ended

    assert with_process("import time; time.sleep(600)", act) == (True, "killed by SIGKILL")


def test_a_pipe_held_open_by_a_grandchild_is_let_go():
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid)"

    async def act(process: EngineProcess, lines: list[str]) -> object:
        await process.exited
        did_end = process.wrote_all.done()
        process.close()
        await process.wrote_all
        os.kill(int(lines[0]), signal.SIGKILL)
        return did_end

    assert with_process(code, act) is False


def test_a_program_that_is_not_there_is_an_error_and_leaves_nothing_open():
    async def run() -> int:
        with pytest.raises(FileNotFoundError):
            await EngineProcess.start(("/no/such/program",))
        await asyncio.sleep(0)
        return psutil.Process().num_fds()

    asyncio.run(run())
    num_fds = psutil.Process().num_fds()

    asyncio.run(run())

    assert psutil.Process().num_fds() == num_fds


def test_a_start_that_is_cancelled_leaves_no_process():
    async def run() -> None:
        starting = asyncio.create_task(EngineProcess.start(python("import time; time.sleep(600)")))
        while not child_pids():
            await asyncio.sleep(0)
            if starting.done():
                break
        if not starting.cancel():  # it was faster than we are
            process = await starting
            await process.reap()
            process.close()
        await asyncio.wait({starting})

    asyncio.run(run())

    assert child_pids() == []

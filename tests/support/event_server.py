"""A tiny OpenAI-compatible server on raw sockets, whose every byte is chosen by the test.

As a program, `python -m tests.support.event_server PORT`, it answers every request in full.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

Body = dict[str, Any]  # Any: JSON
Answerer = Callable[[Body], "Answer"]


class Answer:
    """Status and pieces of a body; `is_chunked` sends each piece as a chunk, else one Content-Length.

    With `is_cut` the connection is closed before the body has ended.
    """

    def __init__(self, pieces: list[bytes], status: int = 200, *, is_cut: bool = False) -> None:
        self.pieces = pieces
        self.status = status
        self.is_cut = is_cut
        self.is_chunked = len(pieces) > 1


class EventServer:
    """Answers POSTs as `answerer` says, and GET /v1/models; keeps what it was sent."""

    def __init__(self, answerer: Answerer) -> None:
        self.bodies: list[Body] = []
        self.paths: list[str] = []
        self.heads: list[str] = []
        self.num_connections = 0
        self.most_at_once = 0
        self._at_once = 0
        self._answerer = answerer

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[str]:
        """Serve while the block runs; gives the address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while not reader.at_eof():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if not await self._answer(head, reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("Content-Length:"))
        body = await reader.readexactly(length)
        self.heads.append(head)
        self.paths.append(head.split(" ")[1])
        if head.startswith("GET"):
            answer = Answer([json.dumps({"data": [{"id": "tiny"}]}).encode()])
        else:
            self.bodies.append(json.loads(body))
            answer = self._answerer(self.bodies[-1])
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await self._send(answer, writer)
        self._at_once -= 1
        return not answer.is_cut

    async def _send(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        size = (
            "Transfer-Encoding: chunked" if answer.is_chunked else f"Content-Length: {len(answer.pieces[0])}"
        )
        writer.write(f"HTTP/1.1 {answer.status} x\r\n{size}\r\n\r\n".encode())
        for piece in answer.pieces:
            await asyncio.sleep(0)  # others get their turn
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.is_chunked else piece)
        if answer.is_chunked and not answer.is_cut:
            writer.write(b"0\r\n\r\n")
        await writer.drain()


def events(texts: list[str], usage: Body | None, *, end: str = "\n\n") -> list[bytes]:
    """An event stream of a completion: a chunk a text, then usage, then [DONE]; one piece each."""
    chunks: list[Body] = [{"choices": [{"index": 0, "text": text}]} for text in texts]
    if usage is not None:
        chunks.append({"choices": [], "usage": usage})
    return [*(f"data: {json.dumps(chunk)}{end}".encode() for chunk in chunks), f"data: [DONE]{end}".encode()]


def whole(body: Body) -> Answer:
    """A completion that is not streamed, of as many tokens as were asked for."""
    return Answer([json.dumps({"choices": [{"text": "x"}], "usage": usage_of(body)}).encode()])


def streamed(body: Body) -> Answer:
    """A stream of as many tokens as were asked for, two to a chunk; whole if that was asked for."""
    if not body.get("stream"):
        return whole(body)
    return Answer(events(["ab"] * ((body["max_tokens"] + 1) // 2), usage_of(body)))


def usage_of(body: Body) -> Body:
    """The tokens of a request that is answered in full; a text has one more than it has words."""
    prompt = body["prompt"] if "prompt" in body else body["messages"][0]["content"]
    num_input = len(prompt) if isinstance(prompt, list) else 1 + len(prompt.split())
    return {"prompt_tokens": num_input, "completion_tokens": body["max_tokens"]}


async def main(port: int) -> None:
    """Serve until ended."""
    async with EventServer(streamed).listening(port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

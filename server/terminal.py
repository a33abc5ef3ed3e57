"""`ringserve chat`: a conversation in the terminal.

A client like any other: it speaks HTTP through the official `openai` package, and knows nothing of
the engine, nor where the server at the other end came from.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TextIO

from openai import APIError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

with contextlib.suppress(ImportError):  # Python is built without it on some systems
    import readline  # noqa: F401  gives `input` a line editor and a history

HELP = "Ctrl-C stops an answer, /reset forgets the conversation, /exit or Ctrl-D leaves."
PROMPT = "> "


@dataclass(kw_only=True)
class Conversation:
    """What was said so far, and whom to ask next; `output` is where the answers appear."""

    client: OpenAI
    model_id: str
    system: str | None
    output: TextIO
    messages: list[ChatCompletionMessageParam] = field(default_factory=list)

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def ask(self, text: str) -> None:
        """Send `text` and show the answer as it comes; a stopped answer is kept as far as it came.

        After an error the question is forgotten, so that it can be asked again.
        """
        self.messages.append({"role": "user", "content": text})
        said: list[str] = []
        try:
            for piece in self._pieces():
                said.append(piece)
                self._write(piece)
        except KeyboardInterrupt:
            self._write(" [stopped]")
        except APIError as error:
            self.messages.pop()
            self._write(("\n" if said else "") + f"[{reason(error)}]\n")
            return
        self._write("\n")
        self.messages.append({"role": "assistant", "content": "".join(said)})

    def _pieces(self) -> Iterator[str]:
        chunks = self.client.chat.completions.create(model=self.model_id, messages=self.messages, stream=True)
        with chunks:
            for chunk in chunks:
                for choice in chunk.choices:
                    yield choice.delta.content or ""

    def _write(self, text: str) -> None:
        self.output.write(text)
        self.output.flush()


def converse(conversation: Conversation, read_line: Callable[[str], str] = input) -> None:
    """Read lines and ask them until the user leaves; `read_line` is given what to prompt with."""
    conversation.reset()
    while True:
        try:
            line = read_line(PROMPT).strip()
        except EOFError:
            conversation.output.write("\n")
            return
        except KeyboardInterrupt:
            conversation.output.write(f"\n{HELP}\n")
            continue
        if line == "/exit":
            return
        if line == "/reset":
            conversation.reset()
        elif line.startswith("/"):
            conversation.output.write(f"{HELP}\n")
        elif line:
            conversation.ask(line)


def chat_at(
    url: str,
    api_key: str,
    system: str | None,
    output: TextIO = sys.stdout,
    read_line: Callable[[str], str] = input,
) -> bool:
    """Talk with the server at `url` until the user leaves; whether the server could be talked to."""
    with OpenAI(base_url=f"{url}/v1", api_key=api_key) as client:
        try:
            model_id = client.models.list().data[0].id
        except APIError as error:
            output.write(f"cannot talk to {url}: {reason(error)}\n")
            return False
        output.write(f"Chatting with {model_id} at {url}. {HELP}\n")
        converse(Conversation(client=client, model_id=model_id, system=system, output=output), read_line)
    return True


def reason(error: APIError) -> str:
    """Why a request failed, in the server's words where there are any."""
    body = error.body
    return str(body["message"]) if isinstance(body, dict) and "message" in body else error.message

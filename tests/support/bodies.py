"""Request bodies that the fake engine answers."""

from tests.support.fake_engine import MODEL_ID

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"
CHAT = {"model": MODEL_ID, "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION = {"model": MODEL_ID, "prompt": "Hi"}
STREAMED_CHAT = {**CHAT, "stream": True}
STREAMED_COMPLETION = {**COMPLETION, "stream": True}
EVERY_EVENT = "Hello wörld 🙂"
NUM_TOKENS = len(EVERY_EVENT)
NUM_CHAT_PROMPT_TOKENS = len("user:Hi\n")

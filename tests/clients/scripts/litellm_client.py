"""litellm: completion, streaming, asynchronous, text completion, log-probabilities, errors, tools."""

import asyncio
import json
import sys

import litellm

asked = json.loads(sys.argv[1])
options = {"api_base": asked["url"], "api_key": "any", "temperature": 0, "max_tokens": 12, "num_retries": 0}
chat = {
    **options,
    "model": f"openai/{asked['model']}",
    "messages": [{"role": "user", "content": asked["question"]}],
}
whole = litellm.completion(**chat)
chunks = list(litellm.completion(**chat, stream=True, stream_options={"include_usage": True}))
later = asyncio.run(litellm.acompletion(**chat))
text = litellm.text_completion(
    **options, model=f"text-completion-openai/{asked['model']}", prompt=asked["prompt"]
)
detailed = litellm.completion(**chat, logprobs=True, top_logprobs=2, presence_penalty=0.5, seed=1)
errors = []
for changes in ({"temperature": 9}, {"model": "openai/unheard-of"}):
    try:
        litellm.completion(**{**chat, **changes})
        errors.append("none")
    except litellm.exceptions.APIError as error:
        errors.append(type(error).__name__)
    except (litellm.exceptions.BadRequestError, litellm.exceptions.NotFoundError) as error:
        errors.append(type(error).__name__)
answer = {
    "text": whole.choices[0].message.content,
    "finish_reason": whole.choices[0].finish_reason,
    "usage": whole.usage.completion_tokens,
    "streamed_text": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
    "streamed_usage": next(c.usage.completion_tokens for c in chunks if getattr(c, "usage", None)),
    "later_text": later.choices[0].message.content,
    "completion": text.choices[0].text,
    "num_top": [len(entry.top_logprobs) for entry in detailed.choices[0].logprobs.content],
    "errors": errors,
}
sys.stdout.write(json.dumps(answer) + "\n")

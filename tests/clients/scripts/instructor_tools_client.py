"""instructor in its tools mode: the schema is a function that the model is made to call."""

import json
import sys
from typing import Literal

import instructor
import openai
from pydantic import BaseModel, Field

asked = json.loads(sys.argv[1])


class City(BaseModel):
    """A city and its country."""

    city: str = Field(max_length=20)
    country: str = Field(max_length=20)
    size: Literal["small", "large"]


raw = openai.OpenAI(base_url=asked["url"], api_key="any", max_retries=0)
client = instructor.from_openai(raw, mode=instructor.Mode.TOOLS)
city, completion = client.chat.completions.create_with_completion(
    model=asked["model"],
    response_model=City,
    max_retries=1,
    temperature=0,
    max_tokens=80,
    messages=[{"role": "user", "content": asked["question"]}],
)
call = completion.choices[0].message.tool_calls[0]
answer = {
    "city": city.model_dump(),
    "name": call.function.name,
    "arguments": json.loads(call.function.arguments),
    "finish_reason": completion.choices[0].finish_reason,
}
sys.stdout.write(json.dumps(answer) + "\n")

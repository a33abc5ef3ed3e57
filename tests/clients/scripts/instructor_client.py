"""instructor in its text modes: the schema goes into the prompt, the answer's text is validated."""

import json
import sys

import instructor
import openai
from pydantic import BaseModel

asked = json.loads(sys.argv[1])


class City(BaseModel):
    """A city and its country."""

    city: str
    country: str


raw = openai.OpenAI(base_url=asked["url"], api_key="any", max_retries=0)
client = instructor.from_openai(raw, mode=instructor.Mode.MD_JSON)
city, completion = client.chat.completions.create_with_completion(
    model=asked["model"],
    response_model=City,
    max_retries=3,
    temperature=0,
    max_tokens=80,
    messages=[{"role": "user", "content": asked["question"]}],
)
plain = client.chat.completions.create(
    model=asked["model"],
    response_model=None,
    temperature=0,
    max_tokens=12,
    messages=[{"role": "user", "content": asked["question"]}],
)
answer = {
    "city": city.model_dump(),
    "raw": completion.choices[0].message.content,
    "plain": plain.choices[0].message.content,
}
sys.stdout.write(json.dumps(answer) + "\n")

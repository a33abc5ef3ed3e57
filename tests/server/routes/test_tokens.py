import pytest

from tests.support.fake_engine import CARD, MODEL_ID

pytestmark = pytest.mark.anyio


async def test_a_text_is_tokenized(client):
    answer = await client.post("/tokenize", json={"prompt": "Hi"})

    assert answer.json() == {"count": 2, "max_model_len": CARD.max_context, "tokens": [72, 105]}


async def test_the_texts_of_tokens_come_where_asked_for(client):
    answer = await client.post(
        "/tokenize", json={"prompt": "é", "model": MODEL_ID, "return_token_strs": True}
    )

    assert answer.json()["token_strs"] == ["é"]


async def test_tokens_become_text_again(client):
    tokens = (await client.post("/tokenize", json={"prompt": "wörld 🙂"})).json()["tokens"]

    assert (await client.post("/detokenize", json={"tokens": tokens})).json() == {"prompt": "wörld 🙂"}


async def test_special_tokens_are_spelled(client, engine):
    engine.special = {"<s>": 0x100000}

    assert (await client.post("/detokenize", json={"tokens": [0x100000]})).json() == {"prompt": "<s>"}


@pytest.mark.parametrize(
    ("path", "body", "param", "status"),
    [
        ("/tokenize", {}, "prompt", 400),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt", 400),
        ("/tokenize", {"prompt": "a", "mood": 1}, "mood", 400),
        ("/tokenize", {"prompt": "a", "model": "other"}, "model", 404),
        ("/detokenize", {"tokens": [0x110000]}, "tokens", 400),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]", 400),
        ("/detokenize", {}, "tokens", 400),
    ],
    ids=str,
)
async def test_a_bad_body_is_refused_by_name(client, path, body, param, status):
    answer = await client.post(path, json=body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)

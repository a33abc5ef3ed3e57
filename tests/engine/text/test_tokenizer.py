import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import CheckpointError, ContextLengthError, RequestError
from engine.text.chat_template import ChatOptions
from engine.text.tokenizer import Tokenizer
from tests.support.awkward_texts import AWKWARD_TEXTS, TALK, TALKS
from tests.support.golden_tokens import read_golden
from tests.support.tiny_gguf import write_tokenizer_gguf
from tests.support.tiny_tokenizer import BOS_ID, EOS_ID, IM_END_ID, IM_START_ID, write_tiny_tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_tokenizer(folder)
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("byte-level") / "tiny.gguf"
    vocabulary = read_golden("byte_level")["vocabulary"]
    return Tokenizer.load(write_tokenizer_gguf(path, vocabulary, pre="qwen2"))


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("sentencepiece") / "tiny.gguf"
    return Tokenizer.load(write_tokenizer_gguf(path, read_golden("sentencepiece")["vocabulary"]))


@pytest.fixture(scope="module")
def demo(demo_model_path: Path) -> Tokenizer:
    return Tokenizer.load(demo_model_path)


@given(text=st.text())
def test_decoding_what_was_encoded_gives_the_text_back(byte_level: Tokenizer, text: str) -> None:
    ids = byte_level.encode(text)

    assert byte_level.decode(ids, skip_special_tokens=False) == text


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_sentencepiece_gives_the_text_back_without_the_space_it_put_in_front(
    sentencepiece: Tokenizer, text: str
) -> None:
    ids = sentencepiece.encode(text, add_special_tokens=False)

    assert sentencepiece.decode(ids) == text


@pytest.mark.parametrize(
    "name", sorted(set(AWKWARD_TEXTS) - {"special_inside", "user_defined", "space_mark"})
)
def test_bytes_of_tokens_joined_are_the_bytes_of_the_text(
    name: str, byte_level: Tokenizer, sentencepiece: Tokenizer
) -> None:
    text = AWKWARD_TEXTS[name]
    in_bytes = b"".join(map(byte_level.token_bytes, byte_level.encode(text)))
    in_pieces = b"".join(map(sentencepiece.token_bytes, sentencepiece.encode(text)))

    assert in_bytes == text.encode()
    assert in_pieces == b"<s>" + f" {text}".encode() * (text not in ("", "<|im_end|>")) + text.encode() * (
        text == "<|im_end|>"
    )


def test_special_tokens_in_a_text_are_those_tokens(tiny: Tokenizer) -> None:
    assert tiny.encode("<|im_start|>a<|im_end|>") == [IM_START_ID, ord("a"), IM_END_ID]


def test_special_tokens_are_left_out_of_decoded_text_unless_asked_for(tiny: Tokenizer) -> None:
    ids = [IM_START_ID, ord("a"), EOS_ID]

    assert tiny.decode(ids) == "a"
    assert tiny.decode(ids, skip_special_tokens=False) == "<|im_start|>a<|eos|>"


def test_bytes_that_are_no_text_decode_to_replacements(tiny: Tokenizer) -> None:
    assert tiny.decode([0xF0, 0x9F, ord("a"), 0xFF, 263]) == "\ufffda\ufffd"


def test_the_vocabulary_is_counted_with_its_added_tokens(tiny: Tokenizer) -> None:
    assert (tiny.vocab_size, tiny.eos_ids, tiny.special_ids) == (260, {EOS_ID}, {256, 257, 258, 259})


def test_a_lone_surrogate_is_refused(tiny: Tokenizer) -> None:
    with pytest.raises(RequestError, match="lone surrogate"):
        tiny.encode("a\ud800")


def test_messages_become_the_prompt_up_to_the_answer(tiny: Tokenizer) -> None:
    ids = tiny.render_chat([{"role": "user", "content": "hi"}]).token_ids

    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tiny.decode(ids, skip_special_tokens=False) == text
    assert ids[0] == IM_START_ID


def test_messages_that_the_template_cannot_take_are_refused(tiny: Tokenizer) -> None:
    with pytest.raises(RequestError, match="chat template refuses these messages") as caught:
        tiny.render_chat([{"role": "user"}])

    assert caught.value.param == "messages"


def test_messages_without_a_template_are_refused(byte_level: Tokenizer) -> None:
    with pytest.raises(RequestError, match="no chat template; send its prompt to /v1/completions"):
        byte_level.render_chat(TALK)


def test_a_template_that_writes_the_beginning_of_sequence_does_not_get_a_second(tmp_path: Path) -> None:
    template = {"tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}"}
    vocabulary = {**read_golden("sentencepiece")["vocabulary"], **template}
    tokenizer = Tokenizer.load(write_tokenizer_gguf(tmp_path / "tiny.gguf", vocabulary, add_bos_token=True))

    ids = tokenizer.render_chat([{"role": "user", "content": "hello"}]).token_ids

    assert list(ids) == tokenizer.encode("hello")
    assert ids.count(1) == 1


def test_many_threads_encode_long_texts_at_once(byte_level: Tokenizer) -> None:
    texts = [f"{index} " + AWKWARD_TEXTS["sentence"] * 300 for index in range(16)]
    alone = [byte_level.encode(text) for text in texts]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(byte_level.encode, texts))

    assert together == alone


@pytest.mark.demo_model
def test_the_demo_model_renders_a_talk_as_transformers_does(demo: Tokenizer) -> None:
    ids = [list(demo.render_chat(talk).token_ids) for talk in TALKS]

    assert ids == read_golden("demo_model_transformers")["talks"]


@pytest.mark.demo_model
def test_the_demo_model_decodes_what_it_encoded(demo: Tokenizer) -> None:
    for text in AWKWARD_TEXTS.values():
        assert demo.decode(demo.encode(text), skip_special_tokens=False) == text


def test_the_front_half_loads_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, engine.source, engine.text.detokenizer, engine.text.tokenizer\n"
        "heavy = {'torch', 'transformers', 'numpy', 'gguf', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_template_file_takes_the_place_of_the_checkpoints_own(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)
    template = tmp_path / "mine.jinja"
    template.write_text("{{ messages[0].content }}{{ mood }}")
    tokenizer = Tokenizer.load(tmp_path, chat_template=template)

    assert tokenizer.render_chat([{"role": "user", "content": "hi"}]).text == "hi"
    assert tokenizer.template_variables == {"mood"}
    assert (tokenizer.template_source, tokenizer.reads_tools) == (template.read_text("utf-8"), False)


def test_a_template_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)

    with pytest.raises(CheckpointError, match=r"nowhere\.jinja"):
        Tokenizer.load(tmp_path, chat_template=tmp_path / "nowhere.jinja")


def test_a_token_is_found_by_its_spelling(tiny: Tokenizer) -> None:
    assert tiny.find("<|im_start|>") == IM_START_ID
    assert tiny.find("<|fim_prefix|>") is None


def test_a_conversation_that_cannot_fit_is_refused_before_it_is_encoded(tiny: Tokenizer) -> None:
    messages = [{"role": "user", "content": "x" * 100_000}]
    with pytest.raises(ContextLengthError, match="maximum context length is 50 tokens") as caught:
        tiny.render_chat(messages, ChatOptions(max_context=50))

    assert caught.value.param == "messages"
    assert len(tiny.render_chat(messages, ChatOptions(max_context=10_000)).token_ids) > 100_000


def test_other_threads_go_on_while_long_text_is_encoded(tiny: Tokenizer) -> None:
    with ThreadPoolExecutor(1) as threads:
        started_s = last_s = time.perf_counter()
        encoding = threads.submit(tiny.encode, "word " * 400_000)
        longest_s = 0.0
        while not encoding.done():
            now_s = time.perf_counter()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s
        whole_s = time.perf_counter() - started_s

    assert longest_s < whole_s / 2


def test_a_text_without_tokens_starts_with_the_models_own(tiny: Tokenizer, sentencepiece: Tokenizer) -> None:
    assert tiny.start_id == BOS_ID
    assert sentencepiece.start_id == 1


def test_the_vocabulary_has_the_bytes_of_each_token_and_names_the_special_ones(tiny: Tokenizer) -> None:
    vocabulary = tiny.vocabulary()

    assert len(vocabulary.token_bytes) == tiny.vocab_size
    assert all(tiny.token_bytes(token_id) == own for token_id, own in enumerate(vocabulary.token_bytes))
    assert set(vocabulary.special_ids) == tiny.special_ids

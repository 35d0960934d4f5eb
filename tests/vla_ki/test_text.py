"""Text tokenizers: exact round trips, saved files, and files that are not there."""

from __future__ import annotations

import io

import pytest

from jepa_world_model.core.errors import UserError

pytest.importorskip("tokenizers")

from jepa_world_model.vla_ki.text import BOS, EOS, PAD, UNK, PromptBpe, SentencePieceText, load_text_tokenizer

pytestmark = pytest.mark.extra
TEXTS = [
    f"Task: reach the {c} target, State: {i} {255 - i};\nAction: " for c in ("red", "blue") for i in range(50)
]


@pytest.fixture(scope="module")
def bpe() -> PromptBpe:
    return PromptBpe.fit(TEXTS, vocab_size=400)


@pytest.mark.parametrize("text", [*TEXTS[:3], "", "|", "äöü 漢字 \t x", "a colour never seen"])
def test_any_text_comes_back_exactly(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


def test_marks_have_gemmas_ids_and_leave_no_text(bpe):
    assert (PAD, EOS, BOS, UNK) == (0, 1, 2, 3)
    ids = bpe.encode("red")
    assert bpe.decode([BOS, *ids, EOS, PAD, 10**6, -1]) == "red"
    assert min(ids) > 3


def test_a_saved_tokenizer_is_the_same(bpe):
    loaded = load_text_tokenizer(bpe.to_json())
    assert loaded.vocab_size == bpe.vocab_size
    assert [loaded.encode(t) for t in TEXTS] == [bpe.encode(t) for t in TEXTS]


def test_training_is_deterministic(bpe):
    assert PromptBpe.fit(TEXTS, vocab_size=400).to_json() == bpe.to_json()


def test_a_sentencepiece_file_is_used_where_there_is_one(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=60,
        minloglevel=2,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        pad_id=PAD,
        eos_id=EOS,
        bos_id=BOS,
        unk_id=UNK,
    )
    (tmp_path / "text.model").write_bytes(model.getvalue())
    text = SentencePieceText(tmp_path / "text.model")
    assert text.decode([BOS, *text.encode("reach the red target"), EOS]) == "reach the red target"
    loaded = load_text_tokenizer(text.to_json())
    assert loaded.encode(TEXTS[0]) == text.encode(TEXTS[0])
    (tmp_path / "text.model").unlink()
    with pytest.raises(UserError, match="does not exist"):
        load_text_tokenizer(text.to_json())
    (tmp_path / "text.model").write_bytes(b"no model")
    with pytest.raises(UserError, match="no SentencePiece model"):
        SentencePieceText(tmp_path / "text.model")


def test_whole_words_are_one_token_each_and_come_back():
    text = PromptBpe.fit(TEXTS, vocab_size=280, whole=("<loc0016>", "<loc0048>"))
    ids = text.encode("red<loc0048><loc0016>")
    assert text.vocab_size <= 280
    assert len(set(ids[-2:])) == 2
    assert text.decode(ids) == "red<loc0048><loc0016>"
    assert text.decode(ids[-1:]) == "<loc0016>"
    again = load_text_tokenizer(text.to_json())
    assert again.encode("red<loc0048><loc0016>") == ids
    with pytest.raises(UserError, match="at least 262 ids"):
        PromptBpe.fit(TEXTS, vocab_size=261, whole=("<loc0016>", "<loc0048>"))


def test_small_vocabularies_and_foreign_files_are_refused():
    with pytest.raises(UserError, match="at least 260"):
        PromptBpe.fit(TEXTS, vocab_size=100)
    with pytest.raises(UserError, match="format is None"):
        load_text_tokenizer({})

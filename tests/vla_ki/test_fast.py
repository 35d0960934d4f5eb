"""FAST tokens: the bounds of the round trip, of the compression, and what corrupt ids do."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError

pytest.importorskip("tokenizers")

from jepa_world_model.vla_ki.fast import FastTokenizer, from_llm_ids, to_llm_ids

pytestmark = pytest.mark.extra


def smooth_chunks(num: int, horizon: int, dim: int, seed: int) -> np.ndarray:
    """Sums of three slow sines, inside [-1, 1]."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, horizon)[None, :, None, None]
    rate = rng.uniform(0.2, 1.5, (num, 1, dim, 3))
    phase = rng.uniform(0, 2 * np.pi, (num, 1, dim, 3))
    return np.sin(2 * np.pi * rate * time + phase).mean(-1)  # [N,T,D]


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return smooth_chunks(600, 50, 7, seed=0)


@pytest.fixture(scope="module")
def fast(train: np.ndarray) -> FastTokenizer:
    return FastTokenizer.fit(train, vocab_size=1024)


@pytest.mark.parametrize("scale", [5.0, 10.0, 40.0])
def test_round_trip_error_is_that_of_rounding_alone(train, scale):
    tokenizer = FastTokenizer.fit(train, vocab_size=2048, scale=scale)
    assert tokenizer.round_trip_rmse(train[:100]) <= 1.2 / (scale * np.sqrt(12))


def test_smooth_chunks_take_a_third_of_the_tokens_or_less(fast):
    held_out = smooth_chunks(200, 50, 7, seed=1)
    assert sum(map(len, fast.encode(held_out))) * 3 <= held_out.size


def test_strict_decoding_inverts_encoding(fast):
    held_out = smooth_chunks(50, 50, 7, seed=2)
    decoded, ok = fast.decode(fast.encode(held_out), 50, 7)
    assert ok.all()
    assert decoded.shape == held_out.shape
    again, _ = fast.decode(fast.encode(decoded), 50, 7)
    np.testing.assert_allclose(again, decoded, atol=1e-5)  # a decoded chunk is a fixed point


def test_low_frequencies_of_all_dimensions_come_first():
    chunk = np.zeros((1, 8, 3))
    chunk[0, :, 1] = 1.0  # a constant in dimension 1 lives in frequency 0 alone
    train = np.concatenate([chunk, smooth_chunks(50, 8, 3, seed=3)])
    tokenizer = FastTokenizer.fit(train, vocab_size=256)
    values, known = tokenizer._coefficients(tokenizer.encode(chunk)[0])
    assert known
    assert values.tolist() == [0, round(10 * np.sqrt(8)), 0] + [0] * 21


def test_corrupt_ids_never_raise_in_pad_mode(fast):
    rng = np.random.default_rng(4)
    good = fast.encode(smooth_chunks(100, 50, 7, seed=5))
    corrupt = []
    for i in range(10_000):
        ids = np.array(good[i % 100])
        ids = ids[: rng.integers(0, len(ids) + 1)] if i % 3 else np.concatenate([ids, ids])
        hit = rng.random(len(ids)) < 0.2
        corrupt.append(np.where(hit, rng.integers(-5_000, 300_000, len(ids)), ids).tolist())
    decoded, ok = fast.decode(corrupt, 50, 7, mode="pad")
    assert decoded.shape == (10_000, 50, 7)
    assert np.isfinite(decoded).all()
    assert not ok.all()


def test_pad_mode_marks_what_strict_mode_refuses(fast):
    ids = fast.encode(smooth_chunks(1, 50, 7, seed=6))[0]
    for wrong in (ids[:-1], [*ids, ids[0]], [*ids, 10**6], [-1, *ids], []):
        with pytest.raises(UserError, match="sequence 0"):
            fast.decode([wrong], 50, 7)
        _, ok = fast.decode([ids, wrong], 50, 7, mode="pad")
        assert ok.tolist() == [True, False]


def test_a_missing_tail_decodes_to_the_low_frequencies(fast):
    chunk = smooth_chunks(1, 50, 7, seed=7)
    ids = fast.encode(chunk)[0]
    decoded, ok = fast.decode([ids[:-3]], 50, 7, mode="pad")
    assert not ok[0]
    assert np.sqrt(np.mean((decoded - chunk) ** 2)) < 0.2


def test_fit_is_deterministic_and_a_file_is_exact(fast, train, tmp_path):
    assert FastTokenizer.fit(train, vocab_size=1024).to_json() == fast.to_json()
    fast.save(tmp_path / "fast.json")
    loaded = FastTokenizer.load(tmp_path / "fast.json")
    assert loaded.encode(train[:20]) == fast.encode(train[:20])
    assert loaded.to_json() == fast.to_json()


def test_clipped_coefficients_are_counted(train):
    tokenizer = FastTokenizer.fit(train, vocab_size=1024)
    tokenizer.encode(train[:10])
    assert tokenizer.clipped == 0
    tokenizer.encode(train[:1] * 50)
    assert tokenizer.clipped > 0
    assert tokenizer.encoded == 11 * 350


def test_a_dimension_that_never_moves_is_refused_by_its_index(train):
    still = train.copy()
    still[..., [2, 5]] = 0.3
    with pytest.raises(UserError, match=r"\[2, 5\] never change"):
        FastTokenizer.fit(still)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[0], r"\[N,T,D\]"),
        (lambda c: np.where(c > 0.9, np.nan, c), "not finite"),
        (lambda c: c * 1000, "more than the vocabulary"),
        (lambda c: c[:0], "no action chunks"),
    ],
)
def test_unusable_chunks_are_refused_in_one_sentence(train, change, message):
    with pytest.raises(UserError, match=message):
        FastTokenizer.fit(change(train))


def test_llm_ids_count_down_from_the_top_and_come_back():
    llm = to_llm_ids([0, 1, 1023], vocab_size=257152, skip=128)
    assert llm.tolist() == [257023, 257022, 256000]
    assert from_llm_ids(llm, vocab_size=257152, skip=128).tolist() == [0, 1, 1023]
    spared = to_llm_ids(np.arange(2048), vocab_size=257152, skip=1152)
    assert spared.max() < 256000  # <loc0000> is 256000, <seg000> 257024: behind both
    with pytest.raises(UserError, match="do not fit"):
        to_llm_ids([500], vocab_size=500, skip=1)


def test_the_published_layout_is_read(tmp_path, train):
    import json

    import tokenizers

    coefficients = np.rint(np.fft.fft(train[:200], axis=1).real).astype(int)
    lowest = int(coefficients.min())
    texts = ["".join(map(chr, row.ravel() - lowest)) for row in coefficients]
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=400, show_progress=False)
    bpe.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"scale": 10, "min_token": lowest, "time_horizon": 50, "action_dim": 7})
    )
    tokenizer = FastTokenizer.from_published(tmp_path)
    assert tokenizer.round_trip_rmse(train[:20]) <= 1.2 / (10 * np.sqrt(12))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"missing tokenizer.json"):
        FastTokenizer.from_published(tmp_path)

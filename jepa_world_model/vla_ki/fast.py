"""FAST action tokens: a chunk of actions as a short string of integers (cosine transform, then BPE)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.extras import require

FIRST_SYMBOL = 0x4E00  # CJK ideographs: no surrogates, no white space, nothing a text normaliser touches
LAST_SYMBOL = 0xD7FF  # the surrogates begin behind it
FORMAT = "jepa-wm-fast-1"
MODES = ("strict", "pad")


class FastTokenizer:
    """Actions [T,D] to FAST ids and back; fitted on the training split, saved with the checkpoint.

    Coefficients beyond the range seen while fitting are clipped to it and counted in `clipped`.
    Source: arXiv 2501.09747 section 5; own alphabet and merges instead of a byte-level text tokenizer.
    """

    def __init__(
        self, bpe, *, scale: float, lowest: int, highest: int, first_symbol: int = FIRST_SYMBOL
    ) -> None:
        self._bpe = bpe
        self.scale = float(scale)  # quantisation steps a unit of a coefficient
        self.lowest, self.highest = int(lowest), int(highest)  # range of the rounded coefficients
        self.first_symbol = int(first_symbol)
        self.clipped = 0  # coefficients cut to the range so far
        self.encoded = 0  # coefficients encoded so far

    @classmethod
    def fit(cls, chunks: np.ndarray, *, vocab_size: int = 1024, scale: float = 10.0) -> FastTokenizer:
        """A tokenizer for normalised chunks [N,T,D] of the training split; equal chunks, equal tokenizer.

        Errors: values not finite, a dimension that never moves, a vocabulary smaller than the alphabet.
        """
        chunks = _checked(chunks)
        _refuse_degenerate(chunks)
        coefficients = _quantise(chunks, scale)
        lowest, highest = int(coefficients.min()), int(coefficients.max())
        symbols = highest - lowest + 1
        if symbols > min(vocab_size, LAST_SYMBOL - FIRST_SYMBOL + 1):
            raise UserError(
                f"FAST needs {symbols} symbols for coefficients {lowest}..{highest}, more than the "
                f"vocabulary of {vocab_size}; normalise the actions to [-1, 1], lower the "
                f"scale ({scale}), or raise it"
            )
        bpe = _train_bpe(_strings(coefficients - lowest, FIRST_SYMBOL), symbols, vocab_size)
        return cls(bpe, scale=scale, lowest=lowest, highest=highest)

    @property
    def vocab_size(self) -> int:
        """Number of ids; can be less than asked for when the data hold few repeated pairs."""
        return self._bpe.get_vocab_size()

    def encode(self, chunks: np.ndarray) -> list[list[int]]:
        """FAST ids of every chunk. Shapes: chunks [N,T,D] -> N lists of different lengths."""
        coefficients = _quantise(_checked(chunks), self.scale)
        clipped = np.clip(coefficients, self.lowest, self.highest)
        self.clipped += int((clipped != coefficients).sum())
        self.encoded += coefficients.size
        texts = _strings(clipped - self.lowest, self.first_symbol)
        return [e.ids for e in self._bpe.encode_batch(texts, add_special_tokens=False)]

    def decode(
        self, ids: Sequence[Sequence[int]], horizon: int, dim: int, *, mode: str = "strict"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions [N,T,D] float32 and ok [N]; mode `pad` makes zero coefficients of what is missing or wrong.

        Errors: an unknown id or a wrong number of coefficients in mode `strict`; none in mode `pad`.
        """
        if mode not in MODES:
            raise UserError(f"decode mode must be one of {', '.join(MODES)}, got {mode!r}")
        size = horizon * dim
        flat = np.zeros((len(ids), size), dtype=np.float64)
        ok = np.zeros(len(ids), dtype=bool)
        for row, sequence in enumerate(ids):
            values, known = self._coefficients(sequence)
            ok[row] = known and len(values) == size
            if mode == "strict" and not ok[row]:
                found = f"{len(values)} coefficients{'' if known else ' and unknown ids'}"
                raise UserError(
                    f"FAST sequence {row} spells {found}, not {horizon} x {dim} = {size}; "
                    f"decode with mode='pad' to accept what a model generates"
                )
            count = min(len(values), size)
            flat[row, :count] = values[:count]
        return _inverse(flat.reshape(len(ids), horizon, dim) / self.scale), ok

    def _coefficients(self, sequence: Sequence[int]) -> tuple[np.ndarray, bool]:
        """The integers that a sequence spells, clipped to the range, and whether each was known."""
        size = self.vocab_size
        valid = [int(i) for i in sequence if 0 <= i < size]
        text = self._bpe.decode(valid, skip_special_tokens=False)
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        values = codes.astype(np.int64) - self.first_symbol + self.lowest
        inside = np.clip(values, self.lowest, self.highest)
        return inside, len(valid) == len(sequence) and bool((inside == values).all())

    def round_trip_rmse(self, chunks: np.ndarray) -> float:
        """Root mean square of what encoding and decoding lose, in units of the normalised actions."""
        decoded, _ = self.decode(self.encode(chunks), chunks.shape[1], chunks.shape[2])
        return float(np.sqrt(np.mean((decoded - chunks) ** 2)))

    def to_json(self) -> dict:
        """All that `from_json` needs, as plain values."""
        return {
            "format": FORMAT,
            "scale": self.scale,
            "lowest": self.lowest,
            "highest": self.highest,
            "first_symbol": self.first_symbol,
            "bpe": json.loads(self._bpe.to_str()),
        }

    @classmethod
    def from_json(cls, state: dict) -> FastTokenizer:
        """The tokenizer that `to_json` described."""
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        if found != FORMAT:
            raise UserError(f"not a FAST tokenizer of format {FORMAT}: format is {found!r}")
        tokenizers = require("tokenizers", "FAST tokens")
        try:
            bpe = tokenizers.Tokenizer.from_str(json.dumps(state["bpe"]))
            made = cls(bpe, **{name: state[name] for name in ("scale", "lowest", "highest", "first_symbol")})
            sound = (
                np.isfinite(made.scale) and made.scale > 0 and -(2**31) < made.lowest <= made.highest < 2**31
            )
            sound = sound and 0 <= made.first_symbol < 0x110000
        except Exception as error:  # the Rust library raises plain Exception
            raise UserError(
                f"the FAST tokenizer is damaged ({' '.join(str(error).split())[:120]}); fit it again"
            ) from None
        if not sound:
            raise UserError("the FAST tokenizer is damaged: its scale or its range cannot be; fit it again")
        return made

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as one JSON file."""
        Path(path).write_text(json.dumps(self.to_json(), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> FastTokenizer:
        """Read a file that `save` wrote."""
        return cls.from_json(_read_json(Path(path)))

    @classmethod
    def from_published(cls, folder: str | Path) -> FastTokenizer:
        """The published processor: a folder with `tokenizer.json` and `processor_config.json` on disk."""
        folder = Path(folder)
        settings = _read_json(folder / "processor_config.json")
        missing = [key for key in ("scale", "min_token") if key not in settings]
        if missing or not (folder / "tokenizer.json").is_file():
            raise UserError(
                f"{folder} is no published FAST processor: missing {', '.join(missing) or 'tokenizer.json'}"
            )
        bpe = require("tokenizers", "FAST tokens").Tokenizer.from_file(str(folder / "tokenizer.json"))
        lowest = int(settings["min_token"])
        return cls(bpe, scale=settings["scale"], lowest=lowest, highest=lowest + LAST_SYMBOL, first_symbol=0)


def to_llm_ids(ids: Sequence[int] | np.ndarray, *, vocab_size: int, skip: int) -> np.ndarray:
    """FAST ids at the top end of a language model's vocabulary: `vocab_size - 1 - skip - id`."""
    ids = np.asarray(ids, dtype=np.int64)
    llm = vocab_size - 1 - skip - ids
    if llm.size and (ids.min() < 0 or llm.min() < 0):
        raise UserError(f"FAST ids {ids.min()}..{ids.max()} do not fit below id {vocab_size - 1 - skip}")
    return llm


def from_llm_ids(llm_ids: Sequence[int] | np.ndarray, *, vocab_size: int, skip: int) -> np.ndarray:
    """The inverse of `to_llm_ids`; text tokens become ids that `decode` reports as unknown."""
    return vocab_size - 1 - skip - np.asarray(llm_ids, dtype=np.int64)


def _quantise(chunks: np.ndarray, scale: float) -> np.ndarray:
    from scipy.fft import dct

    return np.rint(dct(chunks, axis=1, norm="ortho") * scale).astype(np.int64)  # [N,T,D], frequency first


def _inverse(coefficients: np.ndarray) -> np.ndarray:
    from scipy.fft import idct

    return idct(coefficients, axis=1, norm="ortho").astype(np.float32)


def _strings(symbols: np.ndarray, first_symbol: int) -> list[str]:
    """One string a chunk; row-major order of [T,D] puts all dimensions of frequency 0 first."""
    codes = (symbols + first_symbol).astype("<u4").reshape(len(symbols), -1)
    return [row.tobytes().decode("utf-32-le") for row in codes]


def _train_bpe(texts: list[str], symbols: int, vocab_size: int):
    tokenizers = require("tokenizers", "FAST tokens")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.decoder = tokenizers.decoders.Fuse()  # without one, decoding would put spaces between tokens
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=[chr(FIRST_SYMBOL + i) for i in range(symbols)],
        limit_alphabet=symbols,
        special_tokens=[],
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def _checked(chunks: np.ndarray) -> np.ndarray:
    chunks = np.asarray(chunks, dtype=np.float64)
    if chunks.ndim != 3 or 0 in chunks.shape[1:]:
        raise UserError(f"action chunks must have the shape [N,T,D], got {list(chunks.shape)}")
    if not np.isfinite(chunks).all():
        raise UserError(f"action chunks hold {int((~np.isfinite(chunks)).sum())} values that are not finite")
    return chunks


def _refuse_degenerate(chunks: np.ndarray) -> None:
    if not len(chunks):
        raise UserError("no action chunks to fit a FAST tokenizer on")
    span = np.ptp(chunks.reshape(-1, chunks.shape[-1]), axis=0)
    still = np.flatnonzero(span < 1e-6).tolist()
    if still:
        raise UserError(
            f"action dimensions {still} never change in the training split; leave them out to fit FAST"
        )


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None

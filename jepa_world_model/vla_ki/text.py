"""Text tokenizers: the user's SentencePiece file, or a small BPE trained on the data set's prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.extras import require

PAD, EOS, BOS, UNK = 0, 1, 2, 3  # the same ids as Gemma's
FORMAT = "jepa-wm-text-1"


class TextTokenizer(Protocol):
    """Text to ids and back; no special tokens are added."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without begin and end marks."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; marks and unknown ids are left out."""
        ...

    def to_json(self) -> dict:
        """All that `load_text_tokenizer` needs."""
        ...


class PromptBpe:
    """A byte-level BPE trained on the prompts of one data set: small, no unknown characters, no download."""

    def __init__(self, bpe) -> None:
        self._bpe = bpe

    @classmethod
    def fit(cls, texts: Iterable[str], *, vocab_size: int = 512, whole: Sequence[str] = ()) -> PromptBpe:
        """A tokenizer for texts like these, in which each of the words `whole` is one token.

        Errors: UserError for a vocabulary without room for 4 marks, every byte and the whole words.
        """
        least = 260 + len(whole)
        if vocab_size < least:
            raise UserError(f"a byte-level text vocabulary needs at least {least} ids here, got {vocab_size}")
        tokenizers = require("tokenizers", "prompts")
        pre_tokenizers, decoders = tokenizers.pre_tokenizers, tokenizers.decoders
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        bpe.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size - len(whole),
            min_frequency=2,
            special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"],
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer)
        bpe.add_tokens([tokenizers.AddedToken(word, normalized=False) for word in whole])
        return cls(bpe)

    @property
    def vocab_size(self) -> int:
        """Number of ids; can be less than asked for when the texts are few."""
        return self._bpe.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without begin and end marks."""
        return self._bpe.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; marks and unknown ids are left out."""
        return self._bpe.decode([int(i) for i in ids if 0 <= i < self.vocab_size], skip_special_tokens=True)

    def to_json(self) -> dict:
        """The whole tokenizer as plain values."""
        return {"format": FORMAT, "kind": "bpe", "bpe": json.loads(self._bpe.to_str())}


class SentencePieceText:
    """A SentencePiece model file on disk, for instance PaliGemma's."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(
                f"the SentencePiece file {self.path} does not exist; give the path of a `.model` file"
            )
        sentencepiece = require("sentencepiece", "`.model` files")
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(self.path))
        except (RuntimeError, OSError) as error:
            raise UserError(f"{self.path} is no SentencePiece model: {error}") from None

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._model.vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without begin and end marks."""
        return self._model.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; marks and unknown ids are left out."""
        known = (int(i) for i in ids)
        return self._model.decode([i for i in known if UNK < i < self.vocab_size])

    def to_json(self) -> dict:
        """The path; the file itself stays where it is."""
        return {"format": FORMAT, "kind": "sentencepiece", "path": str(self.path.resolve())}


def load_text_tokenizer(state: dict) -> TextTokenizer:
    """The tokenizer that `to_json` described. Errors: another format, or a file that has gone."""
    if state.get("format") != FORMAT:
        raise UserError(f"not a text tokenizer of format {FORMAT}: format is {state.get('format')!r}")
    if state["kind"] == "sentencepiece":
        return SentencePieceText(state["path"])
    tokenizers = require("tokenizers", "prompts")
    return PromptBpe(tokenizers.Tokenizer.from_str(json.dumps(state["bpe"])))

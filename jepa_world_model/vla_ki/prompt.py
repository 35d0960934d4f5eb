"""The one prompt builder, for training and inference alike: what is read, causal, supervised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.fast import FastTokenizer, to_llm_ids
from jepa_world_model.vla_ki.text import BOS, EOS, PAD, TextTokenizer

STATE_BINS = 256


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """How many tokens a row may take, and where FAST ids live in the vocabulary."""

    prompt_length: int = 64  # tokens of instruction and state; visible to the action expert
    # FAST tokens or a text answer, with closing marks; never visible to the action expert
    answer_length: int = 64
    vocab_size: int = 2048  # of the language model; FAST ids count down from its end
    # ids at the end of the vocabulary that FAST leaves alone; PaliGemma: 1152 (128 as openpi has it)
    fast_skip: int = 0

    def __post_init__(self) -> None:
        for name in ("prompt_length", "answer_length", "vocab_size"):
            if getattr(self, name) < 1:
                raise UserError(f"prompt.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.fast_skip < self.vocab_size:
            raise UserError(f"prompt.fast_skip must lie in [0, {self.vocab_size}), got {self.fast_skip}")


@dataclass(frozen=True)
class Tokens:
    """Rows of tokens. The first `prompt_length` columns are the visible text, right-aligned; then the answer.

    All [B,L], L = prompt_length + answer_length: ids int64; token_mask valid; ar_mask 1 where a token starts
    a causal
    block; loss_mask where a token is a target of the next-token loss.
    """

    ids: np.ndarray
    token_mask: np.ndarray
    ar_mask: np.ndarray
    loss_mask: np.ndarray


@dataclass
class PromptBuilder:
    """Builds token rows and counts what had to be cut; without `fast` it cannot tokenise actions."""

    text: TextTokenizer
    config: PromptConfig
    fast: FastTokenizer | None = None
    rows: int = field(default=0, init=False)
    cut_prompts: int = field(default=0, init=False)
    cut_answers: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.fast is None:
            return
        size, skip = self.config.vocab_size, self.config.fast_skip
        # A text vocabulary that fills the model's (PaliGemma's) gives its rarest ids up to FAST on purpose.
        if self.text.vocab_size < size < self.text.vocab_size + self.fast.vocab_size + skip:
            raise UserError(
                f"{self.text.vocab_size} text ids and {self.fast.vocab_size} FAST ids do not fit into a "
                f"vocabulary of {size} with fast_skip {skip}; raise vocab_size"
            )

    def instruction(self, text: str, state: np.ndarray) -> list[int]:
        """Ids of the visible prompt of a robot row."""
        return [BOS, *self.text.encode(task_text(text, state))]

    def robot_rows(
        self, texts: Sequence[str], states: np.ndarray, chunks: np.ndarray | None = None
    ) -> Tokens:
        """Rows for a robot; in training with normalised chunks [B,T,D], whose FAST tokens are the answers."""
        prompts = [self.instruction(text, state) for text, state in zip(texts, states, strict=True)]
        if chunks is None:
            return self._rows(prompts, [[] for _ in prompts])
        return self._rows(prompts, self.fast_answers(chunks))

    def fast_answers(self, chunks: np.ndarray) -> list[list[int]]:
        """What the language model should say to these actions: FAST ids, the closing `|`, the end mark."""
        if self.fast is None:
            raise UserError("action chunks need a FAST tokenizer; fit or load one first")
        size, skip = self.config.vocab_size, self.config.fast_skip
        closing = [*self.text.encode("|"), EOS]
        encoded = self.fast.encode(chunks)
        return [[*to_llm_ids(ids, vocab_size=size, skip=skip).tolist(), *closing] for ids in encoded]

    def question_rows(self, questions: Sequence[str], answers: Sequence[str] | None = None) -> Tokens:
        """Rows for questions about an image; with answers for training."""
        prompts = [[BOS, *self.text.encode(question_text(q))] for q in questions]
        if answers is None:
            return self._rows(prompts, [[] for _ in prompts])
        return self._rows(prompts, [[*self.text.encode(clean(a)), EOS] for a in answers])

    def _rows(self, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> Tokens:
        width, cut = self.config.prompt_length, self.config.answer_length
        shape = (len(prompts), width + cut)
        tokens = Tokens(np.full(shape, PAD, np.int64), *(np.zeros(shape, bool) for _ in range(3)))
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            self.cut_prompts += len(prompt) > width
            self.cut_answers += len(answer) > cut
            # A long instruction loses its middle: the state and `Action: ` at its end stay, as at inference.
            prompt = (
                prompt if len(prompt) <= width else [*prompt[: width // 2], *prompt[-(width - width // 2) :]]
            )
            end = width + min(len(answer), cut)
            tokens.ids[row, width - len(prompt) : width] = prompt
            tokens.ids[row, width:end] = answer[:cut]
            tokens.token_mask[row, width - len(prompt) : end] = True
            tokens.ar_mask[row, width:end] = True
            tokens.loss_mask[row, width:end] = True
        self.rows += len(prompts)
        return tokens


def task_text(text: str, state: np.ndarray) -> str:
    """The prompt of a robot row, byte for byte the same in training and inference."""
    return f"Task: {clean(text)}, State: {' '.join(map(str, state_bins(state)))};\nAction: "


def question_text(question: str) -> str:
    """The prompt of a question about the image."""
    return f"Question: {clean(question)}\nAnswer: "


def clean(text: str) -> str:
    """One line without underscores or surrounding space."""
    return text.strip().replace("_", " ").replace("\n", " ")


def state_bins(state: np.ndarray) -> np.ndarray:
    """Normalised state values as bins 0..255 over [-1, 1]; values outside go to the outer bins."""
    bins = np.floor((np.asarray(state, dtype=np.float64) + 1) * (STATE_BINS / 2))
    return np.clip(bins, 0, STATE_BINS - 1).astype(np.int64)

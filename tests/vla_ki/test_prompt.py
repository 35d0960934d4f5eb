"""The prompt: bytes, masks, what is supervised, what happens to rows that are too long."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError

pytest.importorskip("tokenizers")

from jepa_world_model.vla_ki.fast import FastTokenizer, from_llm_ids
from jepa_world_model.vla_ki.prompt import PromptBuilder, PromptConfig, question_text, state_bins, task_text
from jepa_world_model.vla_ki.text import BOS, EOS, PromptBpe
from tests.vla_ki.test_fast import smooth_chunks

pytestmark = pytest.mark.extra
STATE = np.array([-1.0, 0.0, 0.999])
TEXT = "reach the red target"


@pytest.fixture(scope="module")
def builder() -> PromptBuilder:
    text = PromptBpe.fit(
        [task_text(TEXT, STATE), question_text("what colour is leftmost?")] * 3, vocab_size=300
    )
    fast = FastTokenizer.fit(smooth_chunks(200, 8, 2, seed=0), vocab_size=128)
    return PromptBuilder(text, PromptConfig(prompt_length=48, answer_length=24, vocab_size=512), fast)


def test_prompt_bytes_are_fixed():
    assert (
        task_text(" reach_the\nred target ", STATE)
        == "Task: reach the red target, State: 0 128 255;\nAction: "
    )


def test_state_bins_cover_the_range_and_clip_outside():
    assert state_bins([-5, -1, -1 + 1 / 128, 0, 1, 7]).tolist() == [0, 0, 1, 128, 255, 255]


def test_training_and_inference_show_the_expert_the_same_tokens(builder):
    chunks = smooth_chunks(1, 8, 2, seed=1)
    train, infer = builder.robot_rows([TEXT], STATE[None], chunks), builder.robot_rows([TEXT], STATE[None])
    width = builder.config.prompt_length
    for name in ("ids", "token_mask", "ar_mask"):
        np.testing.assert_array_equal(getattr(train, name)[:, :width], getattr(infer, name)[:, :width])
    assert not infer.token_mask[:, width:].any()
    prompt = train.ids[0, :width][train.token_mask[0, :width]]
    assert prompt[0] == BOS
    assert builder.text.decode(prompt) == task_text(TEXT, STATE)


def test_supervised_are_the_fast_ids_the_bar_and_the_end_mark_and_nothing_else(builder):
    chunks = smooth_chunks(3, 8, 2, seed=2)
    tokens = builder.robot_rows([TEXT] * 3, np.tile(STATE, (3, 1)), chunks)
    for row in range(3):
        targets = tokens.ids[row][tokens.loss_mask[row]]
        assert targets[-1] == EOS
        bar = builder.text.encode("|")
        assert targets[-1 - len(bar) : -1].tolist() == bar
        ids = from_llm_ids(targets[: -1 - len(bar)], vocab_size=512, skip=0)
        np.testing.assert_allclose(builder.fast.decode([ids], 8, 2)[0][0], chunks[row], atol=0.1)
    assert (tokens.loss_mask == tokens.ar_mask).all()  # the causal span is the supervised span
    assert not tokens.loss_mask[:, : builder.config.prompt_length].any()


def test_questions_are_answered_in_text(builder):
    tokens = builder.question_rows(["what colour is leftmost?"], ["red"])
    targets = tokens.ids[0][tokens.loss_mask[0]]
    assert builder.text.decode(targets) == "red"
    assert targets[-1] == EOS


def test_cut_rows_are_counted_and_keep_state_and_action_marks(builder):
    before = builder.cut_prompts
    tokens = builder.robot_rows(["very " * 60], STATE[None], smooth_chunks(1, 8, 2, seed=3))
    assert builder.cut_prompts == before + 1
    width = builder.config.prompt_length
    assert builder.text.decode(tokens.ids[0, :width]).endswith("State: 0 128 255;\nAction: ")
    rough = np.random.default_rng(0).uniform(-1, 1, (1, 8, 2))
    short = PromptBuilder(
        builder.text, PromptConfig(prompt_length=48, answer_length=4, vocab_size=512), builder.fast
    )
    assert short.robot_rows([TEXT], STATE[None], rough).loss_mask.sum() == 4
    assert short.cut_answers == 1


def test_a_vocabulary_too_small_for_text_and_actions_is_refused(builder):
    with pytest.raises(UserError, match="do not fit into a vocabulary"):
        PromptBuilder(builder.text, PromptConfig(vocab_size=320), builder.fast)

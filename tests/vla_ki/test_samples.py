"""Quantiles, chunks, mixing: closed forms, and batches that depend on the step alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from jepa_world_model.core.errors import UserError

pytest.importorskip("tokenizers")

from jepa_world_model.core.rng import Streams
from jepa_world_model.vla_ki import arm
from jepa_world_model.vla_ki.batch import check_batch
from jepa_world_model.vla_ki.fast import FastTokenizer
from jepa_world_model.vla_ki.images import AugmentConfig, augment, resize_with_pad
from jepa_world_model.vla_ki.lerobot import RobotData
from jepa_world_model.vla_ki.model import KIConfig
from jepa_world_model.vla_ki.prompt import PromptBuilder, PromptConfig, question_text, task_text
from jepa_world_model.vla_ki.samples import (
    Mixer,
    Normalisers,
    Quantiles,
    Questions,
    action_chunks,
    frames_of,
    split_episodes,
)
from jepa_world_model.vla_ki.text import PromptBpe

pytestmark = pytest.mark.extra
CFG = KIConfig(horizon=8, vocab_size=600, cameras=2, prompt_length=48, answer_length=48)


@pytest.fixture(scope="module")
def mixer() -> Mixer:
    rng = np.random.default_rng(0)
    scenes = arm.sample_scenes(rng, 6)
    states, actions, _ = arm.demonstrate(scenes)
    still = np.full((6, arm.EPISODE_STEPS, 1), 0.7, np.float32)  # an action dimension that never moves
    frames = arm.render(scenes).repeat(arm.EPISODE_STEPS, 0)
    steps = arm.EPISODE_STEPS
    data = RobotData(
        name="toy",
        fps=10,
        tasks=tuple(dict.fromkeys(scenes.instructions)),
        bounds=np.stack([np.arange(6) * steps, np.full(6, steps)], 1),
        states=states.reshape(-1, 2),
        actions=np.concatenate([actions, still], -1).reshape(-1, 3),
        task=np.array(
            [list(dict.fromkeys(scenes.instructions)).index(i) for i in scenes.instructions]
        ).repeat(steps),
        cameras={"a": frames, "b": 255 - frames},
    )
    norm = Normalisers.fit(data, np.arange(6 * steps))
    questions, answers, kinds = arm.ask(rng, scenes)
    chunks = norm.action.normalise(action_chunks(data, np.arange(6 * steps), 8)[0])[..., :2]
    fast = FastTokenizer.fit(chunks, vocab_size=128)
    text = PromptBpe.fit(
        [task_text("reach the red target", np.zeros(2)), *map(question_text, questions)], vocab_size=300
    )
    return Mixer(
        cfg=CFG,
        builder=PromptBuilder(text, PromptConfig(prompt_length=48, answer_length=48, vocab_size=600), fast),
        data=data,
        frames=np.arange(6 * steps),
        norm=norm,
        streams=Streams(0),
        name="train",
        batch_size=8,
        questions=Questions(arm.render(scenes), questions, answers, kinds),
        vqa_share=0.25,
    )


def test_quantiles_map_to_the_unit_range_and_back():
    values = np.random.default_rng(0).normal(3, 2, (1000, 2))
    q = Quantiles.fit(values)
    unit = q.normalise(values)
    np.testing.assert_allclose(np.quantile(unit, [0.01, 0.99], axis=0), [[-1, -1], [1, 1]], atol=1e-5)
    np.testing.assert_allclose(q.restore(unit), values, atol=1e-5)
    again = Quantiles.from_json(q.to_json())
    np.testing.assert_array_equal(again.low, q.low)


def test_dimensions_that_never_move_are_zero_and_come_back():
    values = np.stack([np.linspace(0, 1, 50), np.full(50, 0.7)], 1)
    q = Quantiles.fit(values)
    assert q.moving.tolist() == [True, False]
    assert (q.normalise(values)[:, 1] == 0).all()
    np.testing.assert_allclose(q.restore(np.ones((3, 2)))[:, 1], 0.7)
    with pytest.raises(UserError, match=r"\[0\] of states or actions hold values that are not finite"):
        Quantiles.fit(np.array([[np.nan, 1.0]]))


def test_chunks_stop_at_the_end_of_their_episode(mixer):
    steps = arm.EPISODE_STEPS
    chunk, inside = action_chunks(mixer.data, np.array([0, steps - 3, steps - 1, steps]), 8)
    assert inside.sum(1).tolist() == [8, 3, 1, 8]
    np.testing.assert_array_equal(chunk[1, :3], mixer.data.actions[steps - 3 : steps])
    np.testing.assert_array_equal(chunk[1, 3:], mixer.data.actions[[steps - 1] * 5])
    np.testing.assert_array_equal(chunk[3, 0], mixer.data.actions[steps])


def test_splits_are_whole_episodes_without_overlap(mixer):
    train, val = split_episodes(mixer.data, 0.3, np.random.default_rng(0))
    assert (len(train), len(val)) == (4, 2)
    assert not np.intersect1d(frames_of(mixer.data, train), frames_of(mixer.data, val)).size
    one = dataclasses.replace(mixer.data, bounds=np.array([[0, 6 * arm.EPISODE_STEPS]]))
    with pytest.raises(UserError, match="at least 2"):
        split_episodes(one, 0.1, np.random.default_rng(0))


def test_a_batch_depends_on_its_step_alone(mixer):
    first, again, other = mixer.batch(5), mixer.batch(5), mixer.batch(6)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.ids, again.ids)
    assert not torch.equal(first.ids, other.ids)


def test_a_batch_mixes_robot_rows_and_questions_with_their_masks(mixer):
    batch = mixer.batch(0)
    check_batch(CFG, batch)
    assert batch.robot.tolist() == [True] * 6 + [False] * 2
    assert batch.image_mask.tolist() == [[True, True]] * 6 + [[True, False]] * 2
    assert not batch.images[6:, 1].any()
    assert not batch.action_mask[6:].any()
    assert batch.action_mask[0, 0].tolist() == [True, True, True, False]  # the model has room for four
    rows = set((batch.supervised // batch.ids.shape[1]).tolist())
    assert rows == set(range(8))


def test_robot_rows_alone_and_shares_without_questions(mixer):
    assert dataclasses.replace(mixer, vqa_share=0.0, questions=None).batch(0).robot.all()
    assert not dataclasses.replace(mixer, vqa_share=1.0).batch(0).robot.any()
    with pytest.raises(UserError, match="there are no questions"):
        dataclasses.replace(mixer, questions=None)


def test_every_image_of_a_batch_has_its_own_augmentation():
    images = np.full((4, 2, 3, 8, 8), 100, np.uint8)
    out = augment(images, AugmentConfig(brightness=0.15, contrast=0.15), np.random.default_rng(0))
    assert len({int(o[0, 0, 0, 0]) for o in out}) == 4
    assert (out[:, 0] == out[:, 1]).all()  # the cameras of a row share theirs
    none = AugmentConfig()
    np.testing.assert_array_equal(augment(images, none, np.random.default_rng(0)), images)
    dot = np.zeros((1, 1, 3, 9, 9), np.uint8)
    dot[..., 4, 4] = 255
    moved = augment(dot, AugmentConfig(brightness=0, contrast=0, shift=3), np.random.default_rng(1))
    assert moved.sum() == dot.sum()
    assert not np.array_equal(moved, dot)


def test_resizing_keeps_the_aspect_and_adds_bars():
    wide = np.full((2, 3, 20, 40), 200, np.uint8)
    out = resize_with_pad(wide, 20)
    assert out.shape == (2, 3, 20, 20)
    assert (out[:, :, 5:15] == 200).all()
    assert not out[:, :, :5].any()
    assert not out[:, :, 15:].any()
    assert resize_with_pad(out, 20) is out


def test_questions_come_first_and_alone(mixer):
    late = dataclasses.replace(mixer, questions_first=3)
    assert [late.batch(step).robots for step in range(5)] == [0, 0, 0, *[mixer.batch(3).robots] * 2]
    assert mixer.batch_size == late.batch(2).B
    without = dataclasses.replace(mixer, questions_first=3, vqa_share=0.0)
    assert without.num_robots(0) == mixer.batch_size

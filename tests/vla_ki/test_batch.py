"""Batches: padding of actions, masks, and batches that would train the wrong thing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.batch import check_batch, collate
from jepa_world_model.vla_ki.prompt import Tokens
from tests.vla_ki.tiny import CFG, tiny_batch


def test_actions_are_padded_and_masked():
    batch = tiny_batch()
    assert batch.actions.shape == (3, CFG.horizon, CFG.action_dim)
    assert not batch.action_mask[..., 3].any()  # a padded dimension
    assert not batch.action_mask[0, -2:].any()  # past the end of the episode
    assert not batch.action_mask[2].any()  # a row without actions
    assert int(batch.action_mask.sum()) == (4 + 6) * 3
    assert not batch.actions[2].any()


def test_first_rows_keep_their_targets():
    batch = tiny_batch()
    first = batch.rows(1)
    assert first.B == 1
    length = batch.ids.shape[1]
    assert first.supervised.tolist() == [p for p in batch.supervised.tolist() if p < length]


def test_chosen_rows_keep_their_targets():
    batch, length = tiny_batch(), tiny_batch().ids.shape[1]
    chosen = batch.rows([1, 2])
    assert (chosen.B, chosen.robots) == (2, 1)
    assert torch.equal(chosen.ids, batch.ids[1:])
    assert chosen.supervised.tolist() == [p - length for p in batch.supervised.tolist() if p >= length]


def test_places_for_no_target_belong_to_no_row():
    batch = tiny_batch()
    padded = batch.padded(batch.ids.numel())
    for row in range(batch.B):
        assert torch.equal(padded.rows([row]).supervised, batch.rows([row]).supervised)


def test_no_target_is_cut_off():
    batch = tiny_batch()
    assert torch.equal(batch.padded(len(batch.supervised)).supervised, batch.supervised)
    with pytest.raises(ValueError, match="was to be the most"):
        batch.padded(len(batch.supervised) - 1)


def test_moving_a_batch_keeps_it_equal():
    batch = tiny_batch()
    moved = batch.to("cpu")
    assert moved.robots == batch.robots == 2
    for name, value in vars(batch).items():
        assert name == "robots" or torch.equal(value, getattr(moved, name))


def test_a_robot_batch_with_an_empty_loss_mask_is_refused():
    batch = tiny_batch()
    check_batch(CFG, batch)
    with pytest.raises(UserError, match="2 robot rows have no supervised token"):
        check_batch(CFG, dataclasses.replace(batch, supervised=batch.supervised[:0]))


def test_answers_among_the_visible_columns_are_refused():
    batch = tiny_batch()
    shifted = torch.cat([batch.supervised, torch.tensor([CFG.prompt_length - 1])])
    with pytest.raises(UserError, match="see its own answer"):
        check_batch(CFG, dataclasses.replace(batch, supervised=shifted))


def test_sizes_that_do_not_fit_the_model_are_refused():
    shape = (1, CFG.prompt_length + CFG.answer_length)
    tokens = Tokens(np.zeros(shape, np.int64), *(np.zeros(shape, bool) for _ in range(3)))
    images, ones = np.zeros((1, 1, 3, 64, 64), np.uint8), np.ones((1, 1), bool)
    robot = np.array([True])
    with pytest.raises(UserError, match=r"6 steps with 9 dimensions do not fit .* raise --model.action-dim"):
        collate(CFG, tokens, images, ones, np.zeros((1, 6, 9)), np.ones((1, 6), bool), robot)
    with pytest.raises(UserError, match="and 1 cameras"):
        collate(CFG, tokens, np.repeat(images, 2, 1), ones, np.zeros((1, 6, 3)), np.ones((1, 6), bool), robot)


def test_robot_rows_come_first():
    with pytest.raises(UserError, match="before all others"):
        tiny_batch(robot=(False, True))

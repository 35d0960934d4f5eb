"""Attention masks and positions: closed forms on short rows."""

from __future__ import annotations

import torch

from jepa_world_model.vla_ki.masks import attention_mask, positions, suffix_mask, suffix_positions


def test_prefix_is_bidirectional_and_answer_is_causal():
    ar = torch.tensor([[0, 0, 1, 1]])
    allowed = attention_mask(torch.ones(1, 4, dtype=torch.bool), ar)[0].int().tolist()
    assert allowed == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_padding_neither_reads_nor_is_read():
    valid = torch.tensor([[True, False, True]])
    allowed = attention_mask(valid, torch.tensor([[0, 0, 1]]))[0].int().tolist()
    assert allowed == [[1, 0, 0], [0, 0, 0], [1, 0, 1]]


def test_positions_skip_padding():
    valid = torch.tensor([[True, False, True, True], [False, True, True, False]])
    assert positions(valid).tolist() == [[0, 0, 1, 2], [0, 0, 1, 1]]


def test_flow_samples_see_the_prefix_and_themselves_alone():
    visible = torch.tensor([[True, False]])
    allowed = suffix_mask(visible, samples=2, horizon=2)[0].int().tolist()
    assert allowed == [[1, 0, 1, 1, 0, 0], [1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 1, 1], [1, 0, 0, 0, 1, 1]]


def test_suffix_positions_start_at_the_count_of_visible_tokens():
    visible = torch.tensor([[True, False, True], [True, True, True]])
    assert suffix_positions(visible, samples=2, horizon=2).tolist() == [[2, 3, 2, 3], [3, 4, 3, 4]]

"""Flow matching: the distribution of times, the two ends of a path, the sampler on velocities that are
known.
"""

from __future__ import annotations

import math

import pytest
import torch

from jepa_world_model.vla_ki.flow import flow_targets, integrate, masked_mse, sample_time, time_embedding


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_times_follow_the_beta_distribution():
    t = (sample_time((200_000,), generator()) - 0.001) / 0.999
    assert t.min() >= 0
    assert t.max() <= 1
    assert t.mean() == pytest.approx(0.6, abs=0.003)  # a / (a + b) of Beta(1.5, 1)
    for q in (0.1, 0.5, 0.9):
        assert (t < q).float().mean() == pytest.approx(q**1.5, abs=0.005)


def test_a_path_starts_at_the_actions_and_ends_at_noise():
    actions = torch.randn(3, 5, 2, generator=generator())
    path = flow_targets(actions, 4, generator(1))
    assert path.x_t.shape == path.u.shape == (3, 4, 5, 2)
    t = path.t[..., None, None]
    torch.testing.assert_close(path.x_t - t * path.u, actions[:, None].expand(-1, 4, -1, -1))
    noise = path.x_t + (1 - t) * path.u
    assert noise.std() == pytest.approx(1, abs=0.2)
    assert not torch.equal(noise[:, 0], noise[:, 1])  # each sample has its own noise


def test_the_sampler_is_exact_for_straight_paths():
    noise, goal = torch.randn(2, 1, 4, 3, generator=generator()), torch.ones(2, 1, 4, 3)
    torch.testing.assert_close(integrate(lambda x, t: noise - goal, noise, 10), goal)
    times = []
    integrate(lambda x, t: times.append(float(t[0, 0])) or x * 0, noise, 4)
    assert times == [1.0, 0.75, 0.5, 0.25]


def test_time_embedding_has_the_stated_periods():
    t = torch.tensor([0.0, 4e-3, 1.0])
    emb = time_embedding(t, 64)
    assert emb.shape == (3, 64)
    assert emb[0].tolist() == [0.0] * 32 + [1.0] * 32
    assert float(emb[1, 0]) == pytest.approx(0, abs=1e-6)  # one full turn of the shortest period
    assert float(emb[2, 31]) == pytest.approx(math.sin(2 * math.pi / 4), abs=1e-6)  # the longest


def test_masked_values_do_not_count_and_no_value_is_exactly_zero():
    u, velocity = torch.zeros(2, 3, 4, 2), torch.ones(2, 3, 4, 2)
    mask = torch.zeros(2, 4, 2, dtype=torch.bool)
    velocity[0, :, 0, 0] = 3.0
    velocity[1] = float("nan")  # what a masked row holds must not matter
    assert float(masked_mse(velocity, u, mask)) == 0.0
    mask[0, :2, 0] = True
    assert float(masked_mse(velocity, u, mask)) == pytest.approx((9 + 1) / 2)


def test_masked_nan_leaves_gradients_finite():
    velocity = torch.tensor([[[[1.0, float("nan")]]]], requires_grad=True)
    masked_mse(velocity, torch.zeros(1, 1, 1, 2), torch.tensor([[[True, False]]])).backward()
    assert velocity.grad.tolist() == [[[[2.0, 0.0]]]]

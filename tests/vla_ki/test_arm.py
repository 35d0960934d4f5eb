"""The arm: kinematics, the expert, pictures, and answers that can be checked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki import arm


@pytest.fixture(scope="module")
def scenes() -> arm.Scenes:
    return arm.sample_scenes(np.random.default_rng(0), 300)


def test_inverse_kinematics_inverts_forward_kinematics(scenes):
    for place in (scenes.goal_position, scenes.tip):
        _, tip = arm.forward_kinematics(arm.inverse_kinematics(place))
        np.testing.assert_allclose(tip, place, atol=1e-9)


def test_the_expert_reaches_the_named_target_from_rest_to_rest(scenes):
    states, actions, lengths = arm.demonstrate(scenes)
    assert states.shape == actions.shape == (300, arm.EPISODE_STEPS, 2)
    sim = arm.ArmSim(scenes)
    assert not sim.success().any()
    for t in range(arm.EPISODE_STEPS):
        np.testing.assert_allclose(sim.scenes.tip, states[:, t], atol=1e-5)
        sim.step(actions[:, t])
    assert sim.success().all()
    for row, length in enumerate(lengths):
        assert arm.HOLD_STEPS < length <= arm.EPISODE_STEPS
        assert (
            np.ptp(actions[row, length - arm.HOLD_STEPS - 1 :], axis=0).max() < 1e-6
        )  # it has arrived, and stays
    assert all(x.all() for x in sim.followed())
    way = scenes.goal_position - scenes.tip
    s = np.minimum(np.arange(arm.EPISODE_STEPS + 1) / (lengths - arm.HOLD_STEPS)[:, None], 1)[..., None]
    quintic = scenes.tip[:, None] + way[:, None] * (10 * s**3 - 15 * s**4 + 6 * s**5)  # no velocity, no
    np.testing.assert_allclose(states, quintic[:, :-1], atol=1e-6)  # acceleration at either end
    np.testing.assert_allclose(actions, quintic[:, 1:], atol=1e-6)
    assert np.linalg.norm(actions - states, axis=-1).max() < arm.MAX_STEP


def test_scenes_have_distinct_colours_and_room_between(scenes):
    for colours, goal in zip(scenes.colours, scenes.goal, strict=True):
        present = colours[colours >= 0]
        assert arm.MIN_TARGETS <= len(present) <= arm.MAX_TARGETS
        assert len(set(present)) == len(present)
        assert colours[goal] >= 0
    assert len(set(scenes.goal.tolist())) == arm.MAX_TARGETS  # the place in the list tells nothing


def test_held_out_colours_stay_out():
    seen = [c for c in arm.NAMES if c not in arm.HELD_OUT]
    scenes = arm.sample_scenes(np.random.default_rng(1), 200, goals=seen)
    held = [arm.NAMES.index(c) for c in arm.HELD_OUT]
    assert not np.isin(scenes.colours, held).any()
    only = arm.sample_scenes(np.random.default_rng(1), 50, goals=arm.HELD_OUT, others=arm.NAMES)
    assert all(any(c in text for c in arm.HELD_OUT) for text in only.instructions)
    with pytest.raises(UserError, match="no colour 'mauve'"):
        arm.sample_scenes(np.random.default_rng(0), 1, goals=["mauve"])


def test_pictures_show_targets_and_tip_where_they_are(scenes):
    pictures = arm.render(scenes)
    assert pictures.shape == (300, 3, arm.SIZE, arm.SIZE)
    assert pictures.dtype == np.uint8
    half = arm.SIZE / 2
    pixel = lambda p: (int((1 - p[1]) * half), int((p[0] + 1) * half))
    tips = scenes.tip
    for row in range(50):
        for place, colour in zip(scenes.targets[row], scenes.colours[row], strict=True):
            if colour >= 0 and np.linalg.norm(place - tips[row]) > 0.25:
                y, x = pixel(place)
                np.testing.assert_array_equal(pictures[row, :, y, x], arm.COLOURS[arm.NAMES[colour]])
        y, x = pixel(tips[row])
        assert pictures[row, :, y, x].max() < 120


def test_a_batch_of_pictures_equals_single_pictures(scenes):
    some = arm.Scenes(*(a[:5] for a in vars(scenes).values()))
    np.testing.assert_array_equal(arm.render(some, chunk=2), arm.render(scenes)[:5])


def test_questions_have_the_right_answers(scenes):
    questions, answers, kinds = arm.ask(np.random.default_rng(2), scenes)
    assert set(kinds) == set(arm.QUESTION_KINDS)
    assert all(a in arm.CLOSED_SETS[k] for a, k in zip(answers, kinds, strict=True) if k != "point")
    for row, (question, answer, kind) in enumerate(zip(questions, answers, kinds, strict=True)):
        present = scenes.colours[row] >= 0
        names = [arm.NAMES[c] for c in scenes.colours[row][present]]
        if kind == "presence":
            assert (question.split()[3] in names) == (answer == "yes")
        if kind == "count":
            assert answer == arm.NUMBERS[len(names)]
        if kind == "leftmost":
            places = scenes.targets[row][present]
            left = places[places[:, 0] == places[:, 0].min()]
            place = left[left[:, 1].argmax()]  # of two in a column the upper one
            assert answer == names[np.flatnonzero((places == place).all(1))[0]]
        if kind == "where":
            about = question.split()[3].strip("?")
            x, y = scenes.tip[row] if about == "tip" else scenes.targets[row][present][names.index(about)]
            assert answer.split()[0] == ("top" if y > 0.42 else "middle" if y > 0.03 else "bottom") or (
                min(abs(y - 0.4167), abs(y - 0.0333)) < 0.02
            )
            assert ("left" in answer) == (x < -0.16)
            assert ("far" in answer) == (abs(x) > 0.48)


def test_pointing_names_places_that_are_where_they_are(scenes):
    questions, answers, kinds = arm.ask(np.random.default_rng(2), scenes)
    seen = 0
    for row, (question, answer, kind) in enumerate(zip(questions, answers, kinds, strict=True)):
        if kind != "point":
            continue
        there = scenes.colours[row] >= 0
        places = {
            arm.NAMES[c]: p for c, p in zip(scenes.colours[row], scenes.targets[row], strict=True) if c >= 0
        }
        places["tip"] = scenes.tip[row]
        parts = answer.split() if "everything" in question else [question.split()[3] + answer]
        assert len(parts) == (there.sum() if "everything" in question else 1)
        for part in parts:
            name, _, rest = part.partition("<")
            np.testing.assert_allclose(arm.place_of("<" + rest), places[name], atol=1 / arm.BINS + 1e-6)
            seen += 1
    assert seen > 300


def test_only_two_places_are_a_point_and_near_means_on_the_target():
    assert len(set(arm.LOCATIONS)) == arm.BINS
    middle = arm.locations_of(0.0, 0.0)
    for said in ("", "red", arm.LOCATIONS[3], middle + arm.LOCATIONS[0], "<loc1><loc2>"):
        assert arm.place_of(said) is None
        assert not arm.near(said, middle)
    assert arm.near(arm.locations_of(0.1, -0.1), middle)
    assert not arm.near(arm.locations_of(0.3, 0.0), middle)
    assert arm.place_of(arm.locations_of(-5.0, 5.0)).tolist() == pytest.approx([-1 + 1 / 32, 1 - 1 / 32])


def test_motors_and_links_have_a_limit(scenes):
    sim = arm.ArmSim(dataclasses.replace(scenes))
    for _ in range(12):
        before = sim.scenes.tip.copy()
        sim.step(np.full((300, 2), 5.0))
        assert np.linalg.norm(sim.scenes.tip - before, axis=-1).max() <= arm.MAX_STEP + 1e-9
    _, drawn = arm.forward_kinematics(arm.inverse_kinematics(sim.scenes.tip))
    np.testing.assert_allclose(drawn, sim.scenes.tip, atol=0.05)  # the corner of the picture is just in reach

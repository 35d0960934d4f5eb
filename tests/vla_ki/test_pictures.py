"""The pictures of a run show what the masks say and what the arms did."""

from __future__ import annotations

import numpy as np

from jepa_world_model.vla_ki.pictures import Shown, liveliest, save, who_reads_whom
from tests.vla_ki.tiny import CFG, tiny_batch


def test_actions_read_the_prefix_through_the_barrier_and_never_the_answer():
    batch = tiny_batch()
    seen = who_reads_whom(CFG, batch)
    prefix, answer = CFG.visible, CFG.visible + CFG.answer_length
    assert seen.shape == (answer + CFG.horizon,) * 2
    assert not seen[answer:, prefix:answer].any()  # the answer
    assert set(np.unique(seen[answer:, :prefix])) <= {0, 2}
    assert (seen[answer:, answer:] == 1).all()
    assert not seen[:answer, answer:].any()  # nobody reads the actions
    spoken = batch.ar_mask[0, CFG.prompt_length :].numpy().nonzero()[0]
    causal = seen[prefix:answer, prefix:answer][np.ix_(spoken, spoken)]
    np.testing.assert_array_equal(causal, np.tril(np.ones_like(causal)))
    padded = (~batch.token_mask[0]).nonzero()[:, 0] + CFG.image_tokens
    assert not seen[:, padded].any()


def test_the_rows_that_are_shown_move_most_and_have_actions():
    batch = tiny_batch(robot=(True, True, True, False))
    batch.actions[:] = 0
    batch.actions[0, -1] = (
        9.0  # past the end of that episode, and in a dimension that is padding: no way at all
    )
    batch.actions[1, 2:, 0] = 1.0
    batch.actions[2, 2:, 0] = 2.0
    assert liveliest(batch, 2) == [2, 1]
    assert liveliest(batch, 9) == [2, 1, 0]


def test_pictures_are_saved_with_their_captions(tmp_path):
    save(tmp_path / "figures", {"film": Shown("Arms", "watch", b"GIF89a", "gif")})
    assert (tmp_path / "figures" / "film.gif").read_bytes() == b"GIF89a"
    assert '"title": "Arms"' in (tmp_path / "figures" / "captions.json").read_text()

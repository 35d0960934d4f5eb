"""The table of contents of the system: one line a loss, its default weight and its claim."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The weight of every loss; 0 turns it off, and what only it needs is neither built nor computed."""

    # core
    jepa: float = 1.0  # the predicted state is the next frame's
    sigreg: float = 0.0  # z is a standard normal along every direction
    # reconstruction
    recon: float = 0.0  # the decoder shows the frame
    recon_multi_box: float = 1.0  # ... at every scale, hardest where it errs most
    pixel_delta_multi_box: float = 1.0  # ... and what changes between frames
    # bridges between z and h
    h2z: float = 1.0  # h reads out as its frame's z
    z2h: float = 1.0  # z lifted to h reads out as z again
    # action algebra on h
    action_delta_h: float = 1.0  # state and action tell how h changes
    rollout_kstep_h: float = 1.0  # k self-fed steps arrive where true ones do
    rollout_kstep_delta_h: float = 1.0  # ... and change h alike at each step
    # action algebra on p
    action_delta_dp: float = 1.0  # an action has one pose increment
    additivity_dp: float = 1.0  # increments add up
    rollout_kstep_p: float = 1.0  # imagined poses arrive where true ones do
    scale_dp: float = 1.0  # a move has length 1
    geometry_rank_p: float = 1.0  # later is nearer to the goal
    # inverse dynamics
    inverse_dynamics_h: float = 1.0  # two dynamics states tell the action

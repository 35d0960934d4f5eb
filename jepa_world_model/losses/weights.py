"""The table of contents of the system: one line a loss, its default weight and its claim."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The weight of every loss; 0 turns it off, and what only it needs is neither built nor computed."""

    # core: prediction, and guards against collapse
    jepa: float = 1.0  # the predicted state is the next frame's
    jepa_rep: float = 0.0  # ... and the next frame's is one that could be predicted
    jepa_open_loop: float = 0.0  # the same over several self-fed steps
    sigreg: float = 0.0  # z is a standard normal along every direction
    sliced_w2: float = 0.0  # the same, by sorted projections
    vicreg_var: float = 0.0  # every dimension of z varies
    vicreg_cov: float = 0.0  # ... and no two together
    z_smooth: float = 0.0  # z changes little from frame to frame
    z_straight: float = 0.0  # z moves on in the same direction
    # reconstruction
    recon: float = 0.0  # the decoder shows the frame
    recon_patch: float = 0.0  # ... patch by patch, hardest where it errs most
    recon_multi_box: float = 1.0  # ... at every scale, hardest where it errs most
    recon_multi_box_mse: float = 0.0  # ... at every scale, squared, no place harder than another
    recon_multi_gauss: float = 0.0  # ... at every scale, hardness by a Gaussian neighbourhood
    pixel_delta: float = 0.0  # what changes between two frames changes in their reconstructions
    pixel_delta_multi_box: float = 1.0  # ... at every scale, hardest where it errs most
    recon_zhat_multi_box: float = 0.0  # the predicted state shows the next frame
    # bridges between z and h
    h2z: float = 1.0  # h reads out as its frame's z
    z2h: float = 1.0  # z lifted to h reads out as z again
    z2h_init_zero: float = 0.0  # z lifted to h is what a cold start leads to
    z2h_match_h: float = 0.0  # z lifted to h is what true frames lead to
    h2z_delta: float = 0.0  # h tells how z has just changed
    # action algebra on h
    action_delta_h: float = 1.0  # state and action tell how h changes
    rollout_kstep_h: float = 1.0  # k self-fed steps arrive where true ones do
    rollout_kstep_delta_h: float = 1.0  # ... and change h alike at each step
    additivity_h: float = 0.0  # the changes expected of two actions add up
    inverse_cycle_h: float = 0.0  # an action and the one that undoes it lead back
    noop_still_h: float = 0.0  # a no-op hardly moves h
    scale_dh: float = 0.0  # a move changes h by a given length
    action_consistency_h: float = 0.0  # the same action changes h in the same direction
    action_separation_h: float = 0.0  # different actions change h differently
    h_smooth: float = 0.0  # h changes little from frame to frame
    rollout_recon_h: float = 0.0  # what self-fed steps imagine looks like what comes
    rollout_recon_multi_box_h: float = 0.0  # ... at every scale, hardest where it errs most
    # action algebra on p: odometry
    action_delta_dp: float = 1.0  # an action has one pose increment
    additivity_dp: float = 1.0  # increments add up
    rollout_kstep_p: float = 1.0  # imagined poses arrive where true ones do
    scale_dp: float = 1.0  # a move has length 1
    dz_anchor_dp: float = 0.0  # an increment is a linear image of how z changes
    noop_still_dp: float = 0.0  # a no-op does not change the pose
    inverse_cycle_dp: float = 0.0  # an action and the one that undoes it leave the pose
    pose_measure_p: float = 0.0  # any single frame has a pose
    pose_correct_dp: float = 0.0  # a blocked move is no move
    # geometry of the pose
    geometry_rank_p: float = 1.0  # later is nearer to the goal
    loop_closure_p: float = 0.0  # the same place has the same pose
    distance_corr_p: float = 0.0  # far apart in pose is far apart in z
    temporal_distance: float = 0.0  # two frames tell the steps between them
    # action algebra on z
    action_delta_z: float = 0.0  # state and action tell how z changes
    rollout_kstep_z: float = 0.0  # k self-fed steps from a live z arrive at the frame that comes
    rollout_recon_z: float = 0.0  # ... and look like it
    rollout_recon_multi_box_z: float = 0.0  # ... at every scale, hardest where it errs most
    rollout_recon_delta_z: float = 0.0  # what changes between imagined frames changes between true ones
    rollout_recon_multi_box_delta_z: float = 0.0  # ... at every scale, hardest where it errs most
    rollout_project_z: float = 0.0  # an imagined state is that of the frame it looks like
    # inverse dynamics
    inverse_dynamics_z: float = 0.0  # two frame states tell the action
    inverse_dynamics_h: float = 1.0  # two dynamics states tell the action
    inverse_dynamics_p: float = 0.0  # two poses tell the action
    inverse_dynamics_dp: float = 0.0  # a pose increment alone tells the action

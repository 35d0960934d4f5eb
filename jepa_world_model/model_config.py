"""ModelConfig: sizes and choices of the world model."""

from __future__ import annotations

from dataclasses import dataclass

H_INITS = ("z_to_h", "zero")
ACTION_KINDS = ("", "discrete", "multi_binary", "continuous")


def halved(size: int, times: int) -> tuple[int, ...]:
    """A size and what stride-2 convolutions leave of it: (65, 33, 17, 9) for 65 halved 3 times."""
    sizes = [size]
    for _ in range(times):
        sizes.append(-(-sizes[-1] // 2))
    return tuple(sizes)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and choices of the world model."""

    in_channels: int = 3  # of a frame
    image_size: int = 64  # px, height and width; odd sizes work, a halving rounds up
    encoder_schedule: tuple[int, ...] = (32, 64, 64)  # channels after each halving; multiples of 16 run best
    decoder_schedule: tuple[int, ...] = (64, 64, 32)  # channels before each doubling, coarse to fine
    keypoints: int = 64  # positions read off a feature map; 0: z tells them from learned places alone
    flat_readout: bool = True  # z also reads the flattened last map: more detail, noise at places never shown
    z_dim: int = 64  # Dz; too small blurs what the frame shows
    state_dim: int = 128  # Dh; below about 2 * the degrees of freedom nothing can be predicted
    hidden_dim: int = 512  # width of hidden layers of predictor, bridges and heads
    pose_dim: int = 8  # Dp; at least the number of directions one can move in
    action_dim: int = 0  # A, width of an encoded action; 0: taken from the data
    action_kind: str = ""  # "discrete", "multi_binary" or "continuous"; "": from the data, else discrete
    warmup_frames_h: int = 0  # frames at the start of a window that count for no h or p loss
    z_norm: bool = False  # z has length sqrt(Dz), and states of frames are compared by 1 - cosine
    h_init: str = "z_to_h"  # how h starts: "z_to_h" lifts the first frame's z, "zero" knows nothing of it
    pose_delta_detach_h: bool = True  # h enters the pose as a constant: no pose loss moves the predictor
    predictor_layer_norm: bool = True  # bounds one step's change of h; off can diverge
    spectral_norm: bool = False  # bound the predictor's matrices: changes of h cannot grow without limit
    checkpointing: bool = False  # recompute feature maps in the backward pass: less memory, more time
    backbone: str = ""  # a torchvision classifier such as "resnet18" in place of the convolutions; "": ours
    backbone_weights: str = ""  # a file with its state_dict; "": random weights

    def __post_init__(self) -> None:
        for name in ("in_channels", "image_size", "z_dim", "state_dim", "hidden_dim", "pose_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be 1 or above, got {getattr(self, name)}")
        for name in ("keypoints", "action_dim", "warmup_frames_h"):
            if getattr(self, name) < 0:
                raise ValueError(f"model.{name} must be 0 or above, got {getattr(self, name)}")
        for name in ("encoder_schedule", "decoder_schedule"):
            self._check_schedule(name, getattr(self, name))
        if not self.flat_readout and (self.keypoints == 0 or self.backbone):
            raise ValueError(
                "model.flat_readout is off, so z needs model.keypoints above 0 and our own convolutions (no backbone)"
            )
        if self.h_init not in H_INITS:
            raise ValueError(f"model.h_init must be {' or '.join(H_INITS)}, got {self.h_init!r}")
        if self.action_kind not in ACTION_KINDS:
            raise ValueError(
                f"model.action_kind must be {', '.join(ACTION_KINDS[1:])} or empty, got {self.action_kind!r}"
            )
        if self.backbone_weights and not self.backbone:
            raise ValueError(
                f"model.backbone_weights is {self.backbone_weights!r}, but no model.backbone is chosen; "
                "set one, such as resnet18, or leave the weights out"
            )

    def _check_schedule(self, name: str, channels: tuple[int, ...]) -> None:
        if not channels or min(channels) < 1:
            raise ValueError(
                f"model.{name} needs at least one number of channels, each 1 or above, got {channels}"
            )
        if self.image_size < 2 ** len(channels):
            raise ValueError(
                f"model.image_size {self.image_size} cannot be halved {len(channels)} times, "
                f"once an entry of model.{name}; use at least {2 ** len(channels)} px or a shorter schedule"
            )

    @property
    def encoder_sizes(self) -> tuple[int, ...]:
        """Heights of the encoder's maps, the frame first."""
        return halved(self.image_size, len(self.encoder_schedule))

    @property
    def decoder_sizes(self) -> tuple[int, ...]:
        """Heights of the decoder's maps, the frame first."""
        return halved(self.image_size, len(self.decoder_schedule))

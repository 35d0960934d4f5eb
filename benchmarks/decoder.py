"""Our decoder against the encoder's mirror: errors and positions at equal steps and at equal time.

Command: python benchmarks/decoder.py [--data layouts|pinwheel|dots] [--steps 400] [--seeds 1] [--threads 1]

Two autoencoders of one encoder each, the same data order, take turns step by step. Time is processor time,
which a busy machine disturbs least. Errors are on held-out pictures (layouts never seen; pinwheel: those of
training). "position" is the R^2 of a linear readout of z on held-out pictures.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from flags import flags_of
from torch import Tensor, nn

from jepa_world_model.envs.gridworld import draw_all
from jepa_world_model.envs.layouts import free_cells, make_layout
from jepa_world_model.losses.image_distance import multi_box
from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.decoder import Decoder
from jepa_world_model.models.encoder import Encoder
from jepa_world_model.models.layers import initialised


class NaiveDecoder(nn.Module):
    """The decoder one would write first: doubling and a 3x3 convolution at each size, full resolution too."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        widths = cfg.encoder_schedule[::-1]
        self.sizes = cfg.encoder_sizes[::-1]
        self.seed = nn.Linear(cfg.z_dim, widths[0] * self.sizes[0] ** 2)
        pairs = zip(widths, (*widths[1:], widths[-1]), strict=True)
        self.convs = nn.ModuleList(initialised(nn.Conv2d(a, b, 3, padding=1)) for a, b in pairs)
        self.paint = nn.Conv2d(widths[-1], cfg.in_channels, 3, padding=1)
        nn.init.constant_(self.paint.bias, 0.5)

    def forward(self, z: Tensor) -> Tensor:
        rows, coarse = z.reshape(-1, z.shape[-1]), self.sizes[0]
        x = torch.relu(self.seed(rows)).view(len(rows), coarse, coarse, -1).permute(0, 3, 1, 2)
        for conv, size in zip(self.convs, self.sizes[1:], strict=True):
            x = torch.relu_(conv(F.interpolate(x, (size, size))))
        x = self.paint(x)
        return x.reshape(*z.shape[:-1], *x.shape[1:])


def grids(layout: str, seeds: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of the agent in every free cell of each layout, and the cells."""
    frames, cells = [], []
    for seed in seeds:
        walls = make_layout(layout, seed=seed)
        free = free_cells(walls)
        frames.append(draw_all(walls, 64)[free[:, 1] * len(walls) + free[:, 0]])
        cells.append(free)
    return torch.from_numpy(np.concatenate(frames)), torch.from_numpy(np.concatenate(cells)).float()


def dots(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A dot of 1.3 px anywhere, and a wall in a channel of its own, 64 px."""
    place = np.random.default_rng(seed).uniform(6, 58, (count, 2, 1, 1))
    axis = np.arange(64)
    dot = np.exp(
        -((axis[None, None, :] - place[:, 0]) ** 2 + (axis[None, :, None] - place[:, 1]) ** 2) / 3.38
    )
    wall = np.zeros((64, 64))
    wall[:, 31:34] = wall[:5] = wall[-5:] = wall[:, :5] = wall[:, -5:] = 1
    wall[14:23, 31:34] = 0
    frames = np.stack([dot, np.broadcast_to(wall, dot.shape)], 1) * 255
    return torch.from_numpy(frames.astype(np.uint8)), torch.from_numpy(place[:, :, 0, 0]).float()


DATA = {
    "layouts": lambda: (*grids("random", range(200)), *grids("random", range(1000, 1012))),
    "pinwheel": lambda: (*grids("pinwheel", range(1)), *grids("pinwheel", range(1))),
    "dots": lambda: (*dots(6000, 0), *dots(500, 1)),
}


class Arm:
    """An autoencoder in training, with its times and scores."""

    def __init__(self, cfg: ModelConfig, decoder: type[nn.Module], seed: int) -> None:
        torch.manual_seed(seed)
        self.encoder, self.decoder = Encoder(cfg), decoder(cfg)
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4, fused=True)
        self.seconds: list[float] = []
        self.scores: dict[int, tuple[float, float]] = {}

    def step(self, frames: torch.Tensor, lr: float) -> None:
        """One step on uint8 frames."""
        start = time.process_time()
        x = frames.float().mul_(1 / 255)
        with torch.autocast("cpu", torch.bfloat16):
            x_hat = self.decoder(self.encoder(x))
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.zero_grad()
        multi_box(x_hat.float(), x).backward()
        self.optimizer.step()
        self.seconds.append(time.process_time() - start)

    @torch.no_grad()
    def score(self, step: int, data: tuple[torch.Tensor, ...]) -> None:
        """MSE on held-out frames, and the R^2 of position."""
        frames, place, held, held_place = data
        chosen = torch.randperm(len(frames), generator=torch.Generator().manual_seed(0))[:2000]
        see = lambda f: torch.cat([self.encoder(part.float() / 255) for part in f.split(250)])
        z, z_held = see(frames[chosen]), see(held)
        mse = statistics.fmean(
            (self.decoder(a) - b.float() / 255).square().mean().item()
            for a, b in zip(z_held.split(250), held.split(250), strict=True)
        )
        ones = lambda rows: torch.cat([rows, torch.ones(len(rows), 1)], 1).double()
        a, b = ones(z), place[chosen].double()
        weights = torch.linalg.solve(a.T @ a + 1e-3 * torch.eye(a.shape[1]).double(), a.T @ b)
        missed = (ones(z_held) @ weights - held_place).square().sum()
        self.scores[step] = mse, 1 - (missed / (held_place - held_place.mean(0)).square().sum()).item()


def compare(data: tuple[torch.Tensor, ...], steps: int, seed: int, rows: int = 64) -> dict[str, Arm]:
    """Train both arms in turns and score them at every doubling of the steps."""
    cfg = ModelConfig(in_channels=data[0].shape[1])
    arms = {"ours": Arm(cfg, Decoder, seed), "mirror": Arm(cfg, NaiveDecoder, seed)}
    generator = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        frames = data[0][torch.randint(len(data[0]), (rows,), generator=generator)]
        for arm in arms.values():
            arm.step(frames, 1e-3 * min(1, step / 50))
            if step == steps or step in (50, 100, 200, 400, 800, 1600):
                arm.score(step, data)
    return arms


def main() -> None:
    """Print the comparison."""
    parser = flags_of(__doc__)
    parser.add_argument("--data", choices=DATA, default="layouts")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = DATA[args.data]()
    for seed in range(args.seeds):
        for name, arm in compare(data, args.steps, seed).items():
            step_ms = statistics.median(arm.seconds) * 1e3
            scores = "  ".join(f"{s}: {mse:.5f} / {r2:.3f}" for s, (mse, r2) in arm.scores.items())
            parameters = sum(p.numel() for p in arm.decoder.parameters())
            print(
                f"{args.data} seed {seed} {name:6s} {parameters / 1e6:.2f}M decoder, {step_ms:.0f} CPU-ms a "
                f"step of 64 frames; steps: MSE / position R^2  {scores}",
                flush=True,
            )


if __name__ == "__main__":
    main()

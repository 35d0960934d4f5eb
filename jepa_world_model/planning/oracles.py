"""The simulators behind the protocol of a model: perfect dynamics, to tell model error from cost error.

They read the true state off the picture, so they are run exactly as a model is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.envs.layouts import MOVES, free_cells
from jepa_world_model.envs.two_rooms import DOOR_HALF, HIGH, LOW, MAX_STEP, WALL_HALF
from jepa_world_model.planning.costs import Measure, goal_latent
from jepa_world_model.planning.dynamics import Dynamics, State, device_of
from jepa_world_model.planning.worlds import GridworldWorld, TwoRoomsWorld, World


class TwoRoomsOracle(Dynamics):
    """Two Rooms itself: state {"xy", "wall"} in px, exact but for the centre of the dot, read to 0.03 px."""

    space = TwoRoomsWorld.space
    latents = goal_latents = ("xy",)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> State:
        """The centre of the dot, and where wall and door are, off the picture [N,2,65,65]."""
        dot, solid = frames[:, 0].float(), frames[:, 1] > 127
        axis = torch.arange(dot.shape[-1], dtype=torch.float32, device=frames.device)
        mass = dot.sum((1, 2))
        xy = torch.stack([(dot.sum(1) * axis).sum(1), (dot.sum(2) * axis).sum(1)], 1) / mass[:, None]
        inside = slice(int(LOW) + 2, int(HIGH) - 1)  # off the border
        columns = solid[:, :, inside].sum(1)  # [N,W] wall pixels of each column
        wall = (columns > columns.amin(1, keepdim=True)).float()
        x = (wall * axis[inside]).sum(1) / wall.sum(1)
        row = solid.gather(2, x.long()[:, None, None].expand(-1, solid.shape[1], 1))[:, inside, 0]
        door = (~row).float()
        y = (door * axis[inside]).sum(1) / door.sum(1)
        return {"xy": xy, "wall": torch.stack([x, y], 1)}

    def step(self, state: State, action: Tensor) -> State:
        """`envs.two_rooms.move_dot` in torch."""
        xy, wall = state["xy"], state["wall"]
        move = action * (MAX_STEP / action.norm(dim=-1, keepdim=True).clamp(min=1.0))
        x, y = xy.unbind(-1)
        left, right = wall[:, 0] - WALL_HALF, wall[:, 0] + WALL_HALF
        top, bottom = wall[:, 1] - DOOR_HALF, wall[:, 1] + DOOR_HALF
        to_x = (x + move[:, 0]).clamp(LOW, HIGH)
        hits = ((y < top) | (y > bottom)) & (to_x > left) & (to_x < right)
        to_x = torch.where(hits, torch.where(x <= left, left, right), to_x)
        to_y = (y + move[:, 1]).clamp(LOW, HIGH)
        in_wall = (to_x > left) & (to_x < right)
        to_y = torch.where(in_wall, torch.minimum(torch.maximum(to_y, top), bottom), to_y)
        return {"xy": torch.stack([to_x, to_y], -1), "wall": wall}

    def read(self, state: State, name: str) -> Tensor:
        """The true position."""
        if name != "xy":
            raise UserError(f"the simulator has no {name!r}; its states have xy")
        return state["xy"]


DOOR_POINTS = 17  # of each face of the door that a way may pass through; at most 0.05 px too long


@dataclass(frozen=True, kw_only=True)
class DoorDistance:
    """The true way through the door of Two Rooms, from any latent "xy" in px."""

    wall: tuple[float, float] = (32.0, 18.0)  # wall x and door y, where the goal's state does not hold them

    def towards(self, dynamics: Dynamics, goal: State) -> Measure:
        """Shortest lengths in px; what the goal alone decides is computed once."""
        there = goal_latent(dynamics, goal, "xy")
        wall = goal.get("wall") if isinstance(goal, dict) else None
        if wall is None:
            wall = there.new_tensor(self.wall).expand(len(there), 2)
        offsets = torch.linspace(-DOOR_HALF, DOOR_HALF, DOOR_POINTS, device=there.device)
        y = wall[:, 1:] + offsets  # [E,17]
        left, right = (wall[:, :1] + side * WALL_HALF for side in (-1, 1))
        far_left = _to_points(there, left, y)  # [E,17] from the points of each face to the goal
        far_right = _to_points(there, right, y)
        across = torch.hypot(y[:, :, None] - y[:, None], right[:, :, None] - left[:, :, None])  # [E,17,17]
        from_left = torch.where(there[:, :1] <= left, far_left, (across + far_right[:, None]).amin(2))
        from_left = torch.where((there[:, :1] > left) & (there[:, :1] < right), far_left, from_left)
        from_right = torch.where(there[:, :1] >= right, far_right, (across + far_left[:, None]).amin(2))
        from_right = torch.where((there[:, :1] > left) & (there[:, :1] < right), far_right, from_right)

        def measure(state: State, episodes: slice) -> Tensor:
            mine = there[episodes]
            xy = dynamics.read(state, "xy").unflatten(0, (len(mine), -1))  # [e,S,2]
            x, lo, hi = xy[..., 0], left[episodes], right[episodes]
            gx = mine[:, :1]
            straight = (xy - mine[:, None]).norm(dim=-1)
            ways = [
                (_to_points(xy, face[:, :, None], y[episodes, None]) + rest[:, None]).amin(-1)
                for face, rest in ((lo, from_left[episodes]), (hi, from_right[episodes]))
            ]
            inside = (x > lo) & (x < hi)
            same = ((x <= lo) & (gx <= lo)) | ((x >= hi) & (gx >= hi)) | (inside & (gx > lo) & (gx < hi))
            # From inside the door the way leaves by the face on the goal's side.
            by_left = torch.where(inside, gx <= lo, x <= lo)
            return torch.where(same, straight, torch.where(by_left, ways[0], ways[1])).flatten()

        return measure


def _to_points(xy: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Distances from places [...,2] to points: x [...,1], y [...,P] -> [...,P]."""
    return torch.hypot(xy[..., :1] - x, xy[..., 1:] - y)


class GridworldOracle(Dynamics):
    """The gridworld itself: a state is a share of each cell [N,C], one cell's unless actions are relaxed."""

    space = GridworldWorld.space
    latents = goal_latents = ("xy", "cell")

    def __init__(self, world: GridworldWorld) -> None:
        self.world, cells = world, world.walls.shape[1]
        grid = torch.stack(torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="xy"), -1)
        self.places = grid.flatten(0, 1)  # [C,2]
        count = len(self.places)
        self.pictures = torch.from_numpy(world.pictures).flatten(1).float()  # [C,P]
        table = torch.zeros(count, len(MOVES), count)
        for action in range(len(MOVES)):
            to = world.index(world.step(self.places.numpy(), torch.full((count,), action).numpy()))
            table[torch.arange(count), action, torch.from_numpy(to)] = 1.0
        self.table = table.flatten(1)  # [C,A*C]

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """The cell whose picture this is."""
        flat = frames.flatten(1).float()
        score = flat @ self.pictures.T - self.pictures.square().sum(1) / 2
        return torch.nn.functional.one_hot(score.argmax(1), len(self.pictures)).float()

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """The true move; shares of actions give shares of cells."""
        after = (state @ self.table).unflatten(1, (len(MOVES), -1))  # [N,A,C]
        return torch.einsum("na,nac->nc", action, after)

    def read(self, state: Tensor, name: str) -> Tensor:
        """The (mean) position in cells, or the shares of the cells."""
        if name not in self.latents:
            raise UserError(f"the simulator has no {name!r}; its states have xy and cell")
        return state @ self.places.float() if name == "xy" else state


@dataclass(frozen=True, kw_only=True)
class PathDistance:
    """The true number of steps to the goal's cell."""

    world: GridworldWorld

    def towards(self, dynamics: Dynamics, goal: State) -> Measure:
        """The expected length of the shortest path, of the shares of the cells."""
        lengths = torch.from_numpy(self.world.lengths).float()
        lengths = torch.where(lengths < 0, lengths.max() + 1, lengths)
        if "cell" not in dynamics.goal_latents:
            return self._from_position(dynamics, goal, lengths)
        cell = goal_latent(dynamics, goal, "cell").argmax(1)
        table = lengths[:, cell].T.to(cell.device)  # [E,C]

        def measure(state: State, episodes: slice) -> Tensor:
            mine = table[episodes]
            here = dynamics.read(state, "cell").unflatten(0, (len(mine), -1))  # [e,S,C]
            return torch.einsum("esc,ec->es", here, mine).flatten()

        return measure

    def _from_position(self, dynamics: Dynamics, goal: State, lengths: Tensor) -> Measure:
        """The same from a position in cells: the free cell that is nearest to it."""
        free = torch.from_numpy(free_cells(self.world.walls)).float()
        number = torch.from_numpy(self.world.index(free.numpy()))
        cell_of = lambda xy: number[torch.cdist(xy.float().cpu(), free).argmin(1)]
        table = lengths[:, cell_of(goal_latent(dynamics, goal, "xy"))].T  # [E,C]

        def measure(state: State, episodes: slice) -> Tensor:
            mine = table[episodes]
            cell = cell_of(dynamics.read(state, "xy")).unflatten(0, (len(mine), -1))
            return mine.gather(1, cell).flatten().to(device_of(state))

        return measure


def make_oracle(world: World) -> Dynamics:
    """Perfect dynamics of a world. Errors: UserError where none is written."""
    if isinstance(world, TwoRoomsWorld):
        return TwoRoomsOracle()
    if isinstance(world, GridworldWorld):
        return GridworldOracle(world)
    raise UserError(f"there is no simulator of {world.name} behind the protocol of a model")


def true_cost(world: World) -> DoorDistance | PathDistance:
    """The cost that knows the way: shortest true paths."""
    return PathDistance(world=world) if isinstance(world, GridworldWorld) else DoorDistance()

"""Ten proofs that the barrier is where it should be, and only there, for any configuration."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from jepa_world_model.core.barrier import reach
from jepa_world_model.core.optim import OptimConfig, build_optimizer
from jepa_world_model.core.proof import jittered
from jepa_world_model.core.rng import Streams
from jepa_world_model.core.step import train_step
from jepa_world_model.core.task import Task
from jepa_world_model.vla_ki.batch import KIBatch
from jepa_world_model.vla_ki.flow import masked_mse
from jepa_world_model.vla_ki.model import KIConfig, Vla, run_prefix, slice_kv, to_float
from jepa_world_model.vla_ki.policy import prefill
from jepa_world_model.vla_ki.table import GRAPH, LOSSES, Settings, setting_gates, visible_mask

Autocast = Callable[[], AbstractContextManager]


class ProofError(AssertionError):
    """A claim about the gradient routing does not hold."""


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What the proofs run on; on jittered weights, since adaRMS at its zero start would hide every leak."""

    cfg: KIConfig
    model: Vla  # as built or loaded
    batch: KIBatch  # robot rows, and text rows where the training has them
    flow_samples: int = 4
    steps: int = 20  # of the optimizer, in the proof on weights
    seed: int = 0

    @cached_property
    def streams(self) -> Streams:
        """The random streams of the seed."""
        return Streams(self.seed)

    @cached_property
    def twin(self) -> Vla:
        """A jittered copy that every proof starts from."""
        return jittered(self.model, self.streams.torch("proof")).train()

    @property
    def has_text(self) -> bool:
        """Whether the batch has rows without actions."""
        return bool((~self.batch.robot).any())

    def task(
        self, setting: str, model: Vla | None = None, *, autocast: Autocast = nullcontext, **weights: float
    ) -> Task:
        """A task on the jittered model under a named setting; weights default to 1."""
        given = {"fast_ce": 1.0, "text_ce": float(self.has_text), "flow": 1.0} | weights
        return Task(
            model or self.twin,
            GRAPH,
            LOSSES,
            weights=given,
            gates=setting_gates(setting, 0.5),
            settings=Settings(model=self.cfg, flow_samples=self.flow_samples),
            streams=self.streams,
            autocast=autocast,
        )


def need(held: bool, claim: str) -> None:
    """Errors: ProofError with the claim when it does not hold."""
    if not held:
        raise ProofError(claim)


def _grads(term: Tensor, task: Task, group: str) -> list[Tensor | None]:
    return list(
        torch.autograd.grad(term, list(task.groups[group].values()), retain_graph=True, allow_unused=True)
    )


def _same(a: list[Tensor | None], b: list[Tensor | None]) -> bool:
    return all(
        (x is None and y is None) or (x is not None and y is not None and torch.equal(x, y))
        for x, y in zip(a, b, strict=True)
    )


def flow_stays_in_the_expert(kit: Kit) -> str:
    """1. Flow reaches the expert alone, FAST reaches VLM and vision alone: by graph and by gradient."""
    task = kit.task("insulated")
    found = reach(task.terms(kit.batch), task.groups)
    for name, groups in {"flow": {"expert"}, "fast_ce": {"vlm", "vision"}}.items():
        for way, got in (("structurally", found[name].structural), ("by gradient", found[name].moved)):
            need(got == groups, f"{name} reaches {sorted(got)} {way}, not {sorted(groups)}")
    return "flow: expert; fast_ce: vlm, vision"


def open_barrier_reaches_every_layer(kit: Kit) -> str:
    """2. Control: with the barrier open, every VLM layer and the vision tower get an action gradient."""
    task = kit.task("joint")
    terms = task.terms(kit.batch)
    grads = dict(zip(task.groups["vlm"], _grads(terms["flow"], task, "vlm"), strict=True))
    layers = len(kit.twin.vlm.decoder.layers)
    for i in range(layers):
        norms = [g.norm() for n, g in grads.items() if f".layers.{i}." in n and g is not None]
        need(
            bool(norms) and float(max(norms)) > 0,
            f"layer {i} gets no action gradient though the barrier is open",
        )
    vision = [g for g in _grads(terms["flow"], task, "vision") if g is not None]
    need(
        any(float(g.norm()) > 0 for g in vision),
        "the vision tower gets no action gradient though the barrier is open",
    )
    return f"{layers} layers and the vision tower get a gradient"


def forward_is_the_same(kit: Kit) -> str:
    """3. The barrier changes no number of the forward pass: fp32, bf16, with and without recomputation."""
    device = kit.batch.ids.device.type
    for autocast in (nullcontext, lambda: torch.autocast(device, torch.bfloat16)):
        for recompute in (False, True):
            with _checkpointing(kit.twin, recompute):
                a, b = (kit.task(s, autocast=autocast).terms(kit.batch) for s in ("insulated", "joint"))
            for name in a:
                need(torch.equal(a[name], b[name]), f"{name} differs between open and closed barrier")
    return "bitwise, fp32 and bf16, with and without checkpointing"


@contextmanager
def _checkpointing(model: Vla, on: bool) -> Iterator[None]:
    stacks = (model.vision.tower, model.vlm.decoder, model.expert.decoder)
    before = [stack.checkpointing for stack in stacks]
    try:
        for stack in stacks:
            stack.checkpointing = on
        yield
    finally:
        for stack, value in zip(stacks, before, strict=True):
            stack.checkpointing = value


def gradients_are_those_of_the_parts(kit: Kit) -> str:
    """4. Insulated gradients are, bitwise, those of FAST on the VLM and of flow on the expert alone."""
    shut, open_ = kit.task("insulated", text_ce=0.0), kit.task("joint", text_ce=0.0)
    total, _ = shut.total(shut.terms(kit.batch))
    terms = open_.terms(kit.batch)
    for group, loss in (("vlm", "fast_ce"), ("vision", "fast_ce"), ("expert", "flow")):
        need(
            _same(_grads(total, shut, group), _grads(terms[loss], open_, group)),
            f"the insulated gradient of {group} is not that of {loss} alone",
        )
    return "vlm, vision: fast_ce; expert: flow; bitwise"


def flow_weight_leaves_the_vlm_alone(kit: Kit) -> str:
    """5. Steps leave bitwise the same VLM for flow weights 0, 1 and 100; one global clip would not."""
    runs = {weight: _trained(kit, weight, _by_group) for weight in (0.0, 1.0, 100.0)}
    for weight, state in runs.items():
        need(
            _equal(state, runs[0.0]), f"flow weight {weight:g} changed the VLM's weights in {kit.steps} steps"
        )
    coupled = [_trained(kit, weight, _globally) for weight in (0.0, 100.0)]
    need(not _equal(*coupled), "the control failed: global clipping did not couple the groups")
    return f"{kit.steps} steps, flow weight 0, 1, 100: bit-identical; global clipping: differs"


def _trained(
    kit: Kit, flow_weight: float, advance: Callable[[Task, torch.optim.Optimizer, KIBatch, int], None]
) -> dict:
    model = copy.deepcopy(kit.twin)
    task = kit.task("insulated", model, flow=flow_weight)
    optimizer = build_optimizer(task.groups, OptimConfig(lr=1e-3))
    for step in range(kit.steps):
        advance(task, optimizer, kit.batch, step)
    return {k: v for k, v in model.state_dict().items() if not k.startswith("expert.")}


def _by_group(task: Task, optimizer: torch.optim.Optimizer, batch: KIBatch, step: int) -> None:
    train_step(task, optimizer, batch, step, max_grad_norm=0.1)


def _globally(task: Task, optimizer: torch.optim.Optimizer, batch: KIBatch, step: int) -> None:
    optimizer.zero_grad()
    task.total(task.terms(batch, step))[0].backward()
    torch.nn.utils.clip_grad_norm_(task.model.parameters(), 0.1)
    optimizer.step()


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def answers_are_not_seen(kit: Kit) -> str:
    """6. Other FAST ids leave the velocity unchanged, and no target helps to predict itself."""
    task, batch = kit.task("insulated"), kit.batch
    ids = batch.ids.clone()
    ids.view(-1)[batch.supervised] = (ids.view(-1)[batch.supervised] + 1) % kit.cfg.vocab_size
    with torch.no_grad():
        velocities = [task.states(b, ("velocity",))["velocity"] for b in (batch, replace(batch, ids=ids))]
    need(
        torch.equal(*velocities), "the velocity changes with the FAST tokens: the expert reads its own answer"
    )
    caught: list[Tensor] = []
    hook = kit.twin.vlm.embed_tokens.register_forward_hook(lambda module, args, out: caught.append(out))
    try:
        term = task.terms(batch)["fast_ce"]
    finally:
        hook.remove()
    (grad,) = torch.autograd.grad(term, caught[0])
    row = int(batch.robot.nonzero()[0])
    places = [int(p) for p in batch.supervised if p // ids.shape[1] == row]
    last, first = (grad.flatten(0, 1)[p] for p in (places[-1], places[0]))
    need(not bool(last.any()), "the last target's own embedding has a gradient: it helps to predict itself")
    need(bool(first.any()), "the first target's embedding has no gradient: the answer is not read causally")
    spoken = (batch.ar_mask & batch.token_mask).flatten().nonzero()[:, 0]
    need(
        torch.equal(batch.supervised, spoken),
        "the supervised places are not those of the answers: the loss mask is shifted against its targets",
    )
    return "velocity equal for other FAST ids; last target's embedding gradient exactly 0"


def training_is_inference(kit: Kit, tolerance: float = 1e-5) -> str:
    """7. The velocity of the training pass is that over the cache of a prompt without an answer."""
    task = kit.task("insulated")
    with torch.no_grad():
        states = task.states(kit.batch, ("velocity",))
        _, kv, visible = prefill(kit.twin, kit.cfg, kit.batch)
        flow = states["flow"]
        cached = kit.twin.expert(flow.x_t, flow.t, kv, visible)[: kit.batch.robots]
    gap = float((cached - states["velocity"]).abs().max() / states["velocity"].abs().max())
    need(gap <= tolerance, f"training and inference differ by {gap:.1e} of the largest velocity")
    return f"largest difference {gap:.0e} of the largest velocity"


def samples_share_one_pass(kit: Kit, tolerance: float = 1e-5) -> str:
    """8. K flow samples give the mean of K single passes; the VLM runs once."""
    task, calls = kit.task("insulated"), []
    hook = kit.twin.vlm.decoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        term = task.terms(kit.batch)["flow"]
    finally:
        hook.remove()
    need(len(calls) == 1, f"the VLM ran {len(calls)} times in one step")
    states = task.states(kit.batch, ("velocity",))
    flow, seen = states["flow"], visible_mask(kit.batch, kit.cfg)
    singles = [
        masked_mse(
            kit.twin.expert(flow.x_t[:, k : k + 1], flow.t[:, k : k + 1], states["kv"], seen),
            flow.u[:, k : k + 1],
            kit.batch.action_mask,
        )
        for k in range(kit.flow_samples)
    ]
    gap = abs(float((torch.stack(singles).mean() / term).detach()) - 1)
    need(gap <= tolerance, f"{kit.flow_samples} samples at once differ from one by one by {gap:.1e}")
    return f"{kit.flow_samples} samples, one VLM pass, relative difference {gap:.0e}"


def text_rows_have_no_flow(kit: Kit) -> str:
    """9. Rows without actions have no flow loss and no expert gradient, and every parameter takes part.

    So a process whose batch happens to hold no robot rows keeps in step with the others.
    """
    none = torch.zeros_like(kit.batch.robot)
    batch = replace(kit.batch, robot=none, action_mask=torch.zeros_like(kit.batch.action_mask))
    task = kit.task("insulated", text_ce=1.0)
    terms = task.terms(batch)
    flow = float(terms["flow"].detach())
    need(flow == 0.0, f"the flow loss of rows without actions is {flow}")
    total, _ = task.total(terms)
    for group in task.groups:
        grads = _grads(total, task, group)
        need(
            all(g is not None for g in grads) or group == "vlm",
            f"{group} drops out of batches without robot rows",
        )
        moved = any(g is not None and bool(g.any()) for g in grads)
        need(
            moved == (group != "expert"),
            f"{group} {'moves' if moved else 'does not move'} without robot rows",
        )
    return "flow exactly 0; expert gradient exactly 0"


def detached_embeddings_are_no_barrier(kit: Kit) -> str:
    """10. Control: a barrier on the prefix embeddings leaks, and proof 1 sees it."""
    model, batch, cfg = kit.twin, kit.batch, kit.cfg
    task = kit.task("insulated")
    real_embed = model.vlm.embed
    model.vlm.embed = lambda ids: real_embed(ids).detach()
    try:
        tokens = model.vision(to_float(batch.images)).detach()
        _, kv, valid = run_prefix(
            model.vlm, tokens, batch.image_mask, batch.ids, batch.token_mask, batch.ar_mask
        )
    finally:
        del model.vlm.embed
    flow = task.states(batch, ("flow",))["flow"]
    velocity = model.expert(flow.x_t, flow.t, slice_kv(kv, cfg.visible), valid[:, : cfg.visible])
    term = masked_mse(velocity, flow.u, batch.action_mask)
    need(
        "vlm" in reach({"flow": term}, task.groups)["flow"].moved,
        "the control failed: proof 1 would not see this leak",
    )
    leaking = sum(g is not None and bool(g.any()) for g in _grads(term, task, "vlm"))
    return f"detached embeddings leave {leaking} of {len(task.groups['vlm'])} VLM tensors an action gradient"


PROOFS: tuple[Callable[[Kit], str], ...] = (
    flow_stays_in_the_expert,
    open_barrier_reaches_every_layer,
    forward_is_the_same,
    gradients_are_those_of_the_parts,
    flow_weight_leaves_the_vlm_alone,
    answers_are_not_seen,
    training_is_inference,
    samples_share_one_pass,
    text_rows_have_no_flow,
    detached_embeddings_are_no_barrier,
)

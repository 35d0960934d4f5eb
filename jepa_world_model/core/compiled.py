"""A step's losses and gradients as one compiled program.

Latents and losses never ask the host, and who moves whom is settled before the first step: every step is the same list of
operations. So it is written down once, forward and backward together, and compiled as a whole. What differs from step to
step goes in as numbers: weights, batch, the weights of losses, what losses draw. The gates need nothing: a cut edge
is a gradient that the list does not hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from jepa_world_model.core.barrier import joint_norm, map_tree, stop
from jepa_world_model.core.errors import ContractError, UserError
from jepa_world_model.core.losses import weighted_sum
from jepa_world_model.core.step import by_name
from jepa_world_model.core.task import Task

# A list of operations and inputs to try it on -> the same, faster
Compiler = Callable[[torch.fx.GraphModule, list[Tensor]], Callable[..., Any]]

# Of a group's gradient, by the type its products are computed in; what is further off is another program, not rounding.
TOLERANCE = {torch.float32: 0.01, torch.bfloat16: 0.1}


@dataclass
class _Draws(TorchFunctionMode):
    """What latents and losses draw: recorded once, then drawn before each step and handed in.

    A draw inside the program would be the same at every step.
    """

    streams: list[tuple[str, torch.Generator]] = field(default_factory=list)
    calls: list[tuple[int, Callable, tuple, dict]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def recording(self, generator: Callable[[str], torch.Generator]) -> Callable[[str], torch.Generator]:
        """The same generators, remembered by name."""

        def named(name: str) -> torch.Generator:
            self.streams.append((name, generator(name)))
            return self.streams[-1][1]

        return named

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        others = dict(kwargs or {})
        source = others.pop("generator", None)
        if source is not None:
            number = next(i for i, (_, known) in enumerate(self.streams) if known is source)
            self.calls.append((number, func, args, others))
        return func(*args, **(kwargs or {}))

    def draw(self, generator: Callable[[str], torch.Generator]) -> list[Tensor]:
        """The draws of one step."""
        sources = [generator(name) for name, _ in self.streams]
        return [func(*args, **others, generator=sources[number]) for number, func, args, others in self.calls]


class _Given(TorchFunctionMode):
    """Inside, whoever draws gets the next of the tensors that were drawn before."""

    def __init__(self, drawn: Sequence[Tensor]) -> None:
        super().__init__()
        self.drawn = iter(drawn)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if (kwargs or {}).get("generator") is not None:
            return next(self.drawn)
        return func(*args, **(kwargs or {}))


class _Forward(nn.Module):
    """The terms of a task as a module's forward pass, so that weights can be handed in."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self.tasks = (task,)  # in a tuple: nothing of it belongs to this module

    def forward(self, batch: Any, drawn: Sequence[Tensor]) -> Tensor:
        """The raw terms [losses]."""
        with _Given(drawn):
            return torch.stack([term.float() for term in self.tasks[0].terms(batch).values()])


def _leaves(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_tree(lambda x: (found.append(x), x)[1], tree)
    return found


def _shape_of(batch: Any, parts: int) -> str:
    """All of a batch that its program is made for: everything but the numbers in its tensors."""
    return f"{parts} {map_tree(lambda x: (tuple(x.shape), x.dtype), batch)}"


def _refilled(tree: Any, tensors: Sequence[Tensor]) -> Any:
    given = iter(tensors)
    return map_tree(lambda _: next(given), tree)


def found_once(graph: torch.fx.Graph) -> None:
    """Every operation with the same inputs is done once: losses look at the same things, each by itself.

    graph: operations that write to no input of another one, as a compiler has them after its first passes.
    """
    known: dict[Any, torch.fx.Node] = {}
    for node in list(graph.nodes):
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or (schema is not None and schema.is_mutable):
            continue
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            continue
        key = (node.target, str(node.args), str(node.kwargs))  # nodes are written by their names, one each
        if key in known:
            node.replace_all_uses_with(known[key])
            graph.erase_node(node)
        else:
            known[key] = node


def inductor(listed: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """By torch's own compiler; nothing of Python's code is looked at again. Errors: UserError where that fails."""
    from torch._dynamo import lookup_backend
    from torch._inductor import config
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
    from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler

    class Once(CustomGraphPass):
        """`found_once` as inductor wants it: with a name for its cache."""

        def __call__(self, graph: torch.fx.Graph) -> None:
            found_once(graph)

        def uuid(self) -> Any:
            return get_hash_for_files((__file__,))

    try:
        # Calls by C++: a step has some six hundred, and Python takes a tenth of its time to make them. Untried on a GPU.
        options = {"cpp_wrapper": all(x.device.type == "cpu" for x in inputs)}
        if hasattr(config, "cpp_wrapper_build_separate"):
            # What makes the calls is compiled less thoroughly than what is called: two thirds of the time, as fast a step.
            options["cpp_wrapper_build_separate"] = options["cpp_wrapper"]
        with config.patch(joint_custom_post_pass=Once(), **options):
            return lookup_backend("inductor")(listed, inputs)
    except (InvalidCxxCompiler, CppCompileError, InductorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the step cannot be compiled here ({reason}); train without --compile") from error


def _unshared(program: Callable[..., Any], inputs: list[Tensor]) -> Callable[..., Any]:
    """The program with results that share no memory, with each other or with inputs.

    A compiler returns equal results once: two biases that are added have one gradient, and what scales it would do so twice.
    """
    seen, again = {x.data_ptr() for x in inputs}, []
    for place, value in enumerate(program(*inputs)):
        if isinstance(value, Tensor) and value.numel():
            if value.data_ptr() in seen:
                again.append(place)
            seen.add(value.data_ptr())
    if not again:
        return program

    def unshared(*given: Tensor) -> list[Any]:
        results = list(program(*given))
        for place in again:
            results[place] = results[place].clone()
        return results

    return unshared


class Compiled:
    """`differentiate` of core/step.py for one task, by a compiled program for each shape of batch.

    Called with a batch, it adds gradients to `.grad` and returns the values of its losses. The first call of a shape traces
    and compiles (minutes on two cores, seconds when torch finds the program in its cache), and compares the program with
    the plain step: the same parameters get a gradient, and the same one up to rounding. say: told what was compiled.
    compiler: in the place of `inductor`.

    Errors: UserError for a task that several processes share, where nothing compiles here, or when the two disagree;
    ContractError for a loss or latent that branches on data.
    """

    def __init__(
        self, task: Task, *, compiler: Compiler | None = None, say: Callable[[str], None] = lambda text: None
    ) -> None:
        if task.world.size > 1:
            raise UserError(
                "a step that several processes share cannot be compiled as one; leave out --compile"
            )
        self.task, self.compiler, self.say = task, compiler or inductor, say
        self.forward = _Forward(task)
        named = dict(self.forward.named_parameters())
        self.trained = {name: value for name, value in named.items() if value.requires_grad}
        self.constant = {name: value for name, value in named.items() if not value.requires_grad}
        self.constant |= dict(self.forward.named_buffers())
        self.programs: dict[str, tuple[_Draws, Callable[..., Any]]] = {}

    def __call__(self, batch: Any, step: int, number: int = 0, parts: int = 1) -> dict[str, Tensor]:
        """Gradients of the batch, 1 / parts of them, added to `.grad`; loss/<name>, weighted/<name>, loss/total.

        number: which of the step's parts this is, for what is drawn.
        """
        task, leaves = self.task, _leaves(batch)
        draws, program = self.program(batch, step, parts)
        inputs = self._inputs(draws, leaves, step, step * parts + number)
        with torch.no_grad():
            raw, weighted, total, *grads = program(*inputs)
        if task.sizes:
            task.sizes.mean, task.sizes.seen, *grads = grads
        for parameter, grad in zip(self.trained.values(), grads, strict=True):
            if grad is not None:
                parameter.grad = grad if parameter.grad is None else parameter.grad + grad
        return by_name([loss.name for loss in task.losses], raw.unbind(), weighted, total)

    def program(self, batch: Any, step: int = 0, parts: int = 1) -> tuple[_Draws, Callable[..., Any]]:
        """The program for batches like this one, compiled if it is the first; to have that done before a clock runs."""
        shape = _shape_of(batch, parts)
        if shape not in self.programs:
            self.programs[shape] = self._compile(batch, _leaves(batch), step, parts)
        return self.programs[shape]

    def _inputs(self, draws: _Draws, leaves: Sequence[Tensor], step: int, draw: int) -> list[Tensor]:
        """What the program is called with, in the order that `_work` takes it apart."""
        task = self.task
        row = task.weight_row(tuple(loss.name for loss in task.losses), step, task.device)
        drawn = draws.draw(task.draws(draw))
        sizes = [x.to(task.device) for x in (task.sizes.mean, task.sizes.seen)] if task.sizes else []
        state = (*self.trained.values(), *self.constant.values())
        return [x.detach() for x in (*state, *leaves, *drawn, row, *sizes)]

    def _work(self, batch: Any, drawn: int, parts: int) -> Callable[..., tuple]:
        """The step as a function of tensors alone."""
        task = self.task
        of_batch = len(_leaves(batch))

        def work(*tensors: Tensor) -> tuple:
            given = list(tensors)
            take = lambda count: [given.pop(0) for _ in range(count)]
            weights = [x.detach().requires_grad_() for x in take(len(self.trained))]
            constants, leaves, draws = take(len(self.constant)), take(of_batch), take(drawn)
            (row,), sizes = take(1), given
            values = dict(zip((*self.trained, *self.constant), (*weights, *constants), strict=True))
            with torch.enable_grad():
                raw = functional_call(self.forward, values, (_refilled(batch, leaves), draws))
                if task.sizes:
                    *sizes, size = task.sizes.after(*sizes, stop(raw))
                    row = row / size
                total, weighted = weighted_sum(raw, row)
                grads = torch.autograd.grad(total / parts, weights, allow_unused=True)
            laid = [
                g if g is None or g.stride() == w.stride() else torch.empty_like(w).copy_(g)
                for g, w in zip(grads, weights, strict=True)
            ]
            return stop(raw), weighted, stop(total), *sizes, *laid

        return work

    def _compile(
        self, batch: Any, leaves: Sequence[Tensor], step: int, parts: int
    ) -> tuple[_Draws, Callable]:
        from torch.fx.experimental.proxy_tensor import make_fx  # these take a second to import
        from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

        began, draws = time.perf_counter(), _Draws()
        context = self.task.context(batch)
        kept = {name: value.clone() for name, value in self.constant.items()}
        with draws, torch.no_grad():
            self.task.terms_in(replace(context, generator=draws.recording(self.task.draws(0))))
            for name, value in kept.items():  # a look ahead moves no running statistics
                self.constant[name].copy_(value)
        inputs = self._inputs(draws, leaves, step, step * parts)
        copies = lambda: [x.clone() for x in inputs]  # buffers may be written to
        work = self._work(batch, len(draws.calls), parts)
        try:
            listed = make_fx(work, tracing_mode="fake")(*copies())
        except GuardOnDataDependentSymNode as error:
            raise ContractError(
                "a loss or latent asks the host which way to go, by a value that depends on data, so the step is not the "
                f"same list of operations each time ({str(error).splitlines()[0]}); train without --compile"
            ) from error
        with torch.no_grad():
            program = _unshared(self.compiler(listed, copies()), copies())
            compiled = program(*copies())
        off = self._compare(work(*copies()), compiled)
        self.say(
            f"compiled {len(listed.graph.nodes):,} operations in {time.perf_counter() - began:.0f} s; "
            f"gradients within {off:.1e} of the plain step's"
        )
        return draws, program

    def _compare(self, plain: tuple, compiled: tuple) -> float:
        """The largest relative difference of a group's gradient. Errors: UserError where it is more than rounding."""
        names = [name.removeprefix("model.") for name in self.trained]
        grads = [dict(zip(names, found[-len(names) :], strict=True)) for found in (plain, compiled)]
        worst = 0.0
        for group, members in self.task.groups.items():
            ours, theirs = ([found.get(name) for name in members] for found in grads)
            if [g is None for g in ours] != [g is None for g in theirs]:
                raise UserError(
                    f"the compiled step does not move what the plain one moves in {group}; {REPORT}"
                )
            pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None]
            if not pairs:
                continue
            size, off = joint_norm([a for a, _ in pairs]), joint_norm([a - b for a, b in pairs])
            share = float(off / size.clamp(min=1e-6))
            limit = max(TOLERANCE[d] for d in self._types())
            if not share <= limit:
                raise UserError(
                    f"the gradient of {group} in the compiled step is {share:.2g} of its size off the plain one; {REPORT}"
                )
            worst = max(worst, share)
        return worst

    def _types(self) -> Sequence[torch.dtype]:
        with self.task.autocast():
            device = self.task.device.type
            on = torch.is_autocast_enabled(device)
            return (torch.float32, torch.get_autocast_dtype(device)) if on else (torch.float32,)


REPORT = "train without --compile, and report it"

"""Fused steps on feature maps have the values and gradients of the plain modules they stand for."""

import pytest
import torch
from torch import nn

from jepa_world_model.core.barrier import frozen
from jepa_world_model.models import fused
from jepa_world_model.models.fused import relu_of


class Relu(nn.Module):
    """The fused step as a module."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return relu_of(self.conv, x)


def values_and_gradients(function, x, conv, bf16):
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = function(x)
    weights = torch.linspace(-1, 1, y.numel()).view_as(y)
    return y, *torch.autograd.grad((y.float() * weights).sum(), [x, conv.weight, conv.bias])


@pytest.fixture
def in_fp32_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 shows to the last digits that values are equal; trainings in fp32 keep the plain modules."""
    monkeypatch.setattr(fused, "_is_fused", lambda dtype: dtype != torch.float64)


BF16 = pytest.mark.skipif(
    not fused._is_fused(torch.bfloat16), reason="this processor has no bf16 convolution"
)


@pytest.mark.usefixtures("in_fp32_too")
@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=BF16)], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1)])
def test_equals_the_convolution_and_the_relu_after_it(kernel, stride, bf16):
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 16, kernel, stride=stride, padding=kernel // 2)
    x = torch.randn(3, 5, 9, 9).contiguous(memory_format=torch.channels_last)
    found = values_and_gradients(lambda x: relu_of(conv, x), x, conv, bf16)
    plain = values_and_gradients(lambda x: torch.relu(conv(x)), x, conv, bf16)
    assert type(found[0].grad_fn).__name__ == "_ReluOfConvolutionBackward"
    for a, b in zip(found, plain, strict=True):
        assert a.dtype == b.dtype
        # Sums in another order: half a bf16 step, or a few of fp32.
        torch.testing.assert_close(a, b, rtol=2**-7 if bf16 else 1e-5, atol=1e-2 if bf16 else 1e-5)


def test_without_a_gradient_it_is_the_plain_module():
    conv, x = nn.Conv2d(4, 8, 3), torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        assert torch.equal(relu_of(conv, x), torch.relu(conv(x)))


@pytest.mark.usefixtures("in_fp32_too")
def test_what_the_kernel_is_not_made_for_stays_plain():
    x = torch.randn(2, 4, 6, 6)
    others = (
        nn.Conv2d(4, 8, 3, groups=2),
        nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 8, 3, padding="same"),
    )
    for conv in others:
        assert torch.equal(relu_of(conv, x), torch.relu(conv(x)))
    double = nn.Conv2d(4, 8, 3).double()
    assert torch.equal(relu_of(double, x.double()), torch.relu(double(x.double())))


@pytest.mark.usefixtures("in_fp32_too")
def test_a_frozen_call_moves_the_input_alone():
    layer, x = Relu(nn.Conv2d(4, 8, 3)), torch.randn(2, 4, 6, 6, requires_grad=True)
    frozen(layer)(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert layer.conv.weight.grad is None
    assert layer.conv.bias.grad is None


@pytest.mark.usefixtures("in_fp32_too")
def test_frames_that_need_no_gradient_get_none():
    conv = nn.Conv2d(4, 8, 3)
    relu_of(conv, torch.randn(2, 4, 6, 6)).sum().backward()
    assert conv.weight.grad.shape == conv.weight.shape
    assert conv.weight.grad.is_contiguous()


@pytest.mark.usefixtures("in_fp32_too")
def test_a_hook_on_the_convolution_is_called():
    conv, heard = nn.Conv2d(4, 8, 3), []
    conv.register_forward_hook(lambda module, inputs, output: heard.append(output.shape))
    relu_of(conv, torch.randn(2, 4, 6, 6)).sum().backward()
    assert heard == [(2, 8, 4, 4)]


def test_in_fp32_it_is_the_plain_module():
    conv, x = nn.Conv2d(4, 8, 3), torch.randn(2, 4, 6, 6)
    y = relu_of(conv, x)
    assert type(y.grad_fn).__name__ == "ReluBackward0"
    assert torch.equal(y, torch.relu(conv(x)))

"""torchvision networks as encoders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jepa_world_model.core.errors import UserError
from jepa_world_model.models.backbone import Backbone, group_norm, import_torchvision
from jepa_world_model.models.encoder import Encoder
from tests.models.build import small


@pytest.fixture(scope="module")
def resnet() -> Encoder:
    """One network for all tests: making it costs a second."""
    torch.manual_seed(0)
    return Encoder(small(backbone="resnet18", in_channels=2, image_size=33))


def test_a_resnet_makes_states_of_odd_frames_with_two_channels(resnet):
    z = resnet(torch.rand(2, 2, 33, 33))
    assert z.shape == (2, 12)
    assert z.isfinite().all()


def test_its_norms_do_not_couple_rows(resnet):
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in resnet.modules())
    x = torch.rand(3, 2, 33, 33)
    torch.testing.assert_close(resnet(x)[1:2], resnet(x[1:2]), rtol=1e-3, atol=1e-4)


def test_key_points_come_from_a_map_that_is_fine_enough(resnet):
    assert resnet.trunk.fine_shape == (128, 5)
    assert resnet.trunk.last_shape == (512, 2)


def test_group_norm_fits_every_width():
    assert group_norm(64).num_groups == 32
    assert group_norm(24).num_groups == 8


def test_weights_come_from_a_file_and_statistics_of_batch_norms_are_left_out(tmp_path):
    network = import_torchvision().models.resnet18(weights=None, num_classes=7)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    trunk = Backbone(small(backbone="resnet18", backbone_weights=str(tmp_path / "weights.pt")))
    assert (trunk.stages[0][0].weight == network.conv1.weight).all()
    assert (trunk.stages[4][1].bn2.weight == network.layer4[1].bn2.weight).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet0"}, "torchvision has no model 'resnet0'"),
        ({"backbone": "vgg11"}, "takes no norm_layer"),
        ({"backbone": "resnet18", "backbone_weights": "nowhere.pt"}, "there is no file nowhere.pt"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(changes, message):
    with pytest.raises(UserError, match=message):
        Backbone(small(**changes))


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"lacks conv1\.weight in the shape that resnet18 needs"):
        Backbone(small(backbone="resnet18", backbone_weights=str(tmp_path / "weights.pt")))

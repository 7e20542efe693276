import torch
from torch import nn

from fast.training.stability import change_when_moved, instability_loss
from models.transformer_net import TransformerNet
from tests.conftest import smooth_image


def test_a_pointwise_network_changes_by_the_noise_alone():
    image = torch.full((2, 3, 20, 30), 0.5)
    noise = torch.randn(image.shape)
    change = change_when_moved(nn.Identity(), image, image, (3, 5), noise)
    torch.testing.assert_close(change, 2 / 255 * noise[..., 3:, 5:])


def test_what_is_fixed_in_place_counts_as_change():
    class Grid(nn.Module):
        def forward(self, image):
            columns = torch.arange(image.shape[-1]) % 2
            return image + columns

    image = torch.full((1, 3, 8, 8), 0.5)
    still = torch.zeros(image.shape)
    change = change_when_moved(Grid(), image, Grid()(image), (0, 1), still)
    assert torch.equal(change.abs(), torch.ones(1, 3, 8, 7))


def test_training_on_it_makes_a_network_steadier():
    torch.manual_seed(0)
    net, image = TransformerNet(width=4, num_blocks=1), smooth_image(48, 48)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    values = []
    for seed in range(30):
        loss = instability_loss(net, image, net(image), seed=seed % 3)
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(values[-3:]) < 0.7 * sum(values[:3])

"""The usual implementation, to measure against: float32, NCHW, eager, everything computed every
time.

The network is the one of the common PyTorch examples, the training and the optimisation of one
image theirs with this project's loss network.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from fast.training.photos import Photo
from models.loss_settings import LossSettings
from models.plain_net import PlainNet
from models.transformer_net import TransformerNet
from models.vgg import CAFFE_MEAN, LAYER_NAMES, VGG19Features


class TextbookLoss(nn.Module):
    """Perceptual loss with the whole slice of VGG-19 run on content and result alike; Gram
    matrices, max pooling and zero padding only.
    """

    def __init__(self, settings: LossSettings, style: Tensor) -> None:
        super().__init__()
        self.settings = settings
        wanted = settings.content_layers + settings.style_layers
        self.indices = {name: LAYER_NAMES.index(name) for name in wanted}
        layers = make_layers(cfgs["E"])  # of VGG-19, without the classifier's 500 MB
        self.vgg = layers[: max(self.indices.values()) + 1].requires_grad_(False)
        ours = VGG19Features(wanted, dtype=torch.float64)  # plain convolutions
        for name, conv in ours.convs.items():
            weights = {"weight": conv.kernel, "bias": conv.bias}
            self.vgg[LAYER_NAMES.index(name)].load_state_dict(weights)
        self.vgg.to(style.device)
        self.mean = torch.tensor(CAFFE_MEAN, device=style.device).view(1, 3, 1, 1)
        with torch.no_grad():
            features = self.features(style)
        self.grams = {n: self._gram(features[n]) for n in settings.style_layers}
        self.energies = {n: features[n].square().mean() for n in settings.content_layers}

    def features(self, image: Tensor) -> dict[str, Tensor]:
        x, features = image - self.mean, {}
        for index, module in enumerate(self.vgg):
            x = F.relu(x) if isinstance(module, nn.ReLU) else module(x)
            features |= {n: x for n, i in self.indices.items() if i == index}
        return features

    @staticmethod
    def _gram(features: Tensor) -> Tensor:
        flat = features.flatten(2)
        return flat.bmm(flat.transpose(1, 2)) / (flat.shape[1] * flat.shape[2])

    def forward(self, image: Tensor, content: Tensor) -> Tensor:
        return self.compare(self.features(image), self.features(content))

    def compare(self, features: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        s = self.settings
        content_loss = sum(
            F.mse_loss(features[n], targets[n]) / self.energies[n] for n in s.content_layers
        )
        style_loss = sum(
            (self._gram(features[n]) - self.grams[n]).square().mean()
            / self.grams[n].square().mean()
            for n in s.style_layers
        )
        return s.content_weight * content_loss / len(
            s.content_layers
        ) + s.style_weight * style_loss / len(s.style_layers)


class TextbookPhotos(Dataset[Tensor]):
    """Photos decoded whole, resized, the middle cut out: (3, size, size)."""

    def __init__(self, photos: Sequence[Photo], size: int) -> None:
        self.photos = photos
        self.transform = Compose([Resize(size), CenterCrop(size), ToTensor()])

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.open(BytesIO(self.photos[index].read())).convert("RGB"))


def textbook_training(
    style: Tensor, photos: Sequence[Photo], size: int, batch_size: int
) -> Iterator[TransformerNet]:
    """Adam at 1e-3 without a schedule, photos read in the same process; the network after each
    step, without end.
    """
    ours = TransformerNet(grain=0).to(style.device)
    net, loss = PlainNet(ours), TextbookLoss(LossSettings(), style)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    crops = TextbookPhotos(photos, size)
    while True:
        for content in DataLoader(crops, batch_size, shuffle=True, drop_last=True):
            content = content.to(style.device)
            optimizer.zero_grad()
            loss(net(content), content).backward()
            optimizer.step()
            yield ours


def textbook_optimization(loss: TextbookLoss, content: Tensor, start: Tensor) -> Iterator[float]:
    """L-BFGS with PyTorch's own settings on the pixels at full size; the loss of each evaluation,
    without end.
    """
    with torch.no_grad():
        features = loss.features(content)
    targets = {name: features[name] for name in loss.settings.content_layers}
    image = start.clone(memory_format=torch.contiguous_format).requires_grad_(True)
    optimizer = torch.optim.LBFGS([image])
    losses = []

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        total = loss.compare(loss.features(image), targets)
        total.backward()
        losses.append(total.item())
        return total

    while True:
        optimizer.step(evaluate)
        yield from losses
        losses.clear()

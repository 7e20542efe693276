"""Each project's network as it describes it, with random weights, beside what predict.py makes of
its file.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fast
import predict
from fast import convert, evaluate
from media import read_image, write_image
from models.checkpoint import read_checkpoint
from tests.conftest import smooth_image

WIDTH = 6


def conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels, out_channels, size, stride, padding=size // 2, padding_mode="reflect"
    )


def up_conv(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 3, 2, padding=1, output_padding=1)


def norm(channels: int) -> nn.InstanceNorm2d:
    return nn.InstanceNorm2d(channels, affine=True)


class Named(nn.Module):
    """Modules under the names that they are given."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class Residual(Named):
    """conv1, in1, ReLU, conv2, in2 beside the identity."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.in2(self.conv2(self.in1(self.conv1(x)).relu()))


class RrminaResidual(Named):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x).relu())


class PytorchExamples(nn.Module):
    """Takes and gives RGB from 0 to 255."""

    up_names = ("deconv1", "deconv2", "deconv3")
    mean, std = torch.zeros(3, 1, 1), torch.full((3, 1, 1), 1 / 255)

    def __init__(self, width: int = WIDTH, num_blocks: int = 2) -> None:
        super().__init__()
        channels = (3, width, 2 * width, 4 * width, 2 * width, width)
        self.num_blocks = num_blocks
        for n, (size, stride) in enumerate([(9, 1), (3, 2), (3, 2)], start=1):
            layer = conv(channels[n - 1], channels[n], size, stride)
            self.add_module(f"conv{n}", Named(conv2d=layer))
        for n in range(1, 6):
            self.add_module(f"in{n}", norm(channels[n]))
        for n in range(1, num_blocks + 1):
            layers = {f"conv{i}": Named(conv2d=conv(4 * width, 4 * width, 3)) for i in (1, 2)}
            layers |= {f"in{i}": norm(4 * width) for i in (1, 2)}
            self.add_module(f"res{n}", Residual(**layers))
        for n, name in enumerate(self.up_names[:2], start=3):
            self.add_module(name, self.up_layer(channels[n], channels[n + 1]))
        self.add_module(self.up_names[2], Named(conv2d=conv(width, 3, 9)))

    @staticmethod
    def up_layer(in_channels: int, out_channels: int) -> nn.Module:
        return Named(conv2d=conv(in_channels, out_channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        for n in (1, 2, 3):
            x = self.get_submodule(f"in{n}")(self.get_submodule(f"conv{n}")(x)).relu()
        for n in range(1, self.num_blocks + 1):
            x = self.get_submodule(f"res{n}")(x)
        for n, name in enumerate(self.up_names[:2], start=4):
            x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            x = self.get_submodule(f"in{n}")(self.get_submodule(name)(x)).relu()
        return self.get_submodule(self.up_names[2])(x)

    def paint(self, image: Tensor) -> Tensor:
        return self((image - self.mean) / self.std) * self.std + self.mean


class Gordicaleksa(PytorchExamples):
    """The same with other names, ImageNet's normalisation, and a dictionary around it."""

    up_names = ("up1", "up2", "up3")
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    @staticmethod
    def up_layer(in_channels: int, out_channels: int) -> nn.Module:
        return Named(conv2d=Named(conv2d=conv(in_channels, out_channels, 3)))


class Rrmina(nn.Module):
    """Takes and gives BGR from 0 to 255."""

    def __init__(self, width: int = WIDTH, num_blocks: int = 2) -> None:
        super().__init__()

        def layer(*args: int) -> nn.Module:
            return Named(conv_layer=conv(*args), norm_layer=norm(args[1]))

        def up_layer(*args: int) -> nn.Module:
            return Named(conv_transpose=up_conv(*args), norm_layer=norm(args[1]))

        def block() -> nn.Module:
            layers = (layer(4 * width, 4 * width, 3) for _ in range(2))
            return RrminaResidual(**dict(zip(("conv1", "conv2"), layers, strict=True)))

        self.ConvBlock = nn.Sequential(
            *(layer(3, width, 9), nn.ReLU()),
            *(layer(width, 2 * width, 3, 2), nn.ReLU()),
            *(layer(2 * width, 4 * width, 3, 2), nn.ReLU()),
        )
        self.ResidualBlock = nn.Sequential(*(block() for _ in range(num_blocks)))
        self.DeconvBlock = nn.Sequential(
            *(up_layer(4 * width, 2 * width), nn.ReLU()),
            *(up_layer(2 * width, width), nn.ReLU()),
            Named(conv_layer=conv(width, 3, 9)),
        )

    def paint(self, image: Tensor) -> Tensor:
        x = self.ResidualBlock(self.ConvBlock(255 * image.flip(1)))
        return self.DeconvBlock(x).flip(1) / 255


class Clipmorph(nn.Module):
    """Takes RGB from 0 to 255, divides it by 255, gives a sigmoid times 255."""

    def __init__(self, width: int = WIDTH, num_blocks: int = 2) -> None:
        super().__init__()

        def layer(*args: int) -> tuple[nn.Module, ...]:
            return Named(conv2d=conv(*args)), norm(args[1]), nn.ReLU()

        def up_layer(*args: int) -> tuple[nn.Module, ...]:
            return Named(convTrans=up_conv(*args)), norm(args[1]), nn.ReLU()

        def block() -> nn.Module:
            layers = {f"conv{i}": Named(conv2d=conv(4 * width, 4 * width, 3)) for i in (1, 2)}
            return Residual(**layers, **{f"in{i}": norm(4 * width) for i in (1, 2)})

        self.convBlock = nn.Sequential(
            *layer(3, width, 9),
            *layer(width, 2 * width, 3, 2),
            *layer(2 * width, 4 * width, 3, 2),
        )
        self.residualBlock = nn.Sequential(*(block() for _ in range(num_blocks)))
        self.convTransBlock = nn.Sequential(
            *up_layer(4 * width, 2 * width),
            *up_layer(2 * width, width),
            Named(conv2d=conv(width, 3, 9)),
        )
        self.normalization = norm(3)  # of an older version, never used

    def paint(self, image: Tensor) -> Tensor:
        x = 255 * image / 255
        return self.convTransBlock(self.residualBlock(self.convBlock(x))).sigmoid()


NETWORKS = (PytorchExamples, Gordicaleksa, Rrmina, Clipmorph)


def random_network(kind: type[nn.Module], **arguments: int) -> nn.Module:
    """A network with a normalisation unlike the identity and a painting of medium contrast."""
    torch.manual_seed(0)
    net = kind(**arguments).eval().requires_grad_(False)
    for module in net.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
    last = [module for module in net.modules() if isinstance(module, nn.Conv2d)][-1]
    if kind in (PytorchExamples, Rrmina):
        last.weight.mul_(60)
        last.bias.fill_(120)
    return net


def save(net: nn.Module, path: Path) -> Path:
    stored = net.state_dict()
    if isinstance(net, Gordicaleksa):
        stored = {
            "commit_hash": "1234abcd",
            "content_weight": 1.0,
            "style_weight": 4e5,
            "num_of_datapoints": 32000,
            "state_dict": stored,
            "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.001}]},
        }
    torch.save(stored, path)
    return path


@pytest.mark.parametrize("size", [(40, 48), (41, 50), (23, 39)])
@pytest.mark.parametrize("kind", NETWORKS)
def test_painting_is_what_the_other_project_paints(kind, size, tmp_path):
    net = random_network(kind)
    image = smooth_image(*size)
    expected = net.paint(image)[..., : size[0], : size[1]]  # theirs is rounded up
    model = fast.load(save(net, tmp_path / "other.pth"), device="cpu", precision="float32")
    painted = model(image)
    assert painted.shape == image.shape
    assert 0.02 < expected.clamp(0, 1).std() and 0.2 < expected.mean() < 0.8
    assert (painted - expected.clamp(0, 1)).abs().max() < 1e-4


@pytest.mark.parametrize(("width", "num_blocks"), [(2, 1), (8, 4)])
@pytest.mark.parametrize("kind", NETWORKS)
def test_any_width_and_number_of_blocks(kind, width, num_blocks, tmp_path):
    net = random_network(kind, width=width, num_blocks=num_blocks)
    read = read_checkpoint(save(net, tmp_path / "other.pth"))
    assert read.arguments["width"] == width and read.arguments["num_blocks"] == num_blocks
    image = smooth_image(24, 28)
    torch.testing.assert_close(read.build()(image), net.paint(image), rtol=1e-3, atol=1e-5)


def test_statistics_that_old_versions_saved_are_passed_over(tmp_path):
    net = random_network(PytorchExamples)
    stored = net.state_dict()
    for name in [name for name in stored if name.endswith(".weight") and ".in" in f".{name}"]:
        statistics = torch.full_like(stored[name], float("nan"))
        stored[name.replace("weight", "running_mean")] = statistics
        stored[name.replace("weight", "running_var")] = statistics
    torch.save(stored, tmp_path / "old.model")
    image = smooth_image(24, 28)
    painted = read_checkpoint(tmp_path / "old.model").build()(image)
    torch.testing.assert_close(painted, net.paint(image), rtol=1e-3, atol=1e-5)


def without(stored: dict, *names: str) -> dict:
    return {name: value for name, value in stored.items() if name not in names}


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda s: without(s, "in3.weight"), "pytorch/examples, but in3.weight is missing"),
        (lambda s: without(s, "conv1.conv2d.weight", "in1.bias"), "are missing"),
        (
            lambda s: {n: w for n, w in s.items() if not n.startswith("res1.")},
            "res1.conv1.conv2d.weight, res1.conv2.conv2d.weight, res1.in1.bias and 3 more are",
        ),
        (lambda s: without(s, "res2.conv1.conv2d.weight"), "res2.conv1.conv2d.weight is missing"),
        (lambda s: s | {"in1.num_batches_tracked": torch.tensor(3)}, "is unknown there"),
        (lambda s: s | {"attention.weight": s["in1.weight"]}, "attention.weight is unknown there"),
        (lambda s: s | {"in1.bias": 3}, "in1.bias is no tensor"),
        (
            lambda s: s | {"conv2.conv2d.weight": torch.ones(5, 6, 3, 3)},
            r"conv2.conv2d.weight is of shape \(5, 6, 3, 3\), not \(12, 6, 3, 3\)",
        ),
        (lambda s: s | {"conv1.conv2d.weight": torch.tensor(1.0)}, r"is of shape \(\), not"),
        (lambda s: s | {"in1.bias": torch.full((6,), float("nan"))}, "not finite"),
        (
            lambda s: s | {"in1.bias": torch.ones(6, dtype=torch.complex64)},
            "is no tensor of",
        ),
        (
            lambda s: s | {"conv1.conv2d.weight": torch.ones(1).expand(10**9, 3, 9, 9)},
            "claims 972000\\d+ bytes of weights and is",
        ),
        (lambda s: {"features.0.weight": torch.ones(64, 3, 3, 3)}, "holds features.0.weight"),
        (lambda s: {"res999999999.conv1.conv2d.weight": torch.ones(1)}, "holds res999999999"),
    ],
)
def test_a_file_that_cannot_be_used_is_described_in_one_line(damage, what, tmp_path):
    path = tmp_path / "other.pth"
    torch.save(damage(random_network(PytorchExamples).state_dict()), path)
    with pytest.raises(ValueError, match=what) as error:
        fast.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


class Commit:
    """Something in the dictionary around the weights that is no number, text or tensor."""


def test_metadata_that_would_run_code_are_refused_by_name(tmp_path):
    stored = {"commit": Commit(), "state_dict": random_network(Gordicaleksa).state_dict()}
    torch.save(stored, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"is refused: .*Commit"):
        read_checkpoint(tmp_path / "other.pth")


def test_predict_paints_with_another_projects_file(run, tmp_path):
    model = save(random_network(Rrmina), tmp_path / "mosaic.pth")
    write_image(tmp_path / "photo.png", smooth_image(21, 30))
    output = tmp_path / "painted.png"
    code, out, _ = run(predict, tmp_path / "photo.png", "--model", model, "-o", output)
    assert code == 0 and out.split() == [str(output)]
    assert read_image(output).rgb.shape == (1, 3, 21, 30)


@pytest.mark.parametrize("kind", NETWORKS)
def test_converted_file_paints_the_same_and_tells_of_itself(run, kind, tmp_path):
    source = save(random_network(kind), tmp_path / "other.model")
    target = tmp_path / "ours.pth"
    arguments = (source, "-o", target, "--title", "Waves", "--licence", "CC0")
    code, out, _ = run(convert, *arguments)
    assert code == 0 and out.split() == [str(target)]
    converted, read = read_checkpoint(target), read_checkpoint(source)
    assert converted.style == {"title": "Waves", "licence": "CC0"}
    assert "/" in converted.training["project"]
    assert (converted.training.get("style_weight") == 4e5) == (kind is Gordicaleksa)
    image = smooth_image(24, 28)
    assert torch.equal(converted.build()(image), read.build()(image))


def test_conversion_keeps_an_existing_file_and_needs_a_model(run, tmp_path):
    source = save(random_network(Clipmorph), tmp_path / "other.pth")
    target = tmp_path / "ours.pth"
    target.write_bytes(b"precious")
    code, _, err = run(convert, source, "-o", target)
    assert code == 2 and "--force" in err and target.read_bytes() == b"precious"
    source.write_bytes(b"<html>Not found</html>")
    code, out, err = run(convert, source, "-o", target, "--force")
    assert code == 2 and "HTML" in err and not out and target.read_bytes() == b"precious"


def test_converted_file_is_called_as_a_checkpoint(run, tmp_path):
    source = save(random_network(Clipmorph), tmp_path / "other.model")
    code, out, err = run(convert, source, "-o", tmp_path / "ours.png")
    assert code == 2 and not out and not (tmp_path / "ours.png").exists()
    assert err.splitlines() == [f"error: -o {tmp_path / 'ours.png'}: the name must end in .pth"]


def test_another_project_s_network_is_measured_by_the_usual_losses(run, tmp_path):
    model = save(random_network(PytorchExamples), tmp_path / "other.pth")
    write_image(tmp_path / "style.png", smooth_image(80, 80, seed=7))
    write_image(tmp_path / "photo.png", smooth_image(48, 40))
    arguments = ["--model", model, "--data", tmp_path, "--size", "48", "--max-iterations", "0"]
    code, _, err = run(evaluate, *arguments)
    assert code == 2 and "--style" in err
    arguments += ["--style", tmp_path / "style.png"]
    code, _, err = run(evaluate, *arguments, "--write")
    assert code == 2 and "--write" in err
    code, _, _ = run(evaluate, *arguments, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())[str(model)]
    expected = figures["content"] + 10 * figures["style"]
    assert code == 0 and figures["total"] == pytest.approx(expected)
    assert figures["instability"] > 0 and list(figures["each"]) == ["photo.png", "style.png"]

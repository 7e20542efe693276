import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import vgg19

from fast.catalogue import SAMPLES
from media import read_image
from models.vgg import (
    CONVS_PER_BLOCK,
    LAYER_NAMES,
    WEIGHTS,
    VGG19Features,
    num_channels,
    stride,
)

# Positions in torchvision's vgg19().features, counted by hand from the paper's table
# (configuration E).
CONV_INDICES = {
    "conv1_1": 0, "conv1_2": 2,
    "conv2_1": 5, "conv2_2": 7,
    "conv3_1": 10, "conv3_2": 12, "conv3_3": 14, "conv3_4": 16,
    "conv4_1": 19, "conv4_2": 21, "conv4_3": 23, "conv4_4": 25,
    "conv5_1": 28, "conv5_2": 30, "conv5_3": 32, "conv5_4": 34,
}  # fmt: skip


@pytest.fixture(scope="module")
def photo():
    return read_image(SAMPLES / "photos" / "astronaut.jpg", long_side=96).rgb


@pytest.fixture(scope="module")
def torchvision_net():
    """Torchvision's module list with the bundled weights, decoded here."""
    net = vgg19(weights=None).features.requires_grad_(False)
    stored = load_file(WEIGHTS)
    for name, index in CONV_INDICES.items():
        indices = stored[f"{name}.index"]
        net[index].weight.data = stored[f"{name}.table"][indices.long().flatten()].view(
            indices.shape
        )
        net[index].bias.data = stored[f"{name}.bias"]
    return net


def torchvision_features(net, photo):
    red, green, blue = (photo * 255).unbind(1)
    x = torch.stack([blue - 103.939, green - 116.779, red - 123.68], dim=1)
    features = {}
    for name, module in zip(LAYER_NAMES, net, strict=True):
        x = module(x)
        features[name] = x.clone()  # torchvision's ReLUs work in place
    return features


@pytest.fixture(scope="module")
def reference(photo, torchvision_net):
    """Features by torchvision's module list, with preprocessing done here."""
    return torchvision_features(torchvision_net, photo)


def test_layer_names_stand_for_torchvision_indices():
    convs = [name for name in LAYER_NAMES if name.startswith("conv")]
    assert {name: LAYER_NAMES.index(name) for name in convs} == CONV_INDICES
    assert len(LAYER_NAMES) == 37 and sum(CONVS_PER_BLOCK) == 16
    for name, index in CONV_INDICES.items():
        assert LAYER_NAMES.index(name.replace("conv", "relu")) == index + 1


def test_features_equal_an_independent_evaluation(photo, reference):
    features = VGG19Features(LAYER_NAMES)(photo)
    assert list(features) == list(LAYER_NAMES)
    for name in LAYER_NAMES:
        error = (features[name] - reference[name]).norm() / reference[name].norm()
        assert error < 1e-4, name


@pytest.mark.parametrize(
    "layers",
    [("relu3_1",), ("conv1_2", "relu2_2", "conv3_1"), ("relu1_2", "pool2"), ("pool1", "relu3_4")],
)
def test_gradient_equals_an_independent_one(photo, torchvision_net, layers):
    """Of sides that pooling does not divide; where features are 0, and where they are pooled."""
    gradients = []
    for features_of in (VGG19Features(layers), lambda x: torchvision_features(torchvision_net, x)):
        image = photo[..., :93, :75].clone().requires_grad_(True)
        features = features_of(image)
        sum(features[layer].square().mean() + features[layer].mean() for layer in layers).backward()
        gradients.append(image.grad)
    result, expected = gradients
    assert (result - expected).norm() < 1e-4 * expected.norm()


# Means over the photo of 96 px, from torchvision's module list with the decoded weights (see
# `reference`).
KNOWN_MEANS = {
    "relu1_2": 143.04,
    "relu2_2": 201.50,
    "relu3_3": 642.74,
    "relu4_3": 400.92,
    "relu5_1": 94.299,
}


@pytest.mark.parametrize("layer", KNOWN_MEANS)
def test_known_mean_activation_of_each_block(photo, layer):
    mean = VGG19Features([layer])(photo)[layer].mean().item()
    assert mean == pytest.approx(KNOWN_MEANS[layer], rel=1e-3)


def test_network_ends_at_the_deepest_layer_and_the_pass_at_the_deepest_wanted():
    vgg = VGG19Features(["relu1_1", "relu2_1"])
    assert set(vgg.convs) == {"conv1_1", "conv1_2", "conv2_1"}
    features = vgg(torch.rand(2, 3, 16, 24), ["relu1_1"])
    assert {name: tuple(f.shape) for name, f in features.items()} == {"relu1_1": (2, 64, 16, 24)}


def test_weights_are_frozen_even_after_train():
    vgg = VGG19Features(["relu1_1"]).train()
    tensors = [*vgg.parameters(), *vgg.buffers()]
    assert tensors and not vgg.training and not any(t.requires_grad for t in tensors)


@pytest.mark.parametrize(
    ("dtype", "scale", "error"), [(torch.bfloat16, 1, 0.03), (torch.float16, 1 / 64, 0.01)]
)
def test_features_of_half_precision_are_close(photo, dtype, scale, error):
    layers = ["relu1_2", "relu4_3"]
    exact, rounded = VGG19Features(layers)(photo), VGG19Features(layers, dtype=dtype)(photo)
    for layer in layers:
        assert rounded[layer].dtype == dtype
        expected = scale * exact[layer]
        assert (rounded[layer] - expected).norm() < error * expected.norm()


@pytest.mark.parametrize("layers", [["relu9_9"], ["conv3"], []])
def test_unknown_layers_are_named(layers):
    with pytest.raises(ValueError, match="layer"):
        VGG19Features(layers)


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match="at least 8 px"):
        VGG19Features(["relu4_1"])(torch.rand(1, 3, 7, 40))


@pytest.mark.parametrize(
    ("name", "choices"), [("pooling", "max, average, l2"), ("padding", "zeros, replicate")]
)
def test_unknown_pooling_and_padding_are_refused_before_weights_are_read(name, choices):
    with pytest.raises(ValueError, match=f"unknown {name} 'foo'; choose {choices}"):
        VGG19Features(["relu1_1"], weights="not read", **{name: "foo"})


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match="original or torchvision"):
        VGG19Features(["relu1_1"], weights="other")


def test_torchvision_weights_give_features_of_the_same_scale(monkeypatch, photo, reference):
    """The original weights in torchvision's convention must come back at their scale."""
    import torchvision.models

    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    stored = load_file(WEIGHTS)
    state = {}
    for name, index in CONV_INDICES.items():
        weight = stored[f"{name}.table"][stored[f"{name}.index"].long()]
        bias = stored[f"{name}.bias"]
        # A network of inputs 57 times smaller has biases 57 times smaller.
        scale = 255 * 0.226
        state[f"features.{index}.weight"] = (
            weight.flip(1) * 255 * std / scale if name == "conv1_1" else weight
        )
        state[f"features.{index}.bias"] = bias / scale
    fake = type("Weights", (), {"get_state_dict": staticmethod(lambda **_: state)})
    monkeypatch.setattr(
        torchvision.models, "VGG19_Weights", type("Enum", (), {"IMAGENET1K_V1": fake})
    )
    # The means differ between the two conventions; shift the image so that the network sees the
    # same.
    shift = torch.tensor([0.485 - 123.68 / 255, 0.456 - 116.779 / 255, 0.406 - 103.939 / 255])
    features = VGG19Features(["relu3_1"], weights="torchvision")(photo + shift.view(1, 3, 1, 1))
    error = (features["relu3_1"] - reference["relu3_1"]).norm() / reference["relu3_1"].norm()
    assert error < 1e-3


def test_failed_download_says_what_to_do(monkeypatch):
    import torchvision.models

    def fail(**_):
        raise OSError("no network")

    fake = type("Weights", (), {"get_state_dict": staticmethod(fail)})
    monkeypatch.setattr(
        torchvision.models, "VGG19_Weights", type("Enum", (), {"IMAGENET1K_V1": fake})
    )
    with pytest.raises(OSError, match="--vgg original"):
        VGG19Features(["relu1_1"], weights="torchvision")


def test_size_and_channels_of_every_layer():
    with torch.no_grad():
        features = VGG19Features(LAYER_NAMES)(torch.rand(1, 3, 32, 64))
    for layer in LAYER_NAMES:
        step = stride(layer)
        assert features[layer].shape == (1, num_channels(layer), 32 // step, 64 // step)

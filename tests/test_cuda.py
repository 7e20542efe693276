"""What is computed in another way on a GPU: python -m pytest -m gpu."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

import fast
import slow
from fast import at_once
from fast.stylize import load_net, set_precision, stylize
from fast.training.job import train
from fast.training.learner import Learner, Schedule
from fast.training.losses import BatchLosses
from fast.training.settings import TrainingSettings
from media import as_bytes, write_image
from models.checkpoint import read_checkpoint
from models.instance_norm import InstanceNorm
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss
from models.style import gram_matrix
from models.transformer_net import TransformerNet
from tests.conftest import SHALLOW, assert_same_gradients, smooth_image

pytestmark = pytest.mark.gpu

SETTINGS = TrainingSettings(
    steps=6, batch_size=2, image_size=96, first_size=64, style_size=96, width=8, num_blocks=1
)


@pytest.fixture
def job(tmp_path, photos):
    """The arguments of a small training on the GPU."""
    write_image(tmp_path / "style.png", smooth_image(96, 80, seed=9))
    AcceleratorState._reset_state(reset_partial_state=True)
    yield {
        "style": tmp_path / "style.png",
        "data": photos,
        "settings": SETTINGS,
        "loss": SHALLOW,
        "accelerator": Accelerator(),
    }
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16", "auto"])
@pytest.mark.parametrize("max_memory", [None, 1])
def test_paints_like_the_cpu(precision, max_memory):
    """At once, and in bands with feature maps in files."""
    image = smooth_image(65, 90)
    expected = stylize(load_net("starry_night", device="cpu", precision="float32"), image)
    net = load_net("starry_night", device="cuda", precision=precision)
    for photo in (image, image.cuda()):
        painted = stylize(net, photo, max_memory=max_memory)
        assert painted.device == photo.device
        assert (painted.cpu() - expected).abs().mean() < 0.03


def test_model_takes_all_its_settings(tiny_model):
    image = as_bytes(smooth_image(40, 50))
    model = fast.load(tiny_model)
    assert model(image).dtype == torch.uint8
    assert model(image, strength=0.5, stroke=2.0, preserve_color=True).shape == image.shape


def test_frames_of_a_video_are_painted_like_single_photos():
    """By a recording from the third on; again after another size and in another precision."""
    net = load_net("starry_night", device="cuda", precision="bfloat16")
    frames = [smooth_image(64, 80, seed=seed) for seed in range(5)]
    for frame in (*frames, smooth_image(70, 66), *frames):
        alone = stylize(load_net("starry_night", device="cuda", precision="bfloat16"), frame)
        assert (stylize(net, frame) - alone).abs().max() < 0.02
    assert at_once._last[net].recording
    set_precision(net, torch.float16)
    alone = load_net("starry_night", device="cuda", precision="bfloat16")
    alone = stylize(set_precision(alone, torch.float16), frames[0])
    assert (stylize(net, frames[0]) - alone).abs().max() < 0.005


@pytest.mark.parametrize("with_triton", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_instance_norm_is_that_of_the_cpu(batch, with_triton, monkeypatch):
    monkeypatch.setattr("models.gpu_kernels._runs_triton", lambda device: with_triton)
    x = torch.randn(batch, 8, 5, 6).to(memory_format=torch.channels_last).requires_grad_(True)
    norm = InstanceNorm(8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    inputs = x, norm.weight, norm.bias
    expected = norm(x)
    on_cpu = torch.autograd.grad(expected.pow(3).sum(), inputs)
    norm.cuda()
    result = norm(x.cuda()).cpu()
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    on_gpu = torch.autograd.grad(result.pow(3).sum(), (x, *norm.parameters()))
    for grad, expected_grad in zip(on_gpu, on_cpu, strict=True):
        torch.testing.assert_close(grad.cpu(), expected_grad, rtol=1e-3, atol=1e-3)


def test_network_in_training_is_that_of_the_cpu():
    torch.manual_seed(0)
    net, image = TransformerNet(width=8, num_blocks=1), smooth_image(45, 50)
    image = torch.cat((image, smooth_image(45, 50, seed=1))).requires_grad_(True)
    expected = net(image)
    on_cpu = torch.autograd.grad(expected.square().mean(), (image, *net.parameters()))
    net.cuda()
    result = net(image.cuda())
    on_gpu = torch.autograd.grad(result.square().mean(), (image, *net.parameters()))
    torch.testing.assert_close(result.cpu(), expected, rtol=1e-2, atol=1e-2)
    for grad, expected_grad in zip(on_gpu, on_cpu, strict=True):  # convolved in TF32
        assert (grad.cpu() - expected_grad).norm() < 0.2 * expected_grad.norm() + 1e-6


@pytest.mark.parametrize("size", [(9, 11), (96, 128)], ids=["whole", "in parts"])
def test_gram_matrix_of_bfloat16_is_exact(size):
    features = torch.randn(2, 16, *size).bfloat16().cuda().requires_grad_(True)
    result, expected = gram_matrix(features), gram_matrix(features.float())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)
    assert_same_gradients(result, expected, (features,), rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_in_half_precision_is_about_that_of_float32(dtype):
    settings, style, image = LossSettings(), smooth_image(96, 80), smooth_image(64, 70, seed=1)
    results = []
    for precision in (torch.float32, dtype):
        loss = PerceptualLoss(settings, [style.cuda()], dtype=precision)
        painting = smooth_image(64, 70, seed=2).cuda().requires_grad_(True)
        total = loss(painting, loss.content_targets(image.cuda())).total
        results.append((total.detach(), *torch.autograd.grad(total, painting)))
    (total, grad), (half_total, half_grad) = results
    assert abs(half_total / total - 1) < 0.02
    assert (half_grad - grad).norm() < 0.3 * grad.norm()


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_recorded_steps_are_those_of_single_kernels(job, tmp_path, monkeypatch, precision):
    """Also when the crops grow, and from one checkpoint to the next."""
    AcceleratorState._reset_state(reset_partial_state=True)
    job["accelerator"] = Accelerator(mixed_precision=precision)
    logs = {"recorded": [], "single": []}
    for name, log in logs.items():
        if name == "single":
            monkeypatch.setattr(BatchLosses, "backward", BatchLosses._compute)
            monkeypatch.setattr(Learner, "_replay", Learner._apply)
        train(**job, output=tmp_path / f"{name}.pth", save_every=2, callback=log.append)
    recorded, single = logs.values()
    assert recorded[0].loss == pytest.approx(single[0].loss, rel=0.01)
    assert recorded[-1].loss == pytest.approx(single[-1].loss, rel=0.05)
    assert recorded[-1].loss < 0.95 * recorded[0].loss


def test_recorded_updates_follow_the_rate_and_a_loaded_state():
    weights = []
    for is_recorded in (True, False):
        torch.manual_seed(0)
        net = TransformerNet(width=8, num_blocks=1)
        learner = Learner(net, Schedule(0.03, 0, 10), Accelerator())
        learner.is_recorded = is_recorded
        for step in range(8):
            if step == 3:
                learner.factor = 0.5
            if step == 5:
                learner.load_state(*learner.state())
            for weight in net.parameters():
                weight.grad = torch.randn_like(weight)
            learner.update(step, torch.zeros((), device="cuda"))
        assert bool(learner.recording) == is_recorded
        weights.append([weight.detach() for weight in net.parameters()])
    for recorded, single in zip(*weights, strict=True):
        torch.testing.assert_close(recorded, single, rtol=1e-3, atol=1e-5)


def test_training_goes_on(job, tmp_path):
    job["output"] = tmp_path / "style.pth"

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(**job, callback=stop)
    assert read_checkpoint(job["output"]).training["step"] == 1
    done = train(**job, resume=True)
    assert done.training["step"] == 6 and done.figures


@pytest.mark.parametrize("change", [{"stability": 10.0}, {"batch_size": 1, "accumulation": 2}])
def test_what_is_not_recorded_is_trained_too(job, tmp_path, change):
    job["settings"] = replace(SETTINGS, steps=2, **change)
    losses = []
    train(**job, output=tmp_path / "style.pth", callback=lambda p: losses.append(p.loss))
    assert losses[-1] < losses[0]


def test_slow_path_lowers_its_loss():
    losses = []
    slow.stylize(
        smooth_image(96, 80).cuda(),
        [smooth_image(96, 80, seed=1).cuda()],
        slow.SlowSettings(steps=12, size=96),
        dtype=torch.bfloat16,
        callback=lambda iterate: losses.append(iterate.loss),
    )
    assert losses[-1] < 0.7 * losses[0]

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

import cli
from fast.training.progress import Clock
from fast.training.settings import TrainingSettings
from media import write_image
from models.checkpoint import Checkpoint
from models.int8 import is_exact
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss
from models.transformer_net import TransformerNet
from slow.objective import Objective, tiled_objective

NEEDS_INT8 = pytest.mark.skipif(
    not is_exact(torch.device("cpu")), reason="8-bit integers are not convolved correctly"
)
SHALLOW = LossSettings(content_layers=("relu2_1",), style_layers=("relu1_1", "relu2_1"))
SETTINGS = TrainingSettings(
    steps=6, batch_size=2, image_size=32, style_size=48, width=4, num_blocks=1, warmup_steps=1
)

# Triton's kernels are interpreted where no GPU can run them; it reads this when it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Jobs that a shell starts in the background ignore Ctrl-C, and so would the commands tested here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def smooth_image(height: int, width: int, *, seed: int = 0) -> Tensor:
    """(1, 3, H, W): random colours that change slowly, as a stand-in for a photo."""
    small = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(
        small, (height, width), mode="bicubic", align_corners=True
    )
    return image.clamp(0, 1)


def whole_image(loss: PerceptualLoss, content: Tensor) -> Objective:
    """The objective of the slow path, without tiles."""
    return tiled_objective(loss, content, max(content.shape[-2:]))


def assert_same_gradients(
    result: Tensor, expected: Tensor, inputs: tuple[Tensor, ...], *, rtol: float, atol: float
) -> None:
    """Two ways to compute the same pass on the same gradients to their inputs."""
    incoming = torch.randn_like(expected)
    for grad, expected_grad in zip(
        torch.autograd.grad(result, inputs, incoming),
        torch.autograd.grad(expected, inputs, incoming),
        strict=True,
    ):
        torch.testing.assert_close(grad, expected_grad, rtol=rtol, atol=atol)


def make_parquet(photos: Path, path: Path) -> None:
    """Write the photos of a folder as a table."""
    import datasets

    rows = [{"bytes": p.read_bytes(), "path": p.name} for p in sorted(photos.iterdir())]
    columns = {"label": list(range(len(rows))), "picture": rows}
    kinds = datasets.Features({"label": datasets.Value("int32"), "picture": datasets.Image()})
    datasets.Dataset.from_dict(columns, features=kinds).to_parquet(str(path))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three small photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        write_image(folder / f"{number}.png", smooth_image(48, 60, seed=number))
    return folder


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """The checkpoint of a network that paints in no time, nothing nice."""
    torch.manual_seed(0)
    net = TransformerNet(width=4, num_blocks=1)
    path = tmp_path / "tiny.pth"
    path.write_bytes(Checkpoint(arguments=net.arguments, weights=net.state_dict()).to_bytes())
    return path


@pytest.fixture
def job(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The arguments of a small training."""
    monkeypatch.setattr("fast.training.job.SHOWN_SIZE", 64)
    write_image(tmp_path / "style.png", smooth_image(60, 48, seed=9))
    write_image(photos / "fourth.png", smooth_image(40, 40, seed=8))
    AcceleratorState._reset_state(reset_partial_state=True)  # of a command line, see run
    return {
        "style": tmp_path / "style.png",
        "data": photos,
        "output": tmp_path / "style.pth",
        "settings": SETTINGS,
        "loss": SHALLOW,
        "accelerator": Accelerator(cpu=True),
        "num_workers": 0,
    }


@pytest.fixture
def report_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "is_due", lambda self: True)


@pytest.fixture
def data_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The library `datasets` without a cache at home and without waiting for its threads."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    """Run a command line in this process: run(module, *arguments) -> (exit code, stdout,
    stderr)."""

    def run_command(module: ModuleType, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        # Accelerate lets a process choose its precision once; a command line has one of its own.
        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(SystemExit) as stop:
            cli.run(module.main)
        return stop.value.code, *capsys.readouterr()

    return run_command

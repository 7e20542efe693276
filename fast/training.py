"""Training a TransformerNet for one style (Johnson et al., arXiv 1603.08155)."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.optim import Adam
from torch.utils.data import DataLoader

from fast.data import PhotoCrops, find_photos
from fast.muon import Muon
from fast.stylize import stylize
from media import read_image, write_atomically, write_image
from models.checkpoint import Checkpoint, read_checkpoint
from models.losses import LossSettings, PerceptualLoss
from models.transformer_net import TransformerNet

OPTIMIZERS = ("muon", "adam")
SIZE_STEP = 32  # px by which the crops grow at once


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """All that decides what the trained network becomes, beside the losses and the pictures.

    Args:
        steps: optimiser steps.
        batch_size: crops per step in each process.
        image_size: side of the square crops at the end in px.
        first_size: side of the crops at the first step in px; they grow, slowly at first, for much
            is learned sooner from small ones.
        style_size: longer side of the style image in px; larger means larger strokes.
        learning_rate: at its highest, as a share of a convolution's norm; rises over warmup_steps
            and falls to 0 as a cosine. What has no norm of its own follows with Adam.
        warmup_steps: steps until the learning rate is at its highest.
        width: channels of the network's first layer.
        num_blocks: residual blocks of the network.
        seed: of the weights and of the order and crops of the photos.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 20_000
    batch_size: int = 4
    image_size: int = 256
    first_size: int = 128
    style_size: int = 384
    learning_rate: float = 0.03
    warmup_steps: int = 100
    width: int = 32
    num_blocks: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "width", "num_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("image_size", "first_size", "style_size"):
            if getattr(self, name) < 32:
                raise ValueError(f"{name} must be 32 px or more, not {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")
        if self.seed < 0 or self.warmup_steps < 0:
            raise ValueError("seed and warmup_steps must be 0 or more")


@dataclass(frozen=True)
class TrainingProgress:
    """One step: its number from 1, the loss terms, images per second since the last report."""

    step: int
    loss: float
    content: float
    style: float
    tv: float
    images_per_second: float


def train(
    style: Path,
    data: Path,
    output: Path,
    *,
    settings: TrainingSettings,
    loss: LossSettings,
    accelerator: Accelerator,
    init_from: Path | None = None,
    resume: bool = False,
    save_every: int = 500,
    num_workers: int = 0,
    credits: dict[str, str] | None = None,
    callback: Callable[[TrainingProgress], None] | None = None,
) -> Checkpoint:
    """Train a style and write its checkpoint; a preview picture is kept beside it.

    Args:
        style: style image file.
        data: folder of photos, searched with the folders in it.
        output: `.pth` to write, every save_every steps and at the end or on Ctrl-C.
        settings: network, data and schedule.
        loss: layers and weights of the perceptual loss.
        accelerator: devices, processes and mixed precision.
        init_from: checkpoint whose weights to start from: a new style is learned sooner.
        resume: go on from `output` if it exists.
        save_every: steps between two checkpoints.
        num_workers: processes that read photos; 0 reads them in this one.
        credits: title, artist and licence of the style image, kept in the checkpoint.
        callback: called on the main process about every second, with that process's own losses. A
            KeyboardInterrupt from it ends the training between two steps, with a checkpoint.

    Returns:
        The finished checkpoint, as written.

    Raises:
        ValueError: unusable style, data or settings; or `output` holds another training.
        FloatingPointError: the loss is not finite; the last good checkpoint stays.
        OSError: a file cannot be read or written.
    """
    photos = find_photos(data)
    names = "\n".join(str(photo.relative_to(data)) for photo in photos)
    style_image = read_image(style, long_side=settings.style_size).rgb
    torch.manual_seed(settings.seed)
    net = TransformerNet(width=settings.width, num_blocks=settings.num_blocks)
    checkpoint = Checkpoint(
        arguments=net.arguments,
        weights={},
        style={
            "file": style.name,
            "sha256": _sha256(style.read_bytes()),
            **(credits or {}),
        },
        loss=_plain(asdict(loss)),
        training={
            **asdict(settings),
            "data": _sha256(names.encode()),
            "init_from": _sha256(init_from.read_bytes()) if init_from else "",
            "mixed_precision": accelerator.mixed_precision,
            "processes": accelerator.num_processes,
            "step": 0,
        },
    )
    if init_from:
        initial = read_checkpoint(init_from)
        if initial.arguments != checkpoint.arguments:
            raise ValueError(
                f"--init-from {init_from} is a network of {initial.arguments}, this training's has "
                f"{checkpoint.arguments}: set --width and --num-blocks"
            )
        net.load_state_dict(initial.build().state_dict())

    # Hosts need not share a disk: the main process reads for all.
    [saved] = broadcast_object_list(
        [read_checkpoint(output)]
        if resume and accelerator.is_main_process and output.exists()
        else [None]
    )
    first_step = 0
    if saved:
        _check_same_training(saved, checkpoint, output)
        first_step = saved.training.get("step", 0)
        if first_step == settings.steps:
            return saved
        if not saved.resume_state:
            raise ValueError(f"{output} holds no unfinished training")
        net.load_state_dict(saved.build().state_dict())
    device = accelerator.device
    global_batch = settings.batch_size * accelerator.num_processes
    optimizers = make_optimizers(net, settings.learning_rate)

    # The items of this run: item i is the same crop in every run.
    crops = PhotoCrops(photos, partial(crop_size, settings, global_batch), seed=settings.seed)
    loader = DataLoader(
        crops,
        batch_size=settings.batch_size,
        sampler=range(first_step * global_batch, settings.steps * global_batch),
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
    )
    net, loader, *optimizers = accelerator.prepare(net, loader, *optimizers)
    if saved:
        for name, optimizer in zip(OPTIMIZERS, optimizers, strict=True):
            optimizer.load_state_dict(saved.resume_state[name])
    # The loss network is frozen: bfloat16 weights need no master copy. Its features exceed
    # float16's range.
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    perceptual_loss = PerceptualLoss(loss, [style_image.to(device)], dtype=dtype)
    preview = torch.stack([crops.crop(item, settings.image_size) for item in range(4)])

    def save(step: int) -> None:
        if not accelerator.is_main_process:
            return
        bare = accelerator.unwrap_model(net)
        checkpoint.weights = {k: v.detach().cpu().clone() for k, v in bare.state_dict().items()}
        checkpoint.training |= {
            "step": step,
            "images": step * global_batch,
            "device": _name(device),
        }
        if not all(weight.isfinite().all() for weight in checkpoint.weights.values()):
            raise FloatingPointError(f"the weights are no longer finite at step {step}")
        finished = step == settings.steps
        states = {
            name: _plain(optimizer.state_dict())
            for name, optimizer in zip(OPTIMIZERS, optimizers, strict=True)
        }
        checkpoint.resume_state = {} if finished else states
        write_atomically(output, checkpoint.to_bytes())
        pictures = stylize(bare, preview.to(device)).cpu()
        rows = torch.cat([torch.cat([*preview], dim=-1), torch.cat([*pictures], dim=-1)], dim=-2)
        write_image(output.with_suffix(".preview.jpg"), rows[None])

    step = first_step
    last_report, images = time.perf_counter(), 0
    try:
        for content in loader:
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * _schedule(step, settings)
            stylized = net(content)
            terms = perceptual_loss(stylized, perceptual_loss.content_targets(content))
            accelerator.backward(terms.total)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            step += 1
            images += global_batch

            now = time.perf_counter()
            if now - last_report > 1 or step in (first_step + 1, settings.steps):
                progress = TrainingProgress(
                    step,
                    *(x.item() for x in (terms.total, terms.content, terms.style, terms.tv)),
                    images / (now - last_report),
                )
                if not math.isfinite(progress.loss):
                    raise FloatingPointError(f"the loss is {progress.loss} at step {step}")
                if callback and accelerator.is_main_process:
                    callback(progress)
                last_report, images = time.perf_counter(), 0
            if step % save_every == 0 and step < settings.steps:
                save(step)
    except KeyboardInterrupt:
        if step > first_step:
            save(step)
        raise
    save(settings.steps)
    accelerator.wait_for_everyone()
    return checkpoint


def make_optimizers(net: TransformerNet, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the convolutions that a normalisation follows, Adam for all else; see OPTIMIZERS."""
    normalised, others = [], []
    for name, weight in net.named_parameters():
        is_normalised = weight.ndim == 4 and not name.startswith("to_rgb")
        (normalised if is_normalised else others).append(weight)
    optimizers = [Muon(normalised, lr=learning_rate), Adam(others, lr=learning_rate / 15)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def crop_size(settings: TrainingSettings, global_batch: int, item: int) -> int:
    """Side of an item's crop in px: from first_size to image_size with the square of the time."""
    first = min(settings.first_size, settings.image_size)
    progress = item // global_batch / settings.steps
    grown = (settings.image_size - first) * progress**2
    return first + SIZE_STEP * round(grown / SIZE_STEP)


def _schedule(step: int, settings: TrainingSettings) -> float:
    """Share of the learning rate: linear warm-up, then a cosine to 0."""
    warmup = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    return warmup * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def _check_same_training(saved: Checkpoint, wanted: Checkpoint, output: Path) -> None:
    """Resuming must not mix two trainings: everything but what a run adds has to be equal."""
    pairs = [(name, saved.loss.get(name), value) for name, value in wanted.loss.items()]
    pairs += [
        (name, saved.training.get(name), value)
        for name, value in wanted.training.items()
        if name != "step"
    ]
    pairs += [("style", saved.style.get("sha256"), wanted.style["sha256"])]
    for name, old, new in pairs:
        if old != new:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{output} holds another training: {flag} was {old}, now {new}; "
                "start anew by --force instead of --resume, or choose another output"
            )


def _plain(value: Any) -> Any:
    """Nested tuples as lists and tensors on the CPU, as a checkpoint stores them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"

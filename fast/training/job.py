"""One training, from a style picture and photos to a checkpoint (arXiv 1603.08155)."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from fast.training.data import TrainingData, find_training_data
from fast.training.learner import Learner, Schedule, to_cpu_copy
from fast.training.loop import Loop
from fast.training.losses import MARGIN_IN_TRAINING, BatchLosses
from fast.training.objective import make_objective
from fast.training.photos import read_photos
from fast.training.progress import TrainingProgress
from fast.training.record import Record
from fast.training.settings import TrainingSettings, accelerate_name, dtype_of
from fast.training.start import initial_weights, unfinished
from media import read_image, sha256
from models.checkpoint import Checkpoint
from models.int8 import is_exact
from models.loss_settings import LossSettings
from models.transformer_net import TransformerNet

# Steps between two checkpoints, by default. On a GPU 500 small ones take seconds.
SAVE_EVERY, SAVE_EVERY_ON_GPU = 500, 2000
SHOWN_SIZE = 512  # px: longer side of the photos of the preview and of the final figures, at least


def train(
    style: Path,
    data: str | Path,
    output: Path,
    *,
    settings: TrainingSettings,
    loss: LossSettings,
    accelerator: Accelerator,
    int8: bool = False,
    data_limit: int | None = None,
    streaming: bool = False,
    init_from: Path | None = None,
    resume: bool = False,
    save_every: int | None = None,
    keep: int = 0,
    num_workers: int = 0,
    credits: dict[str, str] | None = None,
    callback: Callable[[TrainingProgress], None] | None = None,
) -> Checkpoint:
    """Train a style and write its checkpoint; previews and the course of the losses beside it.

    A few photos are held out of the training: their paintings are the preview, and their losses go
    into the finished checkpoint. A loss that is no longer finite, or several times higher than
    it was, takes the training back to the last checkpoint, with half the learning rate.

    Args:
        style: style image file.
        data: photos, see find_photos.
        output: `.pth` to write, every save_every steps and at the end or on Ctrl-C. Beside it
            `.preview.jpg`, photos and their paintings at each checkpoint, and `.jsonl`, the losses.
        settings: network, data and schedule.
        loss: layers and weights of the perceptual loss.
        accelerator: devices, processes, mixed precision and trackers.
        int8: compute the loss network's features and gradients from 8-bit integers, and those of
            the network's layers in TransformerNet.use_int8; on CPUs, with accelerate_name("int8")
            as the accelerator's mixed precision.
        data_limit: take the first so many photos only.
        streaming: read parquet files or a data set of a hub while training, see PhotoStream; going
            on reads them again up to there.
        init_from: checkpoint whose weights to start from: a new style is learned sooner.
        resume: go on from `output` if it exists.
        save_every: steps between two checkpoints; by default SAVE_EVERY, or SAVE_EVERY_ON_GPU.
        keep: older checkpoints to keep, as `name.step500.pth`.
        num_workers: processes that read photos; 0 reads them in this one.
        credits: title, artist and licence of the style image, kept in the checkpoint.
        callback: called on the main process about every second, with that process's own losses. A
            KeyboardInterrupt from it ends the training of all processes between two steps, with a
            checkpoint; one that comes at another moment leaves the last checkpoint as it is.

    Returns:
        The finished checkpoint, as written; on other processes than the main one, without weights.

    Raises:
        ValueError: unusable style, data or settings, or too little memory for them; or `output`
            holds another training.
        FloatingPointError: the loss has diverged again and again; earlier checkpoints stay.
        RuntimeError: no photo can be read any more; if the main process finds out, what was
            learned is saved. Or a process that reads them was killed; the last checkpoint stays.
        OSError: a file cannot be read or written.
    """
    if int8 and not is_exact(accelerator.device):
        raise ValueError("int8 is for CPUs where it is exact")
    if int8 and accelerator.mixed_precision != accelerate_name("int8"):
        raise ValueError(f"int8 needs the mixed precision {accelerate_name('int8')} here")
    least = settings.images_per_step(accelerator.num_processes)
    photos = find_training_data(data, limit=data_limit, streaming=streaming, at_least=least)
    # The accelerator may have served another training of this process.
    accelerator.gradient_accumulation_steps, accelerator.step = settings.accumulation, 0
    device = accelerator.device
    precision = "int8" if int8 else accelerator.mixed_precision
    style_picture = read_image(style, long_side=settings.style_size)
    torch.manual_seed(settings.seed)
    net = TransformerNet(
        width=settings.width, num_blocks=settings.num_blocks, stem_stride=settings.stem_stride
    )
    net.use_int8(int8)
    checkpoint = Checkpoint(
        arguments=net.arguments,
        weights={},
        style={"file": style.name, "sha256": sha256(style), **(credits or {})},
        loss=to_cpu_copy(asdict(loss)),
        training={
            **asdict(settings),
            "data": hashlib.sha256(photos.names.encode(errors="surrogateescape")).hexdigest(),
            "init_from": sha256(init_from) if init_from else "",
            "mixed_precision": precision,
            "processes": accelerator.num_processes,
            "margin": MARGIN_IN_TRAINING,
            "step": 0,
        },
    )
    if init_from:
        net.load_state_dict(initial_weights(init_from, net))
    saved = unfinished(output, checkpoint, accelerator) if resume else None
    step = saved.training["step"] if saved else 0
    if step == settings.steps and not saved.resume_state:
        return saved
    schedule = Schedule(settings.learning_rate, settings.warmup_steps, settings.steps)
    learner = Learner(net, schedule, accelerator)
    unreadable = _go_on(learner, saved, output) if saved else set()
    make_loss = partial(make_objective, style_picture, loss, device=device)
    try:
        # The loss network is frozen: weights of half precision need no master copy.
        perceptual_loss = make_loss(dtype=dtype_of(precision))
    except ValueError as error:
        raise ValueError(f"--style {style}: {error}") from error
    perceptual_loss.vgg.rounded = int8  # from now on: the targets of the style are exact
    losses = BatchLosses(learner, perceptual_loss, settings)
    size = settings.image_size
    record = None
    if accelerator.is_main_process:
        shown = _photos_to_show(photos, max(SHOWN_SIZE, size), reported=unreadable)
        record = Record(output, shown, keep=keep)
    losses.try_out(torch.zeros(settings.batch_size, 3, size, size, device=device))
    loop = Loop(
        checkpoint=checkpoint,
        photos=photos.photos,
        settings=settings,
        learner=learner,
        losses=losses,
        record=record,
        step=step,
        unreadable=unreadable,
        save_every=save_every or (SAVE_EVERY_ON_GPU if device.type == "cuda" else SAVE_EVERY),
        num_workers=num_workers,
        callback=callback,
    )
    if not accelerator.trackers:
        accelerator.init_trackers(output.stem)
    loop.run()
    if record:
        loop.fill_in()
        checkpoint.resume_state = {}
        # Figures that compare with others are of float32.
        record.finish(checkpoint, checkpoint.build().to(device), make_loss())
    accelerator.wait_for_everyone()
    return checkpoint


def _go_on(learner: Learner, saved: Checkpoint, output: Path) -> set[str]:
    """Give a learner the state of an unfinished training; the photos that were unreadable there."""
    try:
        learner.load_state(saved.weights, saved.resume_state)
        return set(saved.resume_state.get("unreadable", ()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{output} is damaged: its state cannot be gone on from") from error


def _photos_to_show(photos: TrainingData, size: int, *, reported: set[str]) -> list[Tensor]:
    """Those of the preview and of the final figures: the ones held out or, if none is, the first
    that can be read; (1, 3, H, W) each.
    """
    candidates, number = chain(photos.held_out, photos.photos), max(1, len(photos.held_out))
    read = read_photos(candidates, size, count=number, reported=reported)
    return [image for _, image in read]

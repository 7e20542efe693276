"""Training a TransformerNet for one style (Johnson et al., arXiv 1603.08155)."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from fast.training.data import Item, find_training_data, make_loader
from fast.training.learner import Diverged, Learner, Schedule, to_cpu_copy
from fast.training.losses import MARGIN_IN_TRAINING, BatchLosses
from fast.training.objective import make_objective
from fast.training.photos import read_photos, warn_unreadable
from fast.training.progress import Clock, TrainingProgress
from fast.training.record import Record
from fast.training.settings import TrainingSettings, accelerate_name, dtype_of
from fast.training.start import initial_weights, unfinished
from media import as_float, read_image, sha256
from models.checkpoint import Checkpoint
from models.int8 import is_exact
from models.loss_settings import LossSettings
from models.transformer_net import TransformerNet

CHECK_EVERY = 50  # steps between two looks at the loss of all processes
# Steps between two checkpoints, by default. On a GPU 500 small ones take seconds.
SAVE_EVERY, SAVE_EVERY_ON_GPU = 500, 2000
KEEP_EVERY = 500  # steps after which there is a state to go back to, if there was no checkpoint
SHOWN_SIZE = 512  # px: longer side of the photos of the preview and of the final figures, at least


class PhotosLost(Exception):
    """No photo can be read any more."""


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
        FloatingPointError: the loss has diverged again and again; the last good checkpoint stays.
        RuntimeError: no photo can be read any more; if the main process finds out, what was
            learned is saved. Or a process that reads them was killed; the last checkpoint stays.
        OSError: a file cannot be read or written.
    """
    if int8 and not is_exact(accelerator.device):
        raise ValueError("int8 is for CPUs where it is exact")
    if int8 and accelerator.mixed_precision != accelerate_name("int8"):
        raise ValueError(f"int8 needs the mixed precision {accelerate_name('int8')} here")
    global_batch = settings.images_per_step(accelerator.num_processes)
    photos = find_training_data(data, limit=data_limit, streaming=streaming, at_least=global_batch)
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
    unreadable: set[str] = set()
    if saved:
        try:
            learner.load_state(saved.weights, saved.resume_state)
            unreadable.update(saved.resume_state.get("unreadable", ()))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{output} is damaged: its state cannot be gone on from") from error
    make_loss = partial(make_objective, style_picture, loss, device=device)
    try:
        # The loss network is frozen: weights of half precision need no master copy.
        perceptual_loss = make_loss(dtype=dtype_of(precision))
    except ValueError as error:
        raise ValueError(f"--style {style}: {error}") from error
    losses = BatchLosses(learner, perceptual_loss, settings, int8=int8)
    save_every = save_every or (SAVE_EVERY_ON_GPU if device.type == "cuda" else SAVE_EVERY)
    record = None
    if accelerator.is_main_process:
        candidates, number = chain(photos.held_out, photos.photos), max(1, len(photos.held_out))
        size = max(SHOWN_SIZE, settings.image_size)
        shown = read_photos(candidates, size, count=number, reported=unreadable)
        record = Record(output, [image for _, image in shown], keep=keep)

    def note(failures: list[str]) -> None:
        if accelerator.is_main_process:
            warn_unreadable(failures, unreadable)
        else:
            unreadable.update(failures)  # the main process warns of them at the next checkpoint

    def fill_in() -> None:
        """Put what has been learned into the checkpoint."""
        checkpoint.weights = learner.good.weights
        checkpoint.resume_state = learner.good.states | {"unreadable": sorted(unreadable)}
        checkpoint.training |= {
            "step": step,
            "images": step * global_batch,
            "device": _device_name(device),
            "unreadable": len(unreadable),
        }

    def save() -> None:
        learner.keep_as_good(step)
        if record:
            fill_in()
            record.save(checkpoint, learner.bare_net)

    size = settings.image_size
    losses.try_out(torch.zeros(settings.batch_size, 3, size, size, device=device))
    learner.keep_as_good(step)
    first_step = step
    while step < settings.steps:
        loader = make_loader(
            photos.photos, settings, accelerator, first_step=step, num_workers=num_workers
        )
        clock, stop = Clock(global_batch, step), None
        try:
            for content, failures in _batches(clock.watch(loader)):
                note(failures)
                content = as_float(content.to(device, non_blocking=True))
                with accelerator.accumulate(learner.net):
                    values = losses.backward(content, seed=settings.seed + step)
                    # What is summed up grows with the crops, and is not to look like a collapse.
                    pixels = content[0, 0].numel() if loss.content_reduction == "sum" else 1
                    learner.update(step, values[0] / pixels)
                if not accelerator.sync_gradients:
                    continue
                step += 1
                if record and step == first_step + 1:  # the input was not wrong
                    record.begin(first_step)
                if clock.is_due() or step in (1, settings.steps):
                    progress = clock.progress(step, values)
                    accelerator.log(asdict(progress), step=step)
                    if record:
                        record.log(asdict(progress))
                        stop = _interrupt_from(callback, progress)
                ends = _main_process_stops(accelerator, stop is not None)
                must_save = ends or step % save_every == 0 or step == settings.steps
                if must_save or step % CHECK_EVERY == 0:
                    learner.check()
                if must_save:
                    note(gather_object(sorted(unreadable)))
                    save()
                elif step % KEEP_EVERY == 0:
                    learner.keep_as_good(step)
                if ends:
                    raise stop or KeyboardInterrupt
        except PhotosLost as error:
            if step == first_step:
                raise ValueError(str(error)) from error
            save()  # it may be this process alone that has come here: nothing is gathered
            saved_as = f"; {output} has the state of step {step}" if record else ""
            raise RuntimeError(f"{error}{saved_as}") from error
        except Diverged as error:
            step = learner.go_back(error)
            if record:
                record.go_back(step)
    if record:
        fill_in()
        checkpoint.resume_state = {}
        # Figures that compare with others are of float32.
        record.finish(checkpoint, checkpoint.build().to(device), make_loss())
    accelerator.wait_for_everyone()
    return checkpoint


def _batches(loader: Iterable[Item]) -> Iterator[Item]:
    """The same; an error of the loader's can be told from those of the training."""
    try:
        yield from loader
    except (OSError, ValueError) as error:
        raise PhotosLost(str(error).strip()) from error


def _interrupt_from(
    callback: Callable[[TrainingProgress], None] | None, progress: TrainingProgress
) -> KeyboardInterrupt | None:
    try:
        if callback:
            callback(progress)
    except KeyboardInterrupt as error:
        return error
    return None


def _main_process_stops(accelerator: Accelerator, stop: bool) -> bool:
    """Whether it does, for all processes to know at the same step."""
    if accelerator.num_processes == 1:
        return stop
    return accelerator.gather(torch.tensor([stop], device=accelerator.device)).any().item()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"

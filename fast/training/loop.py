"""The loop of a training: steps, checkpoints, and ways back when the loss diverges."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from accelerate.utils import gather_object
from torch import Tensor

from fast.training.data import Item, make_loader
from fast.training.learner import Diverged, Learner
from fast.training.losses import BatchLosses
from fast.training.photos import Photo, warn_unreadable
from fast.training.progress import Clock, TrainingProgress
from fast.training.record import Record
from fast.training.rows import PhotoStream
from fast.training.settings import TrainingSettings
from media import as_float
from models.checkpoint import Checkpoint

CHECK_EVERY = 50  # steps between two looks at the loss of all processes
KEEP_EVERY = 500  # steps after which there is a state to go back to, if there was no checkpoint


class PhotosLost(Exception):
    """No photo can be read any more."""


@dataclass(kw_only=True)
class Loop:
    """A training from its present step to its last one.

    Args:
        checkpoint: describes the training; is given what has been learned whenever it is saved.
        photos: to train on.
        settings: data and schedule.
        learner: the network and its optimisers, as they are at `step`.
        losses: of the network's paintings.
        record: the training's files; on other processes than the main one there is none.
        step: the present one; the first is 0.
        unreadable: why photos could not be read, with their names; kept in the checkpoint.
        save_every: steps between two checkpoints.
        num_workers: processes that read photos; 0 reads them in this one.
        callback: see fast.training.job.train.
    """

    checkpoint: Checkpoint
    photos: Sequence[Photo] | PhotoStream
    settings: TrainingSettings
    learner: Learner
    losses: BatchLosses
    record: Record | None
    step: int
    unreadable: set[str]
    save_every: int
    num_workers: int
    callback: Callable[[TrainingProgress], None] | None

    def __post_init__(self) -> None:
        self.accelerator = self.learner.accelerator
        self.first_step = self.step
        self.images_per_step = self.settings.images_per_step(self.accelerator.num_processes)
        self.interrupt: KeyboardInterrupt | None = None  # what the callback has answered with

    def run(self) -> None:
        """Train to the end; what it raises: see fast.training.job.train."""
        self.learner.keep_as_good(self.step)
        while self.step < self.settings.steps:
            try:
                self._take_steps()
            except PhotosLost as error:
                if self.step == self.first_step:
                    raise ValueError(str(error)) from error
                self._save()  # it may be this process alone that has come here: nothing is gathered
                message = str(error)
                if self.record:
                    message += f"; {self.record.output} has the state of step {self.step}"
                raise RuntimeError(message) from error
            except Diverged as error:
                self.step = self.learner.go_back(error)
                if self.record:
                    self.record.go_back(self.step)

    def fill_in(self) -> None:
        """Put what has been learned into the checkpoint."""
        good, device = self.learner.good, self.accelerator.device
        self.checkpoint.weights = good.weights
        self.checkpoint.resume_state = good.states | {"unreadable": sorted(self.unreadable)}
        self.checkpoint.training |= {
            "step": self.step,
            "images": self.step * self.images_per_step,
            "device": _device_name(device),
            "unreadable": len(self.unreadable),
        }

    def _take_steps(self) -> None:
        """Go on from the present step to the last one, as long as all goes well."""
        loader = make_loader(
            self.photos,
            self.settings,
            self.accelerator,
            first_step=self.step,
            num_workers=self.num_workers,
        )
        clock = Clock(self.images_per_step, self.step)
        first_batch = self.step * self.settings.accumulation
        for batch, (content, failures) in enumerate(_batches(clock.watch(loader)), first_batch):
            self._note(failures)
            values = self._learn(content, batch)
            if not self.accelerator.sync_gradients:
                continue
            self.step += 1
            if self.record and self.step == self.first_step + 1:  # the input was not wrong
                self.record.begin(self.first_step)
            is_last = self.step == self.settings.steps
            if clock.is_due() or is_last or self.step == 1:
                self._report(clock.progress(self.step, values))
            ends = self._main_process_ends()
            must_save = ends or is_last or self.step % self.save_every == 0
            if must_save or self.step % CHECK_EVERY == 0:
                self.learner.check()
            if must_save:
                self._note(gather_object(sorted(self.unreadable)))
                self._save()
            elif self.step % KEEP_EVERY == 0:
                self.learner.keep_as_good(self.step)
            if ends:
                raise self.interrupt or KeyboardInterrupt

    def _learn(self, content: Tensor, batch: int) -> Tensor:
        """From a batch of crops (B, 3, S, S), uint8, and its number; the values of TERMS."""
        processes, process = self.accelerator.num_processes, self.accelerator.process_index
        seed = self.settings.seed + batch * processes + process
        content = as_float(content.to(self.accelerator.device, non_blocking=True))
        with self.accelerator.accumulate(self.learner.net):
            values = self.losses.backward(content, seed=seed)
            # What is summed up grows with the crops, and is not to look like a collapse.
            settings = self.losses.loss.settings
            pixels = content[0, 0].numel() if settings.content_reduction == "sum" else 1
            self.learner.update(self.step, values[0] / pixels)
        return values

    def _note(self, failures: list[str]) -> None:
        """Keep why photos could not be read; the main process warns of them."""
        if self.accelerator.is_main_process:
            warn_unreadable(failures, self.unreadable)
        else:
            self.unreadable.update(failures)  # it will be told of them at the next checkpoint

    def _report(self, progress: TrainingProgress) -> None:
        """Log it, and call back."""
        self.accelerator.log(asdict(progress), step=self.step)
        if self.record:
            self.record.log(asdict(progress))
            try:
                if self.callback:
                    self.callback(progress)
            except KeyboardInterrupt as error:
                self.interrupt = error

    def _main_process_ends(self) -> bool:
        """Whether it does, for all processes to know at the same step."""
        ends = self.interrupt is not None
        if self.accelerator.num_processes == 1:
            return ends
        answer = torch.tensor([ends], device=self.accelerator.device)
        return self.accelerator.gather(answer).any().item()

    def _save(self) -> None:
        self.learner.keep_as_good(self.step)
        if self.record:
            self.fill_in()
            self.record.save(self.checkpoint, self.learner.bare_net)


def _batches(loader: Iterable[Item]) -> Iterator[Item]:
    """The same; an error of the loader's can be told from those of the training."""
    try:
        yield from loader
    except (OSError, ValueError) as error:
        raise PhotosLost(str(error).strip()) from error


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"

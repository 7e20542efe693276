"""Training beside the textbook's: images per second, and images until a style is as good.

    python -m benchmarks.training --data train2014.zip
    python -m benchmarks.training --data train2014.zip --quality-steps 400

Speed: the whole loop at 256 px and batch 4, photos included, of train.py and of the textbook,
which reads them in the same process. Utilisation is the textbook's arithmetic, done as often as
images are finished, beside the fastest large matrix product here; Winograd convolutions do less.

Quality: train.py with its own recipe for so many steps, then the textbook's (Adam at 1e-3, whole
photos of the final size, a Gram matrix for each) until it reaches the same value of the same
objective on the sample photos, which neither is trained on, or has seen four times as many.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import cli
from benchmarks.textbook import TextbookLoss, TextbookNet, textbook_training
from benchmarks.turns import WHO, in_turns
from fast.photos import find_photos, read_photos
from fast.progress import TrainingProgress
from fast.settings import TrainingSettings
from fast.stylize import stylize
from fast.training import train
from media import read_image
from models.device import keep_pages, pick_device, pick_precision
from models.losses import LossSettings, PerceptualLoss
from models.transformer_net import TransformerNet

SAMPLES = Path(__file__).parents[1] / "samples"
STYLE = SAMPLES / "starry_night.jpg"
PATIENCE = 4  # times our images that the textbook may see


def our_training(
    args: argparse.Namespace, settings: TrainingSettings, device: torch.device
) -> tuple[TransformerNet, list[float]]:
    """The network, and images per second as reported on the way."""
    speeds = []

    def report(progress: TrainingProgress) -> None:
        speeds.append(progress.images_per_second)

    keep_pages()
    precision = "bf16" if pick_precision("auto", device) == torch.bfloat16 else "no"
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = train(
            STYLE,
            args.data,
            Path(folder) / "style.pth",
            settings=settings,
            loss=LossSettings(),
            accelerator=Accelerator(mixed_precision=precision, cpu=device.type == "cpu"),
            num_workers=args.workers,
            callback=report,
        )
    return checkpoint.build(), speeds


def their_training(
    args: argparse.Namespace, settings: TrainingSettings, device: torch.device
) -> Iterator[TransformerNet]:
    """The network after each step."""
    style = read_image(STYLE, long_side=settings.style_size).rgb.to(device)
    torch.manual_seed(settings.seed)
    photos = find_photos(args.data)
    return textbook_training(style, photos, settings.image_size, settings.batch_size)


def images_per_second(ours: bool, args: argparse.Namespace, device: torch.device) -> float:
    """Of the whole loop at full size, in this process."""
    settings = TrainingSettings(steps=args.steps, first_size=256)
    if ours:
        _, speeds = our_training(args, settings, device)
        return statistics.median(speeds[1:])  # the first report covers one step, the slowest
    steps = their_training(args, settings, device)
    next(steps)
    start = time.perf_counter()
    for _ in islice(steps, args.steps - 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
    return (args.steps - 1) * settings.batch_size / (time.perf_counter() - start)


def operations() -> float:
    """Of the textbook's step for one image: multiplications and additions."""
    content, settings = torch.rand(1, 3, 256, 256), LossSettings()
    net, loss = TextbookNet(TransformerNet()), TextbookLoss(settings, torch.rand(1, 3, 304, 384))
    with FlopCounterMode(display=False) as counter:
        loss(net(content), content).backward()
    return counter.get_total_flops()


def matrix_rate(device: torch.device) -> float:
    """Operations per second of a large matrix product in the precision that training chooses."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.rand(size, size, device=device, dtype=pick_precision("auto", device))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits until it is there
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


@torch.no_grad()
def objective(net: TransformerNet, loss: PerceptualLoss, photos: list[Tensor]) -> float:
    """Mean loss of the paintings."""
    totals = [loss(stylize(net, p).clone(), loss.content_targets(p)).total for p in photos]
    return torch.stack(totals).mean().item()


def quality(args: argparse.Namespace, device: torch.device) -> None:
    """Print how many images each recipe needs."""
    settings = TrainingSettings(steps=args.quality_steps, image_size=args.quality_size)
    style = read_image(STYLE, long_side=settings.style_size).rgb
    loss = PerceptualLoss(LossSettings(), [style])
    photos = list(read_photos(find_photos(SAMPLES / "photos"), settings.image_size).values())
    net, _ = our_training(args, settings, device)
    wanted = objective(net, loss, photos)
    ours = settings.steps * settings.batch_size
    print(
        f"\n| recipe | images | objective |\n| --- | --- | --- |\n| ours | {ours} | {wanted:.3f} |"
    )

    reached, step = float("inf"), 0
    check_every = max(1, settings.steps // 10)
    textbook = their_training(args, replace(settings, seed=1), device)
    for step, net in enumerate(islice(textbook, PATIENCE * settings.steps), start=1):
        if step % check_every == 0:
            reached = objective(net, loss.to(device), [p.to(device) for p in photos])
            if reached <= wanted:
                break
    theirs = step * settings.batch_size
    print(f"| textbook | {theirs} | {reached:.3f} |")
    more = "" if reached <= wanted else "more than "
    print(f"| ratio | {more}{theirs / ours:.1f}x | |")


def main() -> int:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--data", required=True, help="photos to train on, as for train.py")
    parser.add_argument(
        "--steps",
        type=cli.positive_int,
        default=8,
        metavar="N",
        help="of a run for the speed; some hundred on a GPU (default: %(default)s)",
    )
    parser.add_argument(
        "--turns", type=cli.not_negative, default=3, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--quality-steps",
        type=cli.not_negative,
        default=0,
        metavar="N",
        help="of our run for the quality; 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--quality-size",
        type=cli.positive_int,
        default=256,
        metavar="PX",
        help="final crops (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=cli.not_negative,
        default=max(1, min(8, (os.cpu_count() or 1) // 2)),
        metavar="N",
        help="processes that read photos for train.py (default: %(default)s)",
    )
    parser.add_argument("--device", help="where to compute (default: the best there is)")
    parser.add_argument("--only", choices=WHO, help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = pick_device(args.device)
    if args.only:
        print(images_per_second(args.only == "ours", args, device))
        return cli.OK
    precision = str(pick_precision("auto", device)).removeprefix("torch.")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}")
    if args.turns:
        arguments = ["--data", args.data, "--device", str(device), "--steps", str(args.steps)]
        textbook, ours, ratio = in_turns(
            "benchmarks.training", [*arguments, "--workers", str(args.workers)], args.turns
        )
        share = operations() / matrix_rate(device)
        print("\n| 256 px, batch 4 | images/s | utilisation |\n| --- | --- | --- |")
        print(f"| textbook, float32 | {textbook:.2f} | {textbook * share:.0%} |")
        print(f"| ours, {precision} | {ours:.2f} | {ours * share:.0%} |")
        print(f"| ratio | {ratio:.1f}x | |")
    if args.quality_steps:
        quality(args, device)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)

"""Training beside the textbook's: images per second, and images until a style is as good.

    python -m benchmarks.training
    python -m benchmarks.training --data train2014.zip --turns 0 --quality-steps 400

Speed: the whole loop at 256 px in batches of --batch, photos included, of train.py and of the
textbook, which reads them in the same process. Without --data the photos are parts of the sample
photos, of COCO's size: 640x480 px and 120 KB on average (COCO's have 163 KB). Utilisation is the
textbook's arithmetic, done as often as images are finished, beside the fastest large matrix product
here; Winograd convolutions do less.

Quality: train.py with its own recipe for so many steps, then the textbook's (Adam at 1e-3, batches
of 4 whole photos of the final size) until it reaches the same value of the same objective on the
sample photos, which neither is trained on, or has seen four times as many.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image, ImageOps
from torch import Tensor

import cli
from benchmarks.arithmetic import matrix_rate, operations
from benchmarks.textbook import TextbookLoss, textbook_training
from benchmarks.turns import in_turns, make_parser, print_machine
from fast.catalogue import SAMPLE_PHOTOS, SAMPLES
from fast.stylize import stylize
from fast.training.job import train
from fast.training.photos import find_photos, read_photos
from fast.training.progress import TrainingProgress
from fast.training.settings import MIXED_PRECISIONS, TrainingSettings, accelerate_name
from media import read_image
from models.device import pick_device, pick_precision
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss
from models.memory import keep_pages
from models.plain_net import PlainNet
from models.transformer_net import TransformerNet

STYLE = SAMPLES / "starry_night.jpg"
COCO_SIZE, COCO_QUALITY = (640, 480), 98
CUTS = 20  # of each sample photo
BATCH = 4  # in the textbook
PATIENCE = 4  # times our images that the textbook may see


def write_photos(folder: Path) -> None:
    """Parts of the sample photos, each smaller than the last, and of COCO's size and quality."""
    for path in sorted(SAMPLE_PHOTOS.iterdir()):
        photo = Image.open(path).convert("RGB")
        for cut in range(CUTS):
            part = ImageOps.fit(photo, COCO_SIZE, bleed=cut / CUTS / 4)
            part = ImageOps.mirror(part) if cut % 2 else part
            part.save(folder / f"{path.stem}{cut}.jpg", quality=COCO_QUALITY)


def our_training(
    args: argparse.Namespace,
    settings: TrainingSettings,
    device: torch.device,
    callback: Callable[[TrainingProgress], None] | None = None,
) -> TransformerNet:
    """The network after all steps."""
    keep_pages()
    precision = MIXED_PRECISIONS[pick_precision("auto", device)]
    accelerator = Accelerator(mixed_precision=accelerate_name(precision), cpu=device.type == "cpu")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = train(
            STYLE,
            args.data,
            Path(folder) / "style.pth",
            settings=settings,
            loss=LossSettings(),
            accelerator=accelerator,
            int8=precision == "int8",
            num_workers=args.workers,
            callback=callback,
        )
    return checkpoint.build().to(device)


def their_training(
    args: argparse.Namespace, settings: TrainingSettings, device: torch.device
) -> Iterator[TransformerNet]:
    """The network after each step."""
    style = read_image(STYLE, long_side=settings.style_size).rgb.to(device)
    torch.manual_seed(settings.seed)
    photos = find_photos(args.data)
    return textbook_training(style, photos, settings.image_size, settings.batch_size)


def images_per_second(ours: bool, args: argparse.Namespace, device: torch.device) -> float:
    """Of the whole loop at full size from the first to the last step, in this process."""
    settings = TrainingSettings(steps=args.steps, batch_size=args.batch, image_size=256)
    times: list[float] = []

    def note_time(_: object = None) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    if ours:  # the first and the last step are always reported
        our_training(args, settings, device, note_time)
    else:
        steps = their_training(args, settings, device)
        for step, _ in enumerate(islice(steps, args.steps), start=1):
            if step in (1, args.steps):
                note_time()
    return (args.steps - 1) * args.batch / (times[-1] - times[0])


def training_operations() -> float:
    """Of the textbook's step for one image."""
    content, settings = torch.rand(1, 3, 256, 256), LossSettings()
    loss = TextbookLoss(settings, torch.rand(1, 3, 304, 384))
    net = PlainNet(TransformerNet(grain=0))
    return operations(lambda: loss(net(content), content).backward())


@torch.no_grad()
def objective(net: TransformerNet, loss: PerceptualLoss, photos: list[Tensor]) -> float:
    """Mean loss of the paintings."""
    totals = [loss(stylize(net, p), loss.content_targets(p)).total for p in photos]
    return torch.stack(totals).mean().item()


def compare_quality(args: argparse.Namespace, device: torch.device) -> None:
    """Print how many images each recipe needs."""
    settings = TrainingSettings(steps=args.quality_steps, image_size=args.quality_size)
    style = read_image(STYLE, long_side=settings.style_size).rgb.to(device)
    loss = PerceptualLoss(LossSettings(), [style])
    # Their shorter side is about as long as a crop's: smaller, and neither has seen the like.
    longer_side = round(4 / 3 * settings.image_size)
    samples = read_photos(find_photos(SAMPLE_PHOTOS), longer_side)
    photos = [photo.to(device) for _, photo in samples]
    wanted = objective(our_training(args, settings, device), loss, photos)
    ours = settings.steps * settings.batch_size
    print("\n| recipe | images | objective |\n| --- | --- | --- |")
    print(f"| ours | {ours} | {wanted:.3f} |", flush=True)

    reached, most = float("inf"), PATIENCE * ours // BATCH
    check_every = max(1, most // 40)
    textbook = their_training(args, replace(settings, seed=1, batch_size=BATCH), device)
    for step, net in enumerate(islice(textbook, most), start=1):
        if step % check_every == 0:
            reached = objective(net, loss, photos)
            if reached <= wanted:
                break
    theirs = step * BATCH
    print(f"| textbook | {theirs} | {reached:.3f} |")
    print(f"| ratio | {'' if reached <= wanted else 'more than '}{theirs / ours:.1f}x | |")


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data", help="photos to train on, as for train.py (default: made for the speed)"
    )
    parser.add_argument(
        "--steps",
        type=cli.positive_int,
        default=16,
        metavar="N",
        help="of a run for the speed, two or more; some hundred on a GPU (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=cli.positive_int,
        default=BATCH,
        metavar="N",
        help="crops of a step in the runs for the speed (default: %(default)s)",
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
        help="of its crops at the end, and of the textbook's (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=cli.not_negative,
        default=1,
        metavar="N",
        help="processes that read photos for train.py (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.steps < 2:
        parser.error("--steps must be 2 or more")
    if args.quality_steps and not args.data:
        parser.error("--quality-steps needs --data: the sample photos are for the comparison")
    return args


def compare(args: argparse.Namespace) -> int:
    """Print both tables, or one side's figure."""
    number = len(find_photos(args.data))
    if number < max(BATCH, args.batch):
        raise ValueError(f"--data {args.data}: {number} photos are fewer than those of a step")
    device = pick_device(args.device)
    if args.only:
        print(images_per_second(args.only == "ours", args, device))
        return cli.OK
    print_machine(device)
    if args.turns:
        arguments = ["--data", args.data, "--device", str(device), "--steps", str(args.steps)]
        arguments += ["--batch", str(args.batch), "--workers", str(args.workers)]
        textbook, ours, ratio = in_turns("benchmarks.training", arguments, args.turns)
        share = training_operations() / matrix_rate(device)
        print(f"| training, 256 px, batch {args.batch} | images/s | utilisation |")
        print("| --- | --- | --- |")
        print(f"| textbook | {textbook:.2f} | {textbook * share:.0%} |")
        print(f"| ours | {ours:.2f} | {ours * share:.0%} |\n| ratio | {ratio:.1f}x | |")
    if args.quality_steps:
        compare_quality(args, device)
    return cli.OK


def main() -> int:
    args = parse_args()
    if args.data:
        return compare(args)
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder))
        args.data = folder
        return compare(args)


if __name__ == "__main__":
    cli.run(main)

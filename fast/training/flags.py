"""The flags of train.py."""

import argparse
import inspect
import os
from pathlib import Path

from accelerate.utils import is_tensorboard_available

import cli
from fast.catalogue import CHECKPOINTS, SAMPLE_PHOTOS, find_model
from fast.training.job import SAVE_EVERY, SAVE_EVERY_ON_GPU, train
from fast.training.record import files_of, kept_checkpoints, written_files
from fast.training.settings import MIXED_PRECISIONS, TrainingSettings

# From a trained style, whose network knows photos, the objective gets further in equal time, and
# with a smaller learning rate than from nothing: after 770 steps for the Great Wave, at 512 px, to
# 1.37 (1.47 with the usual one) instead of 1.54.
RATE_FROM_A_STYLE = 0.015
# A glance at a style in some minutes on two CPU cores. The five photos in samples/ do for it: for
# the Great Wave, at 512 px, they take the objective to 1.58 in 480 steps (1.60 when 3,000 others
# took it to 1.51 in 600, and the paintings looked alike).
QUICK = {"steps": 480, "image_size": 256, "data": str(SAMPLE_PHOTOS)}
# The style that it starts from, by --width, --num-blocks and --stem-stride.
SHIPPED = {(32, 5, 1): "starry_night.pth", (32, 5, 2): "starry_night_lean.pth"}


def parse_args(description: str) -> argparse.Namespace:
    """Read the command line: style, photos, output and how to train."""
    keep = inspect.signature(train).parameters["keep"].default
    parser = cli.make_parser(description)
    files = parser.add_argument_group("files")
    files.add_argument("--style", type=Path, required=True, metavar="IMAGE", help="style picture")
    files.add_argument(
        "--data",
        metavar="FOLDER|FILE|hf:NAME",
        help="photos: a folder, a zip or tar archive (COCO's train2014.zip), parquet files, or a "
        "data set of the Hugging Face hub (default with --quick: those in samples/, else required)",
    )
    files.add_argument(
        "--data-limit", type=cli.positive_int, metavar="N", help="take the first N photos only"
    )
    files.add_argument(
        "--streaming",
        action="store_true",
        help="read parquet files or a data set of the hub while training, storing nothing; every "
        "process reads all of it by itself, and --resume reads it again up to there",
    )
    files.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.pth", help="checkpoint to write"
    )
    files.add_argument(
        "--title", default="", help="title of the style picture, kept in the checkpoint"
    )
    files.add_argument("--artist", default="", help="its artist")
    files.add_argument("--licence", default="", help="its licence")
    cli.add_settings(parser, TrainingSettings, "training")
    cli.add_loss_flags(parser)
    run = parser.add_argument_group("running")
    run.add_argument(
        "--quick",
        action="store_true",
        help=f"a glance at a style in minutes: unless said otherwise, {QUICK['steps']} steps with "
        f"crops of {QUICK['image_size']} px of the photos in samples/, from a shipped style whose "
        "network is the same, if there is one",
    )
    run.add_argument(
        "--init-from",
        type=find_model,
        metavar="NAME|FILE.pth",
        help="start from another style's weights, which gets further in equal time; the default "
        f"learning rate is {RATE_FROM_A_STYLE} then",
    )
    run.add_argument(
        "--save-every",
        type=cli.positive_int,
        metavar="N",
        help=f"steps between two checkpoints and previews (default: {SAVE_EVERY}, on a GPU "
        f"{SAVE_EVERY_ON_GPU})",
    )
    run.add_argument(
        "--keep",
        type=cli.not_negative,
        default=keep,
        metavar="N",
        help="older checkpoints to keep, as FILE.step500.pth (default: %(default)s)",
    )
    run.add_argument(
        "--resume", action="store_true", help="go on from the output if it exists; else start"
    )
    run.add_argument(
        "--force", action="store_true", help="start anew: overwrite or remove the output's files"
    )
    run.add_argument(
        "--mixed-precision",
        choices=("auto", *MIXED_PRECISIONS.values()),
        default="auto",
        help="precision of the convolutions; auto takes the fastest that is accurate here: bf16, "
        "int8 on CPUs with VNNI, or no, which is float32 (default: %(default)s)",
    )
    run.add_argument(
        "--compile",
        action="store_true",
        help="compile the network: a minute or more at first and again as the crops grow; needs a "
        "C++ compiler",
    )
    run.add_argument(
        "--cpu", action="store_true", help="train on the CPU even where there is a GPU"
    )
    run.add_argument(
        "--workers",
        type=cli.not_negative,
        default=max(1, min(8, (os.cpu_count() or 1) // 2)),
        metavar="N",
        help="processes that read photos; at most one for --streaming (default: %(default)s)",
    )
    run.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="write the losses for TensorBoard there"
    )
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args()
    start = args.init_from
    if not (args.quick or args.data):
        parser.error("--data is required without --quick")
    # What is not given depends on these flags: the words are parsed again.
    if args.quick:
        parser.set_defaults(**QUICK)
        shipped = SHIPPED.get((args.width, args.num_blocks, args.stem_stride))
        start = start or (shipped and CHECKPOINTS / shipped)
    if start:
        parser.set_defaults(init_from=start, learning_rate=RATE_FROM_A_STYLE)
    return parser.parse_args()


def check_flags(args: argparse.Namespace) -> None:
    """ValueError for files that cannot be read or must not be written."""
    if args.output.suffix != ".pth":
        raise ValueError(f"-o {args.output}: the name must end in .pth")
    if args.resume and args.force:
        raise ValueError("--resume goes on and --force starts anew; give one of them")
    for file in written_files(args.output):
        cli.check_output(file, exists_ok=True)
    if not args.style.is_file():
        raise ValueError(f"--style {args.style} is no file")
    ours = *written_files(args.output), *kept_checkpoints(args.output)
    ours = {os.path.realpath(file) for file in ours}
    for file in (args.style, args.init_from):
        if file and os.path.realpath(file) in ours:
            raise ValueError(f"-o {args.output}: the training would replace {file}")
    folder = Path(os.path.realpath(args.output)).parent
    if folder.is_relative_to(os.path.realpath(args.data)):
        raise ValueError(f"-o {args.output} is in --data, where its preview would become a photo")
    if args.tensorboard:
        _check_tensorboard(args.tensorboard, ours)


def _check_tensorboard(folder: Path, ours: set[str]) -> None:
    """ValueError unless TensorBoard's files can be written there, and none of ours lies there."""
    if os.path.realpath(folder) in ours:
        raise ValueError(f"--tensorboard {folder} is a file that the training writes")
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise ValueError(f"--tensorboard {folder}: {nearest} is no folder")
    cli.check_output(nearest / "events", exists_ok=True, flag="--tensorboard")
    if not is_tensorboard_available():
        raise ValueError('--tensorboard needs: pip install -e ".[tensorboard]"')


def check_existing(args: argparse.Namespace) -> None:
    """ValueError for files of an earlier training that nobody has said what to do with."""
    kept, there = list(kept_checkpoints(args.output)), files_of(args.output)
    if args.resume and kept and args.output not in there:
        raise ValueError(
            f"--resume: {args.output} is missing and {kept[-1]} is there; copy it to "
            f"{args.output.name} to go on from it, or start anew by --force"
        )
    if there and not (args.resume or args.force):
        raise ValueError(f"-o {there[0]} exists; go on by --resume, or start anew by --force")

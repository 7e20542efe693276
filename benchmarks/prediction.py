"""Speed of prediction beside the textbook implementation, in the same run.

    python -m benchmarks.prediction
    python -m benchmarks.prediction --size 512 --turns 5

Both compute the same function, one forward pass of the classic network; ours in the precision that
predict.py chooses here.
"""

import statistics
import time

import torch

import cli
from benchmarks.turns import in_turns, make_parser, print_machine
from fast.stylize import set_precision
from models.device import keep_pages, pick_device, pick_precision
from models.plain_net import PlainNet
from models.transformer_net import TransformerNet

REPEATS = 5  # after one that is not counted


@torch.inference_mode()
def images_per_second(ours: bool, size: int, device: torch.device) -> float:
    """Of forward passes of one image, in this process."""
    if ours:
        keep_pages()
    torch.manual_seed(0)
    image, net = torch.rand(1, 3, size, size, device=device), TransformerNet().eval().to(device)
    run = set_precision(net, pick_precision("auto", device)) if ours else PlainNet(net)
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run(image).cpu()  # waits until it is there
        seconds.append(time.perf_counter() - start)
    return 1 / statistics.median(seconds[1:])


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--size",
        type=cli.positive_int,
        default=1024,
        metavar="PX",
        help="side of the image (default: %(default)s)",
    )
    args = parser.parse_args()
    device = pick_device(args.device)
    if args.only:
        print(images_per_second(args.only == "ours", args.size, device))
        return cli.OK
    print_machine(device)
    if not args.turns:
        return cli.OK
    arguments = ["--size", str(args.size), "--device", str(device)]
    textbook, ours, ratio = in_turns("benchmarks.prediction", arguments, args.turns)
    print("| prediction | textbook | ours | ratio |\n| --- | --- | --- | --- |")
    print(f"| {args.size} px | {1 / textbook:.2f} s | {1 / ours:.2f} s | {ratio:.1f}x |")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)

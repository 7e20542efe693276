"""Speed of prediction beside the textbook implementation, in the same run.

    python -m benchmarks.prediction
    python -m benchmarks.prediction --sizes 512x512,3840x2160 --turns 5

Both compute the same function, the classic network's; ours as predict.py does it, in the precision
that it chooses here and with a margin and grain that the textbook does without. PSNR: how close
ours is to the textbook's float32, both with margin and grain, for the shipped starry_night.
Utilisation is the textbook's arithmetic, done as often as images are painted, beside the fastest
large matrix product here; ours does less of it.
"""

import math
import statistics
import time
from functools import partial

import torch
import torch.nn.functional as F

import cli
from benchmarks.arithmetic import matrix_rate, operations
from benchmarks.turns import in_turns, make_parser, print_machine
from fast.catalogue import SAMPLE_PHOTOS
from fast.stylize import load_net, set_precision, stylize
from media import find_images, read_image
from models.device import pick_device, pick_precision
from models.grain import GRAIN
from models.memory import keep_pages
from models.plain_net import PlainNet
from models.transformer_net import TransformerNet

REPEATS = 5  # after one that is not counted


@torch.inference_mode()
def images_per_second(ours: bool, width: int, height: int, device: torch.device) -> float:
    """Of one image at a time, in this process."""
    if ours:
        keep_pages()
    torch.manual_seed(0)
    image = torch.rand(1, 3, height, width, device=device)
    net = TransformerNet(grain=GRAIN if ours else 0).eval().requires_grad_(False).to(device)
    if ours:
        run = partial(stylize, set_precision(net, pick_precision("auto", device)))
    else:
        run = PlainNet(net)
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run(image)[0, 0, 0, 0].item()  # waits until it is there
        seconds.append(time.perf_counter() - start)
    return 1 / statistics.median(seconds[1:])


@torch.inference_mode()
def operations_per_pixel() -> float:
    """Of the textbook's forward pass."""
    side, net = 256, PlainNet(TransformerNet(grain=0))
    return operations(lambda: net(torch.rand(1, 3, side, side))) / side**2


@torch.inference_mode()
def psnr(device: torch.device) -> float:
    """Of starry_night's painting of a sample photo, in dB."""
    photo = read_image(find_images(SAMPLE_PHOTOS)[0], long_side=512).rgb.to(device)
    photo = photo[..., : photo.shape[2] // 4 * 4, : photo.shape[3] // 4 * 4]
    ours = stylize(load_net("starry_night", device=str(device)), photo)
    exact = load_net("starry_night", device=str(device), precision="float32")
    margin = exact.margin
    theirs = PlainNet(exact)(F.pad(photo, (margin,) * 4, mode="reflect")).clamp(0, 1)
    theirs = theirs[..., margin:-margin, margin:-margin]
    return -10 * math.log10((ours - theirs).square().mean().item())


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--sizes",
        type=cli.list_of(str),
        default=("1024x1024", "1920x1080"),
        metavar="WxH[,WxH]",
        help="of the image in px (default: 1024x1024,1920x1080)",
    )
    args = parser.parse_args()
    device = pick_device(args.device)
    if args.only:
        width, height = map(int, args.sizes[0].split("x"))
        print(images_per_second(args.only == "ours", width, height, device))
        return cli.OK
    print_machine(device)
    if not args.turns:
        return cli.OK
    share_of_a_pixel = operations_per_pixel() / matrix_rate(device)
    print("| prediction | textbook | ours | ratio | images/s | utilisation |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in args.sizes:
        arguments = ["--sizes", size, "--device", str(device)]
        textbook, ours, ratio = in_turns("benchmarks.prediction", arguments, args.turns)
        share = ours * math.prod(map(int, size.split("x"))) * share_of_a_pixel
        print(
            f"| {size} px | {1 / textbook:.3g} s | {1 / ours:.3g} s | {ratio:.1f}x "
            f"| {ours:.3g} | {share:.0%} |"
        )
    print(f"\nPSNR {psnr(device):.0f} dB")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)

"""Winograd against direct 3x3 convolutions on the CPU, at the sizes that the networks use.

    python -m benchmarks.convolution

Both in float32, channels-last, batch 4 of 256 px images; each figure is the fastest of six.
"""

from functools import partial

import torch
import torch.nn.functional as F

import cli
from models.memory import keep_pages
from models.timing import best_seconds
from models.winograd import winograd_conv3x3, winograd_kernel

# (layer, input channels, output channels, side in px)
LAYERS = (
    ("VGG conv1_2", 64, 64, 256),
    ("VGG conv2_1", 64, 128, 128),
    ("VGG conv2_2", 128, 128, 128),
    ("VGG conv3_1", 128, 256, 64),
    ("VGG conv3_2", 256, 256, 64),
    ("VGG conv4_1", 256, 512, 32),
    ("VGG conv4_2", 512, 512, 32),
    ("residual block", 128, 128, 64),
)


@torch.inference_mode()
def main() -> int:
    cli.make_parser(__doc__).parse_args()
    keep_pages()
    torch.manual_seed(0)
    print("| layer | direct | Winograd | ratio | error |\n| --- | --- | --- | --- | --- |")
    for name, in_channels, out_channels, side in LAYERS:
        x = torch.randn(4, side, side, in_channels).permute(0, 3, 1, 2)  # channels-last
        weight = torch.randn(out_channels, in_channels, 3, 3) / (3 * in_channels**0.5)
        kernel = winograd_kernel(weight)
        weight = weight.contiguous(memory_format=torch.channels_last)
        calls = (
            partial(F.conv2d, x, weight, padding=1),
            partial(winograd_conv3x3, x, kernel, padding=1),
        )
        exact, result = (call() for call in calls)
        error = (result - exact).norm() / exact.norm()
        direct, ours = (1000 * seconds for seconds in best_seconds(*calls))
        print(f"| {name} | {direct:.0f} ms | {ours:.0f} ms | {direct / ours:.1f}x | {error:.0e} |")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)

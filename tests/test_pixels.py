import torch

from media import as_bytes, as_float


def test_bytes_are_rounded_and_clamped():
    image = torch.tensor([-0.5, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 7.0])
    assert as_bytes(image).tolist() == [0, 0, 0, 1, 255, 255]
    assert image[0] == -0.5  # the image itself is left alone
    assert as_bytes(image.bfloat16().requires_grad_()).tolist() == [0, 0, 0, 1, 255, 255]


def test_all_bytes_survive_as_floats():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_bytes(as_float(levels)), levels)
    assert as_bytes(levels) is levels
    assert as_float(levels).dtype == torch.float32 and as_float(levels)[-1] == 1

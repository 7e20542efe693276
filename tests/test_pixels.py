import torch

from media import as_bytes, as_float, resize


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


def test_resized_images_keep_their_kind_and_range():
    checks = (torch.arange(48) // 6 % 2).float().expand(1, 1, 40, 48)  # bicubic overshoots
    larger = resize(checks, (60, 80))
    assert larger.shape == (1, 1, 60, 80) and larger.min() == 0 and larger.max() == 1
    of_bytes = resize(as_bytes(checks), (60, 80))
    assert of_bytes.dtype == torch.uint8
    assert (of_bytes.float() - as_bytes(larger).float()).abs().max() <= 1
    assert resize(checks, checks.shape[-2:]) is checks
    of_half_precision = resize(checks.bfloat16(), (60, 80))
    assert torch.equal(of_half_precision, larger.bfloat16())


def test_a_smaller_image_has_no_aliasing():
    fine = torch.arange(64).remainder(2).float().expand(1, 1, 64, 64)
    assert (resize(fine, (16, 16)) - 0.5).abs().max() < 0.05

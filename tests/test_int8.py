import pytest
import torch
import torch.nn.functional as F

from models import int8
from models.device import pick_precision
from models.int8 import ZERO, Int8Kernel, Levels, quantize
from tests.conftest import NEEDS_INT8

pytestmark = NEEDS_INT8


def channels_last(*size):
    return torch.randn(size).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("zero", [0, ZERO])
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 0), (1, 2)])
def test_whole_numbers_are_convolved_exactly(zero, stride, padding):
    torch.manual_seed(0)
    numbers = torch.randint(0, 256, (2, 7, 9, 11), dtype=torch.uint8)
    numbers = numbers.contiguous(memory_format=torch.channels_last)
    weight = torch.randint(-127, 128, (5, 7, 3, 3)).float()
    weight[:, 0, 0, 0] = 127  # so that each output channel has steps of 1
    bias = torch.tensor([1.0, -2.0, 3.0, 0.0, 100.0])
    stride, padding = (stride, stride), (padding, padding)
    kernel = Int8Kernel(weight, zero=zero, stride=stride, padding=padding)
    expected = F.conv2d(numbers.float() - zero, weight, bias, stride=stride, padding=padding)
    torch.testing.assert_close(kernel.convolve(numbers, 1.0, bias), expected, rtol=1e-6, atol=0.1)
    halves = kernel.convolve(numbers, 0.5)
    torch.testing.assert_close(halves, (expected - bias.view(-1, 1, 1)) / 2, rtol=1e-6, atol=0.1)


@pytest.mark.parametrize("part", [int8.PART, 10])
def test_rounding_is_to_the_next_number(monkeypatch, part):
    monkeypatch.setattr(int8, "PART", part)
    values = torch.tensor([-2.0, -0.6, -0.4, 0.0, 0.4, 0.6, 1.0, 127.0]).view(1, 2, 2, 2)
    numbers, step = quantize(values)
    assert step == 1
    expected = ZERO + torch.tensor([-2, -1, 0, 0, 0, 1, 1, 127])
    assert torch.equal(numbers.flatten().int(), expected.int())
    numbers, step = quantize(values.abs(), zero=0)
    assert (numbers * step - values.abs()).abs().max() <= 0.51 * step


def test_rounding_is_off_by_half_a_step_at_most():
    torch.manual_seed(0)
    values = channels_last(2, 3, 20, 30)
    numbers, step = quantize(values)
    assert numbers.is_contiguous(memory_format=torch.channels_last)
    assert ((numbers.float() - ZERO) * step - values).abs().max() < 0.51 * step


def test_nothing_but_zeros_stays_so():
    numbers, step = quantize(torch.zeros(1, 3, 4, 4))
    assert (numbers == ZERO).all() and step > 0
    kernel = Int8Kernel(torch.zeros(2, 3, 3, 3), zero=ZERO)
    assert torch.equal(kernel.convolve(numbers, step), torch.zeros(1, 2, 2, 2))


def test_a_grid_reaches_from_the_lowest_to_the_highest():
    low, high = torch.tensor([0.0, 0.0]), torch.tensor([51.0, 0.0])
    levels = Levels.between(low, high)
    assert levels.zero == 0 and levels.step[0] == 0.2 and 0 < levels.step[1] < 0.2
    assert (Levels.between(0 * low, 0 * high).step > 0).all()
    levels = Levels.between(low - 254, high)
    assert levels.zero == ZERO and torch.equal(levels.step, torch.tensor([2.0, 2.0]))


def test_a_kernel_on_a_grid_takes_its_numbers():
    torch.manual_seed(0)
    levels = Levels(torch.tensor([0.1, 3.0, 0.5]), 0)
    numbers = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    numbers = numbers.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(4, 3, 3, 3)
    expected = F.conv2d(numbers * levels.step.view(-1, 1, 1), weight)
    error = Int8Kernel.on(levels, weight).convolve(numbers) - expected
    assert error.norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_normalisation_and_relu_within_the_convolution(dtype):
    torch.manual_seed(0)
    numbers = torch.randint(0, 256, (1, 4, 8, 8), dtype=torch.uint8)
    numbers = numbers.contiguous(memory_format=torch.channels_last)
    kernel = Int8Kernel(torch.randn(6, 4, 3, 3), zero=0)
    factor, summand = torch.tensor([0.2, -0.3, 1.0]), torch.tensor([30.0, 0.0, -100.0])
    result = kernel.normalizing(factor, summand, dtype).convolve(numbers)
    factor, summand = (t.repeat(2).view(-1, 1, 1) for t in (factor, summand))
    expected = (kernel.convolve(numbers) * factor + summand).clamp(min=0)
    assert result.dtype == dtype and (expected == 0).any() and (expected > 255).any()
    if dtype == torch.uint8:
        assert (result - expected.clamp(max=255)).abs().max() < 0.51
    else:
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-3)


def test_what_is_no_number_stays_so():
    kernel = Int8Kernel(torch.full((2, 3, 3, 3), float("nan")), zero=ZERO)
    assert kernel.convolve(*quantize(channels_last(1, 3, 5, 5))).isnan().all()
    kernel = Int8Kernel(torch.ones(2, 3, 3, 3), zero=ZERO)
    for wrong in (float("nan"), float("inf")):
        assert not kernel.convolve(*quantize(torch.full((1, 3, 5, 5), wrong))).isfinite().any()


def test_the_smallest_values_are_rounded_too():
    numbers, step = quantize(torch.full((1, 3, 5, 5), 1e-38))
    assert step > 0 and (numbers == ZERO).all()


def test_other_devices_have_none():
    assert not int8.is_exact(torch.device("meta"))
    with pytest.raises(ValueError, match="int8"):
        pick_precision("int8", torch.device("meta"))

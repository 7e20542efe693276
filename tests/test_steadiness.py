import pytest
import torch
from torch import Tensor

from fast.video import Steadiness
from media import as_bytes, resize
from tests.conftest import smooth_image

HEIGHT, WIDTH = 120, 160


def textured(height: int, width: int, *, seed: int = 0) -> Tensor:
    """A photo with detail that optical flow can follow, float32 in [0, 1]."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2)
    return (smooth_image(height, width, seed=seed) + 2 * (fine - 0.5)).clamp(0, 1)


def strokes(seed: int) -> Tensor:
    """What a network might paint: something else each time."""
    return as_bytes(textured(HEIGHT, WIDTH, seed=100 + seed))


def change(a: Tensor, b: Tensor) -> float:
    return (a.float() - b.float()).abs().mean().item()


def test_where_nothing_moves_strokes_stay():
    steady, photo = Steadiness(), as_bytes(textured(HEIGHT, WIDTH))
    first = steady(photo, strokes(0))
    assert torch.equal(first, strokes(0))
    for seed in range(1, 5):
        noise = torch.randint(-2, 3, photo.shape, generator=torch.Generator().manual_seed(seed))
        noisy = (photo.int() + noise).clamp(0, 255).byte()
        assert change(steady(noisy, strokes(seed)), first) < 1
    assert change(strokes(1), first) > 20


def test_strokes_move_with_the_photo():
    """The camera pans by 3 px a frame."""
    scene = as_bytes(textured(HEIGHT, WIDTH + 30))
    painted = as_bytes(textured(HEIGHT, WIDTH + 30, seed=100))
    steady = Steadiness()
    for number in range(8):
        x = 3 * number
        own = painted[..., x : x + WIDTH] if number == 0 else strokes(number)
        result = steady(scene[..., x : x + WIDTH], own)
    inner = slice(20, WIDTH - 45)  # what enters at the right border is not known
    assert change(result[..., inner], painted[..., 21 : 21 + WIDTH][..., inner]) < 5
    assert change(result[..., -1:], own[..., -1:]) < 5


def test_strokes_stay_as_strong_as_they_were():
    """Moved by half a pixel 200 times, they neither fade nor grow beyond black and white."""
    width = WIDTH + 120
    scene = textured(HEIGHT, width)
    steady, first = Steadiness(), None
    for number in range(200):
        x, rest = divmod(number, 2)
        photo = scene[..., x : x + WIDTH]
        if rest:
            photo = (photo + scene[..., x + 1 : x + 1 + WIDTH]) / 2
        result = steady(as_bytes(photo), strokes(number % 3)).float()
        first = result if first is None else first
    assert 0 <= steady.painting.min() and steady.painting.max() <= 255
    assert 0.4 < result.std() / first.std() < 1.1


def test_large_frames_are_compared_at_a_smaller_size():
    """A pan over a frame of twice the size at which frames are compared."""
    scene, painted = (as_bytes(textured(540, 1020, seed=seed)) for seed in (0, 100))
    steady = Steadiness()
    for number in range(4):
        x = 8 * number
        own = painted if number == 0 else as_bytes(textured(540, 1020, seed=200 + number))
        result = steady(scene[..., x : x + 960], own[..., :960])
    assert change(result[..., 100:800], painted[..., x:][..., 100:800]) < 6


def test_what_is_enlarged_too_far_is_painted_anew():
    """The camera comes nearer by 4 % a frame."""
    scene, steady = textured(HEIGHT, WIDTH), Steadiness()
    first = steady(as_bytes(scene), strokes(0))
    nearer = first
    for number in range(1, 26):
        height, width = (round(side / 1.04**number) for side in (HEIGHT, WIDTH))
        top, left = (HEIGHT - height) // 2, (WIDTH - width) // 2
        cut = (slice(None), slice(None), slice(top, top + height), slice(left, left + width))
        result = steady(as_bytes(resize(scene[cut], (HEIGHT, WIDTH))), strokes(1))
        nearer = resize(first[cut], (HEIGHT, WIDTH))
    middle = (..., slice(40, 80), slice(50, 110))
    assert change(result[middle], strokes(1)[middle]) < change(result[middle], nearer[middle])


def test_what_changes_is_painted_anew():
    steady, photo = Steadiness(), as_bytes(textured(HEIGHT, WIDTH))
    first = steady(photo, strokes(0))
    brighter = photo.clone()
    brighter[..., 80:] = 255 - brighter[..., 80:]
    second = steady(brighter, strokes(1))
    assert change(second[..., :60], first[..., :60]) < 2
    assert change(second[..., 100:], strokes(1)[..., 100:]) < 2


def test_slow_changes_add_up():
    """A photo that fades by less than what is kept is painted anew in the end."""
    photo, steady = textured(HEIGHT, WIDTH), Steadiness()
    first = steady(as_bytes(photo), strokes(0))
    for number in range(1, 30):
        last = steady(as_bytes(photo * (1 - number / 40)), strokes(1))
    assert change(last, first) > 10


def test_a_new_scene_begins_with_its_own_strokes():
    steady = Steadiness()
    steady(as_bytes(textured(HEIGHT, WIDTH)), strokes(0))
    assert torch.equal(steady(as_bytes(textured(HEIGHT, WIDTH, seed=1)), strokes(1)), strokes(1))


def test_another_size_begins_anew():
    steady = Steadiness()
    steady(as_bytes(textured(HEIGHT, WIDTH)), strokes(0))
    small = as_bytes(textured(60, 80))
    assert torch.equal(steady(small, small), small)


def test_a_sheet_of_several_paintings_stays_as_it_is():
    """The photo's motion is not the sheet's."""
    steady = Steadiness()
    sheets = [as_bytes(textured(HEIGHT, 2 * WIDTH, seed=seed)) for seed in range(3)]
    photo = as_bytes(textured(HEIGHT, WIDTH))
    assert all(torch.equal(steady(photo, sheet), sheet) for sheet in sheets)


def test_without_steadiness_paintings_stay_as_they_are():
    steady, photo = Steadiness(0), as_bytes(textured(HEIGHT, WIDTH))
    assert all(torch.equal(steady(photo, strokes(seed)), strokes(seed)) for seed in range(3))


def test_more_steadiness_keeps_more():
    """Half as many grey levels again are too many for the usual steadiness, not for twice that."""
    photo, changes = textured(HEIGHT, WIDTH) / 2 + 0.25, []
    for amount in (0.5, 1.0, 2.0):
        steady = Steadiness(amount)
        first = steady(as_bytes(photo), strokes(0))
        changes.append(change(steady(as_bytes(photo + 9 / 255), strokes(1)), first))
    assert changes[0] > 1.5 * changes[1] > 4 * changes[2]


@pytest.mark.parametrize("amount", [-0.1, 2.1, float("nan")])
def test_steadiness_out_of_range(amount):
    with pytest.raises(ValueError, match="--steadiness"):
        Steadiness(amount)

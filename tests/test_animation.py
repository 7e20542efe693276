import torch
from PIL import Image

from media.animation import write_animation
from tests.conftest import smooth_image


def test_animation_has_all_frames_and_repeats(tmp_path):
    frames = [smooth_image(20, 30, seed=seed) for seed in range(4)]
    write_animation(tmp_path / "a.gif", frames, frames_per_second=10)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (4, (30, 20), 0)
        durations = []
        for number in range(4):
            gif.seek(number)
            durations.append(gif.info["duration"])
        shown = torch.tensor(list(gif.convert("RGB").tobytes())).view(20, 30, 3)
    assert durations == [100, 100, 100, 2000]
    assert (shown / 255 - frames[-1][0].permute(1, 2, 0)).abs().mean() < 0.05

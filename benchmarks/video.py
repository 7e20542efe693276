"""How steady painted videos are, and how fast they are painted beside the textbook's loop.

    python -m benchmarks.video
    python -m benchmarks.video --model great_wave --turns 0

Flicker is the mean change of the painting from frame to frame, in grey levels, of what stays in
view: of a photo with new noise in each frame, 2 grey levels at most, and with that noise and a
camera that pans over it by 3 px a frame. The textbook decodes, paints and encodes one frame of the
clip in samples/ after the other, by its own implementation and without the sound.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import cli
import fast
from benchmarks.turns import in_turns, make_parser, print_machine
from fast.catalogue import SAMPLE_PHOTOS, SAMPLES
from fast.stylize import load_net
from fast.video import CRF, Steadiness, paint_video
from media import pyav, read_frames, read_image
from media.images import scaled_size
from models.device import pick_device
from models.memory import keep_pages
from models.plain_net import PlainNet

CLIP = SAMPLES / "clip.mp4"
SIZE = 1280  # px: longer side for the speed
TEXTBOOK_FRAMES = 12
NOISE = 2  # grey levels
PAN, NUM_FRAMES, WIDTH = 3, 30, 480  # px a frame; of the clips for the flicker
AMOUNTS = 0.0, 1.0


def frames_per_second(ours: bool, device: torch.device) -> float:
    """Of the clip, enlarged, from file to file."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "painted.mp4")
        if ours:
            keep_pages()
            model = fast.load("starry_night", device=str(device))
            start = time.perf_counter()
            paint_video(CLIP, target, model, size=SIZE)
        else:
            net = PlainNet(load_net("starry_night", device=str(device), precision="float32"))
            start = time.perf_counter()
            textbook_video(target, net, device)
        seconds = time.perf_counter() - start
        return len(list(read_frames(target))) / seconds


@torch.inference_mode()
def textbook_video(target: Path, net: PlainNet, device: torch.device) -> None:
    """Some frames, one after the other."""
    av = pyav()
    with av.open(str(CLIP)) as photos, av.open(str(target), "w") as paintings:
        stream = photos.streams.video[0]
        video = paintings.add_stream("libx264", stream.average_rate, {"crf": str(CRF)})
        width, height = scaled_size((stream.width, stream.height), SIZE)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for photo in islice(photos.decode(stream), TEXTBOOK_FRAMES):
            photo = photo.reformat(width, height, "rgb24")
            image = torch.from_numpy(photo.to_ndarray()).to(device)
            painting = net(image.permute(2, 0, 1)[None] / 255)[0].clamp(0, 1).permute(1, 2, 0)
            levels = (255 * painting[:height, :width]).byte().cpu().numpy()
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format="rgb24")
            paintings.mux(video.encode(frame))
        paintings.mux(video.encode())


def views(step: int) -> list[Tensor]:
    """What a camera sees of a sample photo that it passes by so many px a frame."""
    width = WIDTH + PAN * NUM_FRAMES
    scene = read_image(SAMPLE_PHOTOS / "aizkorri.jpg", long_side=width).pixels
    generator = torch.Generator().manual_seed(0)
    photos = []
    for number in range(NUM_FRAMES):
        view = scene[..., step * number :][..., :WIDTH].int()
        noise = torch.randint(-NOISE, NOISE + 1, view.shape, generator=generator)
        photos.append((view + noise).clamp(0, 255).byte())
    return photos


def flicker(paintings: Sequence[Tensor], step: int) -> float:
    """Mean change of what stays in view, in grey levels."""
    frames = [painting.float() for painting in paintings]
    changes = [
        (new[..., : WIDTH - step] - old[..., step:]).abs().mean().item()
        for old, new in zip(frames, frames[1:], strict=False)
    ]
    return statistics.mean(changes)


def steadied(photos: Sequence[Tensor], paintings: Sequence[Tensor], amount: float) -> list[Tensor]:
    """The paintings as a video gets them."""
    steady = Steadiness(amount)
    return [steady(photo, painting) for photo, painting in zip(photos, paintings, strict=True)]


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--model",
        nargs="+",
        default=["starry_night"],
        metavar="NAME|PATH",
        help="whose flicker is measured (default: starry_night)",
    )
    args = parser.parse_args()
    device = pick_device(args.device)
    if args.only:
        print(frames_per_second(args.only == "ours", device))
        return cli.OK
    print_machine(device)
    if args.turns:
        flags = ["--device", str(device)]
        textbook, ours, ratio = in_turns("benchmarks.video", flags, args.turns)
        print("| video, 1280x720 px | textbook | ours, steady | ratio |")
        print("| --- | --- | --- | --- |")
        print(f"| frames/s | {textbook:.3g} | {ours:.3g} | {ratio:.1f}x |\n")
    print("| flicker | --steadiness | camera at rest | in a pan |")
    print("| --- | --- | --- | --- |")
    for name in args.model:
        model = fast.load(name, device=args.device)
        clips = [(step, views(step)) for step in (0, PAN)]
        painted = [[model(photo) for photo in photos] for _, photos in clips]
        for amount in AMOUNTS:
            at_rest, in_pan = (
                flicker(steadied(photos, paintings, amount), step)
                for (step, photos), paintings in zip(clips, painted, strict=True)
            )
            print(f"| {Path(name).stem} | {amount:g} | {at_rest:.1f} | {in_pan:.1f} |", flush=True)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)

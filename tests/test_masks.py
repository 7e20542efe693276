"""Mask files to regions, and the flags."""

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from media import Picture, as_bytes, read_image, write_image
from media.segments import is_colored, read_segments
from slow import __main__ as slow_cli
from slow.masks import read_regions
from slow.recipe import read_recipe
from tests.conftest import smooth_image

SIZES = ((48, 64), (48, 48), (48, 60))
CONTENT, STYLE, OTHER = (
    Picture(as_bytes(smooth_image(*size, seed=seed))) for seed, size in enumerate(SIZES)
)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save(path, *columns, size=(64, 48)):
    """An image file of vertical bands."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    for number, color in enumerate(columns):
        pixels[:, number * width // len(columns) :] = color
    Image.fromarray(pixels).save(path)
    return path


def test_coloured_masks_are_told_from_grey_ones(tmp_path):
    assert is_colored(save(tmp_path / "a.png", RED, BLUE))
    assert is_colored(save(tmp_path / "b.png", 0, 255, 0, GREEN))
    assert not is_colored(save(tmp_path / "c.png", 0, 128, 255))


def test_segments_in_their_order_without_black(tmp_path):
    path = save(tmp_path / "a.png", BLUE, RED, (0, 0, 0), RED)
    segments = read_segments(path, CONTENT)
    assert list(segments) == ["#0000ff", "#ff0000"]
    middles = [[mask[0, 0, 24, x].item() for x in (8, 24, 40, 56)] for mask in segments.values()]
    assert middles == [[255, 0, 0, 0], [0, 255, 0, 255]]


def test_black_alone_is_no_area(tmp_path):
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[10:30, 10:30, 0] = 56 + np.arange(400).reshape(20, 20) // 2  # each colour twice
    Image.fromarray(pixels).save(tmp_path / "blurred.png")
    assert is_colored(tmp_path / "blurred.png")
    with pytest.raises(ValueError, match="no areas of one colour"):
        read_segments(tmp_path / "blurred.png", CONTENT)


def test_pixels_belong_to_the_nearest_of_given_colours(tmp_path):
    path = save(tmp_path / "a.png", (230, 20, 30), (10, 0, 20))
    segments = read_segments(path, CONTENT, colors=["#ff0000", "#00ff00"])
    assert segments["#ff0000"][0, 0, 24].tolist()[8::32] == [255, 0]
    assert not segments["#00ff00"].any()


def test_one_mask_is_for_all_styles(tmp_path):
    mask = save(tmp_path / "m.png", 255, 0)
    (region,) = read_regions([mask], [], CONTENT, [STYLE, OTHER], (1, 3))
    assert region.style_blend == (0.25, 0.75) and region.style_masks == (None, None)
    assert region.mask.shape == (1, 1, 48, 64)
    assert region.mask[0, 0, 24, [0, 63]].tolist() == [1, 0]


def test_a_mask_for_each_style(tmp_path):
    masks = [save(tmp_path / "l.png", 255, 0), save(tmp_path / "r.png", 0, 255)]
    parts = [save(tmp_path / f"{k}.png", 255, 0, size=s) for k, s in ((0, (48, 48)), (1, (60, 48)))]
    regions = read_regions(masks, parts, CONTENT, [STYLE, OTHER])
    assert [region.style_blend for region in regions] == [(1, 0), (0, 1)]
    assert [region.mask[0, 0, 24, 0] for region in regions] == [1, 0]
    assert regions[1].style_masks[1].shape == (1, 1, 48, 60)


def test_parts_of_one_style_for_several_masks(tmp_path):
    masks = [save(tmp_path / "l.png", 255, 0), save(tmp_path / "r.png", 0, 255)]
    parts = [save(tmp_path / f"{k}.png", *k, size=(48, 48)) for k in ((255, 0), (0, 255))]
    regions = read_regions(masks, parts, CONTENT, [STYLE])
    assert [region.style_masks[0][0, 0, 24, 0] for region in regions] == [1, 0]


def test_style_masks_alone(tmp_path):
    part = save(tmp_path / "p.png", 255, 0, size=(48, 48))
    (region,) = read_regions([], [part], CONTENT, [STYLE])
    assert region.mask.min() == 1 and region.style_masks[0][0, 0, 24, 47] == 0


def test_regions_by_colour(tmp_path):
    mask = save(tmp_path / "m.png", RED, GREEN)
    first = save(tmp_path / "a.png", GREEN, RED, size=(48, 48))
    second = save(tmp_path / "b.png", RED, 0, size=(60, 48))
    red, green = read_regions([mask], [first, second], CONTENT, [STYLE, OTHER])
    assert red.mask[0, 0, 24, [0, 63]].tolist() == [1, 0]
    assert red.style_blend == (0.5, 0.5) and green.style_blend == (1, 0)
    assert red.style_masks[0][0, 0, 24, [0, 47]].tolist() == [0, 1]
    assert green.style_masks[1] is None
    red, green = read_regions([mask], [], CONTENT, [STYLE, OTHER])
    assert (red.style_blend, green.style_blend) == ((1, 0), (0, 1))


def photos(tmp_path):
    for name, image in (("content.png", CONTENT), ("style.png", STYLE), ("other.png", OTHER)):
        write_image(tmp_path / name, image.pixels)
    return tmp_path / "content.png", tmp_path / "style.png"


FLAGS = ("--size", 64, "--steps", 4, "--min-size", 0, "--quiet")
LAYERS = ("--content-layers", "relu2_1", "--style-layers", "relu1_1,relu2_1")


def test_command_leaves_the_photo_outside_and_keeps_the_masks_in_the_recipe(run, tmp_path):
    content, style = photos(tmp_path)
    mask = save(tmp_path / "mask.png", 255, 0)
    out = tmp_path / "out.png"
    code, _, err = run(slow_cli, content, style, "-o", out, "--content-mask", mask, *FLAGS, *LAYERS)
    assert code == 0, err
    assert read_recipe(out).content_masks == (str(mask),)
    assert str(mask) in read_recipe(out).files
    before, after = (read_image(path).pixels for path in (content, out))
    assert torch.equal(after[..., 36:], before[..., 36:])
    assert not torch.equal(after[..., :28], before[..., :28])
    again = tmp_path / "again.png"
    code, _, err = run(slow_cli, "--from", out, "-o", again, "--quiet")
    assert code == 0, err
    assert torch.equal(read_image(again).pixels, after)


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("--content-mask", "none.png"), "none.png"),
        (
            ("--content-mask", "square.png"),
            "--content-mask square.png has 48x48 px, and not its picture's 64x48 px",
        ),
        (("--content-mask", "half.png"), "half.png has 32x30 px, and not its picture's 64x48 px"),
        (("--content-mask", "half_colours.png"), "half_colours.png has 32x30 px"),
        (
            ("--style-mask", "square.png", "half.png"),
            "--style-mask half.png has 32x30 px, and not its picture's 60x48 px",
        ),
        (("--content-mask", "black.png"), "black all over"),
        (("--content-mask", "text.png"), "not an image"),
        (("--content-mask", "mask.png", "mask.png", "mask.png"), "3 regions"),
        (("--content-mask", "mask.png", "colours.png"), "in colours"),
        (("--content-mask", "colours.png", "--style-mask", "square.png"), "in colours is needed"),
        (("--style-mask", "square.png"), "--style-mask: 2 are needed"),
        (("--style-mask", "mask.png", "mask.png"), "--style-mask"),
        (("--content-mask", "mask.png", "mask.png", "--style-blend", "1,2"), "--style-blend"),
    ],
)
def test_wrong_masks_are_one_line_and_exit_code_2(run, tmp_path, monkeypatch, flags, what):
    monkeypatch.chdir(tmp_path)
    content, style = photos(tmp_path)
    save("mask.png", 255, 0)
    save("black.png", 0)
    save("colours.png", RED, GREEN)
    save("square.png", 255, 0, size=(48, 48))
    save("half.png", 255, 0, size=(32, 30))
    save("half_colours.png", RED, GREEN, size=(32, 30))
    (tmp_path / "text.png").write_text("no image")
    code, out, err = run(
        slow_cli, content, style, "other.png", "-o", "out.png", *flags, *FLAGS, *LAYERS
    )
    assert (code, out) == (2, ""), err
    assert what in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out.png").exists()


def test_masks_are_scaled_together_with_their_pictures(tmp_path):
    """By their files' sizes: one has the photo's after its orientation."""
    lying = Image.open(save(tmp_path / "photo.png", 10, 200, size=(64, 48)))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    lying.save(tmp_path / "photo.jpg", exif=exif)
    mask = save(tmp_path / "mask.png", 255, 0, size=(48, 64))
    content = read_image(tmp_path / "photo.jpg", long_side=20)
    (region,) = read_regions([mask], [], content, [STYLE])
    assert region.mask.shape == (1, 1, 20, 15)
    lying_mask = save(tmp_path / "lying.png", 255, 0)
    with pytest.raises(ValueError, match="lying.png has 64x48 px, and not its picture's 48x64 px"):
        read_regions([lying_mask], [], content, [STYLE])


def save_transparent(path, image, *, shown):
    """A picture that is opaque where a mask image (H, W) is white, and black where it is not."""
    alpha = Image.open(shown).convert("L")
    hidden = np.where(np.array(alpha)[..., None] > 0, as_bytes(image)[0].permute(1, 2, 0), 0)
    picture = Image.fromarray(hidden.astype(np.uint8))
    picture.putalpha(alpha)
    picture.save(path)
    return path


@pytest.fixture
def half_transparent(tmp_path):
    """A photo; a style picture whose right half is transparent; the same in opaque black; and the
    mask of its left half.
    """
    content, style = photos(tmp_path)
    mask = save(tmp_path / "left.png", 255, 0, size=(48, 48))
    save_transparent(style, STYLE.pixels, shown=mask)
    opaque = tmp_path / "opaque.png"
    Image.open(style).convert("RGB").save(opaque)
    return content, style, opaque, mask


def painted(run, *arguments, output):
    code, _, err = run(slow_cli, *arguments, "-o", output, *FLAGS, *LAYERS)
    assert code == 0, err
    return read_image(output).pixels


def test_what_is_transparent_in_a_style_does_not_count(run, tmp_path, half_transparent):
    content, style, opaque, mask = half_transparent
    result = painted(run, content, style, output=tmp_path / "a.png")
    masked = painted(run, content, opaque, "--style-mask", mask, output=tmp_path / "b.png")
    black = painted(run, content, opaque, output=tmp_path / "c.png")
    assert torch.equal(result, masked)
    assert not torch.equal(result, black)


def test_one_of_two_styles_is_transparent(run, tmp_path, half_transparent):
    content, style, opaque, mask = half_transparent
    other, white = tmp_path / "other.png", save(tmp_path / "white.png", 255, size=(60, 48))
    blend = ("--style-blend", "1,2")
    result = painted(run, content, style, other, *blend, output=tmp_path / "a.png")
    masks = ("--style-mask", mask, white)
    expected = painted(run, content, opaque, other, *blend, *masks, output=tmp_path / "b.png")
    assert (result.short() - expected.short()).abs().max() <= 1  # a mask of ones, but for rounding


def test_an_alpha_channel_that_hides_nothing_changes_nothing(run, tmp_path):
    content, style = photos(tmp_path)
    expected = painted(run, content, style, output=tmp_path / "a.png")
    Image.open(style).convert("RGBA").save(style)
    assert torch.equal(painted(run, content, style, output=tmp_path / "b.png"), expected)


def test_memory_and_time_are_told_with_a_transparent_style(run, tmp_path, half_transparent):
    content, style, *_ = half_transparent
    flags = [flag for flag in FLAGS if flag != "--quiet"]
    code, _, err = run(slow_cli, content, style, "-o", tmp_path / "a.png", *flags, *LAYERS)
    assert code == 0 and "64x48 px as a whole: about" in err


def test_transparent_styles_in_a_folder(run, tmp_path, half_transparent):
    content, style, opaque, mask = half_transparent
    folder = tmp_path / "styles"
    folder.mkdir()
    style.rename(folder / "a.png")
    (tmp_path / "other.png").rename(folder / "b.png")
    code, out, _ = run(slow_cli, content, folder, "-o", tmp_path / "out", *FLAGS, *LAYERS)
    assert code == 0 and len(out.split()) == 2
    masked = painted(run, content, opaque, "--style-mask", mask, output=tmp_path / "a.png")
    alone = painted(run, content, folder / "b.png", output=tmp_path / "b.png")
    for name, expected in (("a", masked), ("b", alone)):
        assert torch.equal(read_image(tmp_path / "out" / f"content_{name}.png").pixels, expected)


def test_style_masks_and_transparency_count_together(tmp_path, half_transparent):
    _, path, _, left = half_transparent
    style = read_image(path)
    top = Image.new("L", (48, 48), 0)
    top.paste(255, (0, 0, 48, 24))
    top.save(tmp_path / "top.png")
    (region,) = read_regions([], [tmp_path / "top.png"], CONTENT, [style])
    corners = region.style_masks[0][0, 0, [5, 5, 42, 42], [5, 42, 5, 42]]
    assert corners.tolist() == [1, 0, 0, 0]

    mask, parts = save(tmp_path / "m.png", RED, GREEN), tmp_path / "parts.png"
    save(parts, RED, GREEN, size=(48, 48))  # green only where the style is transparent
    other = save(tmp_path / "o.png", GREEN, size=(60, 48))
    red, green = read_regions([mask], [parts, other], CONTENT, [style, OTHER])
    assert (red.style_blend, green.style_blend) == ((1, 0), (0, 1))
    assert red.style_masks[0].mean() > 0.4


def test_transparent_styles_that_leave_nothing_are_one_line(run, tmp_path, half_transparent):
    content, style, *_ = half_transparent
    right = save(tmp_path / "right.png", 0, 0, 0, 255, size=(48, 48))
    out = ("-o", tmp_path / "out.png")
    code, _, err = run(slow_cli, content, style, "--style-mask", right, *out, *FLAGS, *LAYERS)
    assert code == 2 and f"--style-mask {right} shows only what is transparent" in err
    nothing, speck = Image.new("RGBA", (300, 300)), Image.new("RGBA", (300, 300))
    speck.putpixel((9, 9), (255, 0, 0, 1))  # lost in the softening
    for picture in nothing, speck:
        picture.save(style)
        code, _, err = run(slow_cli, content, style, *out, *FLAGS, *LAYERS, "--size", 300)
        assert code == 2 and err == f"error: {style} is transparent all over\n"


def test_masks_are_not_for_folders(run, tmp_path):
    content, style = photos(tmp_path)
    mask = save(tmp_path / "mask.png", 255, 0)
    code, _, err = run(
        slow_cli, tmp_path, style, "-o", tmp_path / "out", "--content-mask", mask, *FLAGS
    )
    assert code == 2 and "not for folders" in err

"""Recipes: what is embedded in a result, and that it makes the same result again."""

import json
from dataclasses import replace

import pytest
import torch

from media import read_image, write_image
from slow import __main__ as slow_cli
from slow.recipe import read_recipe, recipe_from
from tests.conftest import smooth_image

FEW = ["--size", 40, "--steps", 4, "--content-layers", "relu2_1", "--style-layers", "relu1_1"]


@pytest.fixture
def made(run, tmp_path):
    """A painting, from two styles and with some unusual settings."""

    def make(name="out.png"):
        for file, seed in (("content.png", 0), ("a.png", 1), ("b.png", 2)):
            write_image(tmp_path / file, smooth_image(32, 40, seed=seed))
        inputs = [tmp_path / file for file in ("content.png", "a.png", "b.png")]
        flags = ["--style-blend", "2,1", "--seed", 5, "--init", "noise", "--colors", "match"]
        code, _, _ = run(slow_cli, *inputs, "-o", tmp_path / name, *FEW, *flags)
        assert code == 0
        return tmp_path / name

    return make


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_a_recipe_makes_the_same_painting_again(run, made, suffix, tmp_path):
    first, again = made(f"out.{suffix}"), tmp_path / f"again.{suffix}"
    code, out, _ = run(slow_cli, "--from", first, "-o", again, "--quiet")
    assert (code, out) == (0, f"{again}\n")
    assert torch.equal(read_image(first).rgb, read_image(again).rgb)
    assert read_recipe(first) == read_recipe(again)


def test_a_recipe_is_printed_as_json(run, made, tmp_path):
    code, out, err = run(slow_cli, "--recipe", made())
    printed = json.loads(out)
    assert (code, err) == (0, "")
    assert printed["content"] == str(tmp_path / "content.png")
    assert printed["style_blend"] == [2, 1] and printed["settings"]["seed"] == 5
    assert printed["loss"]["style_layers"] == ["relu1_1"]
    assert len(printed["files"]) == 3 and all(len(sha) == 64 for sha in printed["files"].values())
    assert 1 <= printed["result"]["step"] <= 4 and printed["result"]["loss"] > 0
    assert printed["complete"] is True


def test_what_is_given_counts_instead_of_the_recipe(run, made, tmp_path):
    write_image(tmp_path / "other.png", smooth_image(20, 30))
    code, _, _ = run(
        slow_cli, tmp_path / "other.png", "--from", made(), "-o", tmp_path / "o.png", "--steps", 3
    )
    recipe = read_recipe(tmp_path / "o.png")
    assert code == 0
    assert recipe.content.endswith("other.png") and len(recipe.styles) == 2
    assert recipe.settings.steps == 3 and recipe.settings.seed == 5
    assert recipe.loss.style_layers == ("relu1_1",)


def test_changed_and_missing_inputs_are_named(run, made, tmp_path):
    first = made()
    write_image(tmp_path / "a.png", smooth_image(32, 40, seed=9))
    code, _, err = run(slow_cli, "--from", first, "-o", tmp_path / "o.png", "--quiet")
    assert code == 0 and "a.png has changed" in err and "b.png" not in err
    (tmp_path / "b.png").unlink()
    code, _, err = run(slow_cli, "--from", first, "-o", tmp_path / "p.png", "--quiet")
    assert code == 2 and "b.png" in err


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: r["settings"].update(steps="1; import os"), "steps"),
        (lambda r: r["settings"].update(steps=0), "steps must be 1 or more"),
        (lambda r: r["settings"].update(seed=True), "seed"),
        (lambda r: r["settings"].update(color=1), "unknown setting color"),
        (lambda r: r["loss"].update(style_layers=["relu9_9"]), "relu9_9"),
        (lambda r: r["loss"].update(style_layers="relu1_1"), "style_layers"),
        (lambda r: r["loss"].update(style_weight=-1), "style_weight"),
        (lambda r: r.update(precision="float4"), "float4"),
        (lambda r: r.update(output="/etc/passwd"), "unknown setting output"),
        (lambda r: r.update(settings=[]), "settings is missing"),
        (lambda r: r.pop("content"), "content"),
    ],
)
def test_wrong_values_in_a_recipe_are_refused(run, made, change, what, tmp_path):
    recipe = json.loads(read_recipe(made()).to_json())
    change(recipe)
    bad = tmp_path / "bad.png"
    write_image(bad, smooth_image(8, 8), text=json.dumps(recipe))
    code, out, err = run(slow_cli, "--from", bad, "-o", tmp_path / "o.png")
    assert (code, out) == (2, "") and what in err and len(err.splitlines()) == 1
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize("text", ["", "CREATOR: gd-jpeg v1.0", "[1, 2]", '{"program": "other"}'])
def test_files_without_a_recipe_are_told(run, text, tmp_path):
    write_image(tmp_path / "a.jpg", smooth_image(8, 8), text=text)
    code, _, err = run(slow_cli, "--recipe", tmp_path / "a.jpg")
    assert code == 2 and "holds no recipe" in err


def test_integers_may_stand_for_numbers(made):
    recipe = json.loads(read_recipe(made()).to_json())
    recipe["loss"]["style_weight"] = 12
    assert recipe_from(recipe).loss.style_weight == 12.0


def test_differences_are_sentences(made):
    recipe = read_recipe(made())
    assert recipe.differences(recipe) == []
    first = next(iter(recipe.files))
    other = replace(
        recipe,
        content="b.jpg",
        style_masks=("m.png", "n.png"),
        settings=replace(recipe.settings, size=512),
        files=recipe.files | {first: "0" * 64},
        complete=False,
    )
    assert recipe.differences(other) == [
        f"CONTENT is {recipe.content} here and b.jpg there",
        "--style-mask is not given here and m.png,n.png there",
        "--size is 40 here and 512 there",
        f"{first} has changed",
    ]

"""What the command lines share."""

import sys
from pathlib import Path

import pytest

import cli
import predict
from fast.flags import parse_args
from slow import flags


def test_memory_is_given_in_gb_and_parsed_to_bytes(capsys):
    parser = cli.make_parser("")
    group = cli.add_running_flags(parser)
    cli.add_max_memory(group, effect="it takes longer", default="all")
    assert parser.parse_args([]).max_memory is None
    assert parser.parse_args(["--max-memory", "0.5"]).max_memory == 5e8
    with pytest.raises(SystemExit):
        parser.parse_args(["--max-memory", "0"])
    assert "must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["a.jpg", "-o", "x.png", "--", "-b.jpg"], ["a.jpg", "-b.jpg"]),
        (["-o", "x.png", "--", "-a.jpg", "--force"], ["-a.jpg", "--force"]),
        (["a.jpg", "-o", "x.png", "b.jpg", "--quiet", "--"], ["a.jpg", "b.jpg"]),
        (["-o", "x.png", "--content-mask", "m.png", "--", "a.jpg", "-b.jpg"], ["a.jpg", "-b.jpg"]),
    ],
)
def test_names_with_a_dash_follow_two(monkeypatch, words, names):
    monkeypatch.setattr(sys, "argv", ["slow", *words])
    args = flags.parse_args("")
    assert [args.content, *args.styles] == [Path(name) for name in names]
    assert str(args.output) == "x.png"


def test_what_follows_two_dashes_is_no_model(monkeypatch):
    words = ["a.jpg", "--model", "m", "b.pth", "c.jpg", "--", "d.pth", "-", "-e.jpg"]
    monkeypatch.setattr(sys, "argv", ["predict.py", *words])
    args = parse_args(predict.__doc__)
    assert args.model == ["m", "b.pth"]
    assert sorted(args.inputs) == sorted(["a.jpg", "c.jpg", "d.pth", "-", "./-e.jpg"])

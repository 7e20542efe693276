"""What the command lines share."""

import pytest

import cli


def test_memory_is_given_in_gb_and_parsed_to_bytes(capsys):
    parser = cli.make_parser("")
    group = cli.add_running_flags(parser)
    cli.add_max_memory(group, effect="it takes longer", default="all")
    assert parser.parse_args([]).max_memory is None
    assert parser.parse_args(["--max-memory", "0.5"]).max_memory == 5e8
    with pytest.raises(SystemExit):
        parser.parse_args(["--max-memory", "0"])
    assert "must be above 0" in capsys.readouterr().err

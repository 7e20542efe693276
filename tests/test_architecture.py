"""The arrows of the project: who may import whom."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import predict
import train
from benchmarks import prediction, training, video
from fast import convert, evaluate
from fast import export as export_cli
from slow import __main__ as slow_cli
from slow.explain import __main__ as explain_cli

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "models": {"models"},
    "media": {"media"},
    "slow": {"slow", "models", "media", "cli", "interrupt", "launch"},
    "fast": {"fast", "models", "media", "cli", "interrupt", "launch"},
}
# --init of the slow command line takes a trained style.
EXCEPTIONS = {"slow/__main__.py": {"fast"}}
OURS = {"models", "media", "slow", "fast", "cli", "interrupt", "train", "predict", "benchmarks"}
OURS |= {"launch", "tests"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names & OURS


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        allowed = MAY_IMPORT[package] | EXCEPTIONS.get(path.relative_to(ROOT).as_posix(), set())
        assert imported(path) <= allowed, path


def test_only_media_knows_pillow():
    for folder in ("models", "slow", "fast"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"^\s*(from|import) (PIL|av)\b", path.read_text(), re.MULTILINE), (
                path
            )


def commands() -> list[str]:
    """The lines of the documents' shell blocks."""
    documents = [(ROOT / name).read_text() for name in ("README.md", "checkpoints/README.md")]
    blocks = re.findall(r"```sh\n(.*?)```", "".join(documents), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (train, "train.py"),
        (predict, "predict.py"),
        (slow_cli, "-m slow "),
        (explain_cli, "-m slow.explain"),
        (evaluate, "-m fast.evaluate"),
        (export_cli, "-m fast.export"),
        (convert, "-m fast.convert"),
        (prediction, "-m benchmarks.prediction"),
        (training, "-m benchmarks.training"),
        (video, "-m benchmarks.video"),
    ],
)
def test_documents_use_flags_that_exist(module, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        module.main()
    known = set(re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", capsys.readouterr().out))
    texts = [line.split("&&")[-1] for line in commands() if name in line]
    assert texts, f"the documents show no {name} command"
    texts += [line for line in module.__doc__.splitlines() if f"{name} " in line]
    for text in texts:
        used = set(re.findall(r"(?<= )--?[a-z][\w-]*", text.partition(name)[2]))
        assert used <= known, text


def test_pictures_and_links_of_the_documents_exist():
    for document in ROOT.rglob("*.md"):
        if {".venv", "runs", "out"} & set(document.relative_to(ROOT).parts):
            continue
        targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
        targets += re.findall(r'src="([^"]+)"', document.read_text())
        for target in targets:
            assert target.startswith("http") or (document.parent / target).exists(), (
                document,
                target,
            )


def test_shared_code_of_the_command_lines_starts_without_torch_training_libraries():
    code = "import sys, predict; sys.exit('accelerate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

"""What the machine has."""

import torch

from models import device
from models.device import free_memory

CPU = torch.device("cpu")


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    without = free_memory(CPU)
    assert without > 2**20
    monkeypatch.setattr(device, "CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory(CPU) == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) > 2**20


def test_limit_of_the_first_version_of_control_groups(tmp_path, monkeypatch):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("5000")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("6000")
    monkeypatch.setattr(device, "CONTROL_GROUP", tmp_path)
    assert free_memory(CPU) == 0

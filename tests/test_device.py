"""What the machine has."""

import psutil
import pytest
import torch

from models import device, int8, memory
from models.device import dtype_of_maps, pick_precision
from models.memory import free_memory, is_out_of_memory, peak_memory, taken_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("integers", "instructions", "picked", "maps"),
    [
        (True, {"amx_tile", "avx512_bf16"}, torch.bfloat16, torch.bfloat16),
        (True, {"avx512_bf16"}, torch.int8, torch.bfloat16),  # Zen 4
        (True, set(), torch.int8, torch.float32),
        (False, {"avx512_bf16"}, torch.bfloat16, torch.bfloat16),
        (False, {"avx512_bf16", "vnni"}, torch.int8, torch.bfloat16),  # not timed
    ],
)
def test_the_fastest_precision_is_picked(monkeypatch, integers, instructions, picked, maps):
    monkeypatch.setattr(int8, "is_exact", lambda _: True)
    monkeypatch.setattr(int8, "pays", lambda _: integers)
    monkeypatch.setattr(device, "_cpu_has", lambda *names: bool(instructions & set(names)))
    # Without what it remembers.
    monkeypatch.setattr(device, "_bfloat16_is_faster", device._bfloat16_is_faster.__wrapped__)
    assert pick_precision("auto", CPU) == picked
    assert dtype_of_maps(picked) == maps


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    without = free_memory(CPU)
    assert without > 2**20
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory(CPU) == 2000
    (tmp_path / "memory.stat").write_text("file 900\ninactive_file 600\nactive_file 300\n")
    assert free_memory(CPU) == 2600  # files in memory give way
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) > 2**20


def test_limit_of_the_first_version_of_control_groups(tmp_path, monkeypatch):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("5000")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("6000")
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    assert free_memory(CPU) == 0
    statistics = "inactive_file 7\ntotal_inactive_file 1500\n"
    (tmp_path / "memory" / "memory.stat").write_text(statistics)
    assert free_memory(CPU) == 500


def test_memory_is_known_where_there_is_no_control_group(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    assert free_memory(CPU) == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    (tmp_path / "memory.max").write_text(f"{2**60}\n")
    (tmp_path / "memory.current").write_text("0\n")
    (tmp_path / "memory.stat").write_text("inactive_file\n")
    assert free_memory(CPU) < 2**50  # the limit is more than there is


def test_lack_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)  # the real allocator's message
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_peak_is_in_bytes_and_not_below_what_is_taken():
    taken = taken_memory(CPU)
    # The kernel counts the two apart, to within some pages for each processor.
    assert 2**20 < 0.9 * taken < peak_memory() < 2**40

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("mohge-plan")


def plan(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *overrides], cwd=folder, capture_output=True, text=True, check=True, timeout=120
    )


@pytest.mark.parametrize(
    ("arch", "published"),
    [("moe", 3.3614e9), ("mohge", 2.821e9), ("mohge_released", 2.821e9)],
)
def test_paper_3b_agrees_with_the_published_totals(tmp_path: Path, arch: str, published: float):
    """Published sizes of MoE-3B and MoHGE-3B (arXiv 2604.23108), which count the embedding once."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = plan(tmp_path, "model=paper_3b", f"arch={arch}", "format=json")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(done.stdout)
    assert result.keys() == {"parameters", "active_parameters", "flops_per_token", "memory_bytes"}
    assert result["parameters"]["without_head"] == pytest.approx(published, rel=0.01)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15
    assert after.ru_maxrss < 2 * 2**20  # kilobytes
    assert list(tmp_path.iterdir()) == []


def test_json_goes_to_a_file_too(tmp_path: Path):
    done = plan(tmp_path, "format=json", "output=plan.json")
    assert json.loads((tmp_path / "plan.json").read_text()) == json.loads(done.stdout)


def test_the_table_shows_what_a_person_asks(tmp_path: Path):
    text = plan(tmp_path).stdout
    for words in ("total", "routed experts", "active parameters", "FLOPs to train", "optimizer"):
        assert words in text


def test_a_router_without_a_teacher_is_remarked_on(tmp_path: Path):
    done = plan(tmp_path, "router.expert_top_k=1", "output=plan.json")
    (remark,) = json.loads((tmp_path / "plan.json").read_text())["remarks"]
    assert remark.startswith("router.expert_top_k=1 gives the one expert of a token the weight 1")
    assert remark in " ".join(done.stdout.split())


def test_several_ranks_are_planned_one_by_one(tmp_path: Path):
    overrides = ("model=paper_14b", "parallel=fsdp_ep", "trainer.devices=8", "trainer.nodes=2")
    result = json.loads(plan(tmp_path, *overrides, "format=json").stdout)
    parallel = result.pop("parallel")
    assert result == json.loads(plan(tmp_path, "model=paper_14b", "format=json").stdout)
    assert parallel["sizes"] == {"dp_replicate": 1, "dp_shard": 2, "expert_parallel": 8, "world": 16}
    assert parallel["placement"] == "all_size"
    assert sum(rank["parameters"] for rank in parallel["ranks"]) == result["parameters"]["total"]
    assert parallel["traffic"]["all_to_all_bytes_per_token"]["forward"] > 0


@pytest.mark.parametrize("placement", ["all_size", "contiguous", "pairs"])
def test_the_tables_of_ranks_show_every_placement(tmp_path: Path, placement: str):
    text = plan(tmp_path, "parallel=ep", "trainer.devices=4", f"parallel.placement={placement}").stdout
    words = (
        "experts per layer",
        "all-to-all backward",
        "all-gather forward",
        "reduce-scatter",
        "gathered",
    )
    for word in (f"placement {placement}", *words):
        assert word in text
    assert ("can be planned" in text) == (placement != "all_size")


def test_one_process_has_no_ranks_to_show(tmp_path: Path):
    assert "rank" not in plan(tmp_path, "parallel=ep", "trainer.devices=1").stdout

"""mohge-bench as a user runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import run_command, run_forked, run_light
from composing import composed
from omegaconf import OmegaConf
from refusals import assert_refused

from mohge.bench.checks import check_bench
from mohge.config.bench_schema import BenchConfig
from mohge.config.load import group_choices, known_keys, typed

EXPERTS = (
    *("bench.rounds=1", "bench.warmup=0", "bench.only=[mine]", "bench.kernels=[loop]"),
    "+bench.shapes.mine={d_model:16,widths:[16,32],per_group:2,tokens:20,top_k:3}",
)
STEP, GROWTH, PARALLEL = "bench=step", "bench=growth", "bench=parallel"


def test_json_is_one_object_and_nothing_else(tmp_path: Path):
    verbose = "hydra.verbose=true"  # what libraries log goes elsewhere
    finished = run_forked("mohge-bench", [*EXPERTS, verbose, "format=json", "output=bench.json"], tmp_path)
    assert finished.status == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert [(row["kernel"], row["dtype"]) for row in result["rows"]] == [
        (kernel, dtype) for dtype in ("fp32", "bf16") for kernel in ("dense", "loop")
    ]
    assert json.loads((tmp_path / "bench.json").read_text(encoding="utf-8")) == result
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    assert "experts mine fp32" in finished.stderr


def test_the_table_shows_what_a_person_asks(tmp_path: Path):
    finished = run_forked("mohge-bench", EXPERTS, tmp_path)
    assert finished.status == 0, finished.stderr
    for words in ("cores", "torch", "ratios to dense", "experts · mine · bf16", "GFLOP/s"):
        assert words in finished.stdout
    assert all(line.startswith("experts mine") for line in finished.stderr.splitlines())
    assert list(tmp_path.iterdir()) == []


MISTAKES = [
    ("bench=speed", ["bench=speed is not a choice", "callbacks, experts, generation, growth, likelihood"]),
    ("bench.rouds=3", ["unknown key bench.rouds", "did you mean bench.rounds?"]),
    ("bench.rounds=-1", ["bench.rounds=-1", "greater than 0"]),
    ("bench.rounds=true", ["bench.rounds=true", "a number"]),
    ("bench.dtypes=[fp8]", ["bench.dtypes[0]='fp8'", "'fp32' or 'bf16'"]),
    ("bench.dtypes=[]", ["bench.dtypes=[]", "at least one"]),
    ("bench.kernels=[fast]", ["bench.kernels[0]='fast'", "'loop'"]),
    ("bench.threads=[0]", ["bench.threads[0]=0", "greater than 0"]),
    ("bench.only=[smal]", ["bench.only=[smal]", "small, many_tiny, paper_like", "did you mean small?"]),
    ("bench.shapes.small.widths=[]", ["bench.shapes.small.widths=[]", "at least one width"]),
    ("bench.shapes.small.top_k=17", ["bench.shapes.small.top_k=17", "the 16 experts"]),
    ("+bench.shapes.mine={d_model:64}", ["bench.shapes.mine.widths", "has no value"]),
    (f"{STEP} bench.heads=3", ["bench.heads=3", "bench.d_model=256"]),
    (f"{STEP} bench.kv_heads=3", ["bench.kv_heads=3", "bench.heads=8"]),
    (f"{STEP} bench.width=300", ["bench.width=300", "is 384"]),
    (f"{STEP} bench.experts=10", ["bench.experts=10", "a multiple of 4"]),
    (f"{STEP} bench.top_k=9", ["bench.top_k=9", "the 8 experts"]),
    (f"{STEP} bench.widths=[512,256]", ["bench.widths=[512, 256]", "write [256, 512]"]),
    (f"{GROWTH} bench.sequence=[300]", ["bench.sequence=300", "bench.batch_tokens=4096"]),
    (f"{GROWTH} bench.experts=[]", ["bench.experts=[]", "at least one"]),
    (f"{GROWTH} bench.group_top_k=5", ["bench.group_top_k=5", "4 groups"]),
    (f"{PARALLEL} bench.meshes=[[1,2]]", ["bench.meshes has [1, 2]", "expert_parallel]"]),
    (f"{PARALLEL} bench.meshes=[[1,1,2],[1,1,4]]", ["[[1, 1, 2], [1, 1, 4]]", "products 2, 4", "one number"]),
    (f"{PARALLEL} bench.meshes=[[1,1,1]]", ["bench.meshes=[[1, 1, 1]]", "at least 2"]),
    (f"{PARALLEL} bench.meshes=[[1,2,1],[1,2,1]]", ["[1, 2, 1] twice"]),
    (f"{PARALLEL} bench.meshes=[[1,1,3]]", ["bench.meshes has [1, 1, 3]", "experts.per_group=4"]),
    (f"{PARALLEL} arch=dense", ["bench.meshes has [1, 1, 2]", "no experts", "leave it out"]),
    ("bench=likelihood bench.choice_tokens=[9,2]", ["bench.choice_tokens=[9,2]", "write [2,9]"]),
    ("bench=generation bench.contexts=[]", ["bench.contexts=[]", "at least one"]),
    ("bench=generation bench.batch=0", ["bench.batch=0", "greater than 0"]),
    ("bench=profile data.context=512", ["data.context=512", "model.context=256"]),
    ("bench=profile data=text_files data.path=nowhere", ["data.path=nowhere does not exist"]),
]


@pytest.mark.parametrize(("overrides", "fragments"), MISTAKES, ids=[overrides for overrides, _ in MISTAKES])
def test_wrong_input_is_refused_in_one_sentence(tmp_path: Path, overrides: str, fragments: list[str]):
    assert_refused(run_forked("mohge-bench", overrides.split(), tmp_path), fragments)
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_refused_before_anything_heavy(tmp_path: Path):
    finished = run_light("mohge-bench", ["bench.only=[smal]"], tmp_path)
    assert_refused(finished, ["bench.only=[smal]"])
    assert finished.cpu_seconds < 2
    assert "mohge.bench.checks" in finished.imported
    assert finished.imported.isdisjoint({"torch", "lightning", "transformers"})


def test_help_answers_a_newcomers_questions(tmp_path: Path):
    finished = run_command("mohge-bench", ["--help"], tmp_path)
    assert finished.status == 0
    assert finished.stderr == ""
    for heading in ("Usage", "Groups and their choices", "Examples", "Results", "Exit status: 0 done"):
        assert heading in finished.stdout
    assert f"\nbench: {', '.join(group_choices('bench'))}\n" in finished.stdout
    assert max(map(len, finished.stdout.splitlines())) <= 110
    examples = finished.stdout.partition("Examples")[2]
    overrides = [line.split("  ")[0].split() for line in re.findall(r"^  mohge-bench (.*)$", examples, re.M)]
    overrides.append([item.strip("'") for item in re.findall(r"^  ('\+.*)$", examples, re.M)[0].split()])
    assert len(overrides) == 6
    for example in overrides:
        check_bench(typed(BenchConfig, composed(*example, config_name="bench")).bench)


def test_yaml_files_mention_every_key():
    """A key that no file mentions could only be set with `+`."""
    mentioned = [composed(f"bench={choice}", config_name="bench") for choice in group_choices("bench")]
    missing = [
        key
        for key in known_keys(BenchConfig)
        if not key.startswith(("comparison.", "bench.shapes."))
        and all(OmegaConf.select(tree, key, default="absent") == "absent" for tree in mentioned)
    ]
    assert missing == []

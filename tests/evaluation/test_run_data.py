import json

import pytest
import yaml
from fabricated_runs import write_run

from evaluation.run_data import read_run
from mohge.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", "arch=mohge")


def test_a_run_is_read_whole(folder):
    run = read_run("mine", folder)
    assert run.config.experts.widths == (48, 80, 112, 144)
    assert len(run.metrics) == 20
    assert len(run.routing) == 4
    steps, bits = run.series("val/bits_per_byte", over="step")
    assert steps == [50, 100, 150, 200]
    assert run.last("val/bits_per_byte") == bits[-1]
    assert run.last("never/recorded") is None


def test_shares_are_those_of_the_last_validation(folder):
    run = read_run("mine", folder)
    counts = run.routing[-1]["expert_counts"]
    total = sum(map(sum, counts))
    by_hand = [sum(sum(layer[4 * g : 4 * g + 4]) for layer in counts) / total for g in range(4)]
    assert run.rows_share() == pytest.approx(by_hand)
    assert sum(by_hand) == pytest.approx(1)


def test_a_run_can_be_read_where_its_data_is_not(folder):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"] |= {"name": "text_files", "path": "/a/folder/of/another/machine"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_run("mine", folder).config.data.path == "/a/folder/of/another/machine"


def test_routing_may_be_missing_where_nothing_wrote_it(tmp_path):
    dense = write_run(tmp_path / "dense", "arch=dense")
    unwatched = write_run(tmp_path / "unwatched", "arch=mohge", "callbacks.routing=null")
    (unwatched / "routing.jsonl").unlink()
    assert read_run("dense", dense).rows_share() is None
    assert read_run("unwatched", unwatched).rows_share() is None


@pytest.mark.parametrize(
    "name", ["config.yaml", "budget.json", "status.json", "metrics.jsonl", "routing.jsonl"]
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        read_run("mine", folder)


def _cut(text):
    return text[: len(text) - len(text.rstrip("\n").rpartition("\n")[2]) // 2]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("config.yaml", lambda text: "{"),
        ("config.yaml", lambda text: "- a list"),
        ("config.yaml", lambda text: text.replace("widths", "wydths")),
        ("budget.json", _cut),
        ("budget.json", lambda text: "[]"),
        ("budget.json", lambda text: "{}"),
        ("status.json", lambda text: ""),
        ("metrics.jsonl", _cut),
        ("metrics.jsonl", lambda text: '{"train/loss": 1.0}\n'),
        ("routing.jsonl", _cut),
        ("routing.jsonl", lambda text: '{"step": 1, "tokens": 2}\n'),
        ("routing.jsonl", lambda text: json.dumps({"step": 1, "tokens": 2, "expert_counts": [[1, 2]]})),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(folder, name, damage):
    path = folder / name
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=f"{name} is damaged") as refusal:
        read_run("mine", folder)
    assert "\n" not in str(refusal.value)


def test_binary_content_is_damage(folder):
    (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        read_run("mine", folder)


def test_a_run_without_records_is_refused(folder):
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="has recorded nothing yet"):
        read_run("mine", folder)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        read_run("mine", tmp_path / "nowhere")

"""mohge-eval as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import invented_tasks
import pytest
import yaml
from commands import Finished, run_command, run_forked
from invented_tasks import BROKEN, CHOICE, TEXT, WORD, WRITE, write_tasks
from refusals import assert_refused, assert_refused_at_once
from tiny_runs import TINY_MODEL, read_metrics, tiny_data, tiny_run, write_corpus

STEP = "step_00000002"
STEPS = ("trainer.max_steps=2", "trainer.checkpoint_every=2", "trainer.val_sequences=10000")
HERE = ("benchmarks._target_=invented_tasks.find_tasks", "paths.cache_dir=cache")
NO_NETWORK = '''
import sys

def look(event, arguments):
    """Refuses every address but this machine's."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto"):
        host = arguments[1][0] if isinstance(arguments[1], tuple) else "127.0.0.1"
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in (None, "", "127.0.0.1", "::1", "localhost"):
        with open("NETWORK", "a") as file:
            file.write(f"{event} {host}\\n")
        raise OSError(f"no network here: {host}")

sys.addaudithook(look)
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, invented benchmarks, a MoHGE run, a dense one, and what looks like a model."""
    folder = tmp_path_factory.mktemp("work") / "trained"
    corpus, cache = Path("corpus"), Path("cache")
    write_corpus(folder / "corpus")
    write_tasks(folder / "cache" / "invented")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")  # of a model outside runs, as far as one looks
    quiet = ("logger=none", "callbacks=none")
    dense = ["arch=dense", *TINY_MODEL, *tiny_data(corpus, cache), *quiet]
    for name, overrides in (("run", tiny_run(corpus, cache)), ("dense", dense)):
        finished = run_forked("mohge-train", [*overrides, *STEPS, f"paths.run_dir={name}"], folder)
        assert finished.status == 0, finished.stderr
    return folder


@pytest.fixture
def folder(trained: Path) -> Path:
    """The same without earlier evaluations."""
    for run in ("run", "dense"):
        shutil.rmtree(trained / run / "eval", ignore_errors=True)
    return trained


def evaluate(folder: Path, *overrides: str) -> Finished:
    return run_forked("mohge-eval", [*overrides, *HERE], folder)


def results(folder: Path, run: str, suite: str = "mine") -> dict:
    return json.loads((folder / run / "eval" / STEP / suite / "results.json").read_text(encoding="utf-8"))


def mine(*tasks: str) -> list[str]:
    return [f"eval.tasks=[{','.join(tasks)}]", "eval.name=mine", "eval.limit=null", "eval.held_out=0"]


def test_two_models_side_by_side_without_a_network(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    shutil.copy(invented_tasks.__file__, tmp_path)
    paths = {"PYTHONPATH": str(tmp_path)}
    arguments = [
        "checkpoint=[run,dense]",
        "baseline=dense",
        "ranks=2",
        "output=tables",
        *mine(CHOICE, TEXT)[:3],
        "eval.held_out=200",
    ]
    finished = run_command("mohge-eval", [*arguments, *HERE], folder, environment=paths)
    assert finished.status == 0, finished.stderr
    assert not (folder / "NETWORK").exists(), (folder / "NETWORK").read_text()
    for words in ("Invented choices", "dense", "mohge", "chance", "25.0", "bits_per_byte"):
        assert words in finished.stdout
    names = {path.name for path in (folder / "tables").iterdir()}
    assert {"comparison.json", "comparison.md", "comparison.tex", "comparison.html"} <= names
    for run in ("run", "dense"):
        assert results(folder, run)["settings"]["ranks"] == 2
        assert set(results(folder, run)["tasks"]) == {CHOICE, TEXT, "held_out"}
    shutil.rmtree(folder / "tables")


def test_the_network_guard_of_this_test_works(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    finished = run_command("python", ["-c", code], tmp_path, environment={"PYTHONPATH": str(tmp_path)})
    assert finished.status != 0
    assert "192.0.2.1" in (tmp_path / "NETWORK").read_text()


def test_held_out_text_gives_the_bits_per_byte_of_validation(folder: Path) -> None:
    finished = evaluate(folder, "checkpoint=run", "eval=perplexity", "format=json")
    assert finished.status == 0, finished.stderr
    assert json.loads(finished.stdout)["evaluations"]
    found = results(folder, "run", "perplexity")["tasks"]["held_out"]
    last = [record for record in read_metrics(folder / "run") if "val/bits_per_byte" in record][-1]
    assert found["metrics"]["bits_per_byte"]["value"] == pytest.approx(last["val/bits_per_byte"], rel=1e-5)
    assert set(found["subtasks"]) == {"lists", "prose"}
    samples = folder / "run" / "eval" / STEP / "perplexity" / "samples" / "held_out.jsonl"
    rows = list(map(json.loads, samples.read_text(encoding="utf-8").splitlines()))
    documents = {row["cluster"] for row in rows}
    assert 1 < len(documents) < len(rows), "windows of one document are alike"
    for domain, part in found["subtasks"].items():
        value = part["metrics"]["bits_per_byte"]["value"]
        assert value == pytest.approx(last[f"val/bits_per_byte/{domain}"], rel=1e-5)


def test_a_task_that_fails_ends_with_status_1_after_the_others(folder: Path) -> None:
    finished = evaluate(folder, "checkpoint=run", *mine(BROKEN, WORD, WRITE))
    assert finished.status == 1
    assert f"error: task {BROKEN} failed" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
    found = results(folder, "run")["tasks"]
    assert [found[name]["status"] for name in (BROKEN, WORD, WRITE)] == ["failed", "done", "done"]
    assert "word" in finished.stdout


def test_an_exported_model_has_the_scores_of_its_checkpoint(folder: Path) -> None:
    shutil.rmtree(folder / "exported", ignore_errors=True)
    exported = run_forked("mohge-export", ["checkpoint=run", "output=exported"], folder)
    assert exported.status == 0, exported.stderr
    finished = evaluate(folder, "checkpoint=[run,exported]", "output=of_exported", *mine(CHOICE))
    assert finished.status == 2
    assert "nothing tells them apart" in finished.stderr
    one = results(folder, "run")["tasks"][CHOICE]["metrics"]
    path = folder / "exported" / "eval" / "mine" / "results.json"
    assert json.loads(path.read_text())["tasks"][CHOICE]["metrics"] == one


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["checkpoint=nowhere"], ["checkpoint=nowhere does not exist"]),
        (["checkpoint=run", "optim.lr=1"], ["optim.lr=1 has no effect"]),
        (["checkpoint=run", "eval.tasks=[]", "eval.held_out=0"], ["ask nothing"]),
        (["checkpoint=run", "eval=commonsense"], ["mohge-prepare data=benchmarks"]),
        (["checkpoint=run", "eval.limit=0"], ["eval.limit"]),
        (["checkpoint=[]"], ["checkpoint"]),
        (
            ["checkpoint=run", "eval=perplexity", "baseline=mohgee"],
            ["baseline=mohgee", "choose one of", "mohge"],
        ),
        (["checkpoint=run", "eval.fewshot.piqa_local=5"], ["write +eval.fewshot.piqa_local=VALUE"]),
        (["checkpoint=run", "eval.fewshot={piqa_local:5}"], ["write +eval.fewshot.NAME=VALUE"]),
        (["checkpoint=run", "eval=papers"], ["eval=papers", "paper"]),
        (["checkpoint=run", "eval=perplexity", "expert_parallel=2"], ["expert_parallel=2", "ranks=2"]),
        (["checkpoint=model", "eval=perplexity"], ["model is no checkpoint of a run", "use eval.held_out=0"]),
    ],
)
def test_wrong_input_is_refused_at_once(folder: Path, arguments: list[str], fragments: list[str]) -> None:
    assert_refused_at_once("mohge-eval", [*arguments, "paths.cache_dir=empty"], folder, fragments)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (
            ["checkpoint=run", *mine("invented_chioce_local")],
            ["invented_chioce_local", f"did you mean {CHOICE}"],
        ),
        (["checkpoint=[run,run]", *mine(CHOICE)], ["twice"]),
        (["checkpoint=corpus", *mine(CHOICE)], ["neither a run nor a checkpoint"]),
        (
            ["checkpoint=run", *mine(CHOICE), "ranks=3", "expert_parallel=3"],
            ["expert_parallel=3", "2 experts"],
        ),
    ],
)
def test_wrong_input_that_needs_a_closer_look_is_refused(
    folder: Path, arguments: list[str], fragments: list[str]
) -> None:
    assert_refused(evaluate(folder, "format=json", *arguments), fragments)


def test_a_comparison_is_all_its_runs(folder: Path) -> None:
    both = folder / "both"
    shutil.rmtree(both, ignore_errors=True)
    arms = {}
    for name in ("run", "dense"):
        shutil.copytree(folder / name, both / name)
        arms[name] = [f"arch={name}"]
    config = (both / "run" / "config.yaml").read_text(encoding="utf-8").replace("comparison: null", "")
    comparison = {"comparison": {"_target_": "none", "arms": arms, "baseline": "run"}}
    (both / "config.yaml").write_text(config + yaml.safe_dump(comparison), encoding="utf-8")
    finished = evaluate(folder, "checkpoint=both", "format=json", "output=of_both", *mine(WORD))
    assert finished.status == 0, finished.stderr
    assert len(json.loads(finished.stdout)["evaluations"]) == 2
    assert results(both, "run")["arch"] == "mohge"
    assert results(both, "dense")["arch"] == "dense"


@pytest.mark.slow
def test_lm_evals_own_command_line_finds_the_same(folder: Path) -> None:
    arguments = ["--model", "mohge", "--model_args", "checkpoint=run", "--tasks", f"{CHOICE},{WORD}"]
    flags = ["--include_path", "cache/invented/tasks", "--limit", "6", "--num_fewshot", "1"]
    written = ["--log_samples", "--output_path", "theirs", "--batch_size", "auto"]
    finished = run_forked("mohge-lm-eval", [*arguments, *flags, *written], folder)
    assert finished.status == 0, finished.stderr
    assert "|invented" in finished.stdout.replace(" ", "").lower()
    (file,) = (folder / "theirs").rglob("results_*.json")
    theirs = json.loads(file.read_text(encoding="utf-8"))["results"]
    ours = evaluate(
        folder,
        *(
            "checkpoint=run",
            f"eval.tasks=[{CHOICE},{WORD}]",
            "eval.name=mine",
            "eval.limit=6",
            "eval.held_out=0",
            f"+eval.fewshot.{CHOICE}=1",
            f"+eval.fewshot.{WORD}=1",
        ),
    )
    assert ours.status == 0, ours.stderr
    found = results(folder, "run", "mine-limit6")["tasks"]
    for task, metric in ((CHOICE, "acc"), (CHOICE, "acc_norm"), (WORD, "acc"), (WORD, "perplexity")):
        assert theirs[task][f"{metric},none"] == pytest.approx(
            found[task]["metrics"][metric]["value"], rel=1e-5
        )


def test_lm_evals_command_line_refuses_a_model_that_is_not_there(folder: Path) -> None:
    arguments = ["--model", "mohge", "--model_args", "checkpoint=nowhere", "--tasks", CHOICE]
    finished = run_forked("mohge-lm-eval", [*arguments, "--include_path", "cache/invented/tasks"], folder)
    assert finished.status == 2
    assert finished.stderr.splitlines()[-1].startswith("error: checkpoint=nowhere does not exist")

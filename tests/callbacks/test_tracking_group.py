"""Runs that belong together have one parent, in a real sqlite store."""

import dataclasses
import json
import multiprocessing

import pytest
from fabricated_runs import train_config
from mlflow.tracking import MlflowClient

from callbacks.tracking import log_group_results, mlflow_logger
from mohge.config.run_names import as_arm, as_job
from mohge.files import write_json_atomically

PARENT = "mlflow.parentRunId"
# What takes seconds to import is imported once, in the process that the others are forked from.
PRELOAD = ["callbacks.tracking", "mlflow.store.tracking.sqlalchemy_store", "fabricated_runs"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def client(store):
    return MlflowClient(f"sqlite:///{store}/mlflow.db")


@pytest.fixture
def folder(store, request):
    folder = store / "quickstart" / request.node.name
    folder.mkdir(parents=True)
    return folder


def arm(store, folder, name, *overrides):
    config = train_config(f"paths.output_dir={store}", f"paths.run_dir={folder / name}", *overrides)
    return as_arm(config, name, folder)


def begin(config, run_id=None):
    return mlflow_logger(config.logger, config, run_id)


def parent_of(client, logger):
    return client.get_run(client.get_run(logger.run_id).data.tags[PARENT])


def test_arms_have_one_parent_named_after_their_folder_which_ends_as_they_do(store, folder, client):
    first, second = (begin(arm(store, folder, name)) for name in ("mohge", "moe"))
    parent = parent_of(client, first)
    assert parent.info.run_id == parent_of(client, second).info.run_id
    assert parent.info.run_name == f"quickstart/{folder.name}"
    assert client.get_run(second.run_id).info.run_name == "nano-moe-seed1234"
    colours = [client.get_run(run.run_id).data.tags["mlflow.runColor"] for run in (first, second)]
    assert colours == ["#0072B2", "#D55E00"]
    assert f"mohge-report runs={folder}" in parent.data.tags["mlflow.note.content"]

    def state():
        return client.get_run(parent.info.run_id).info.status

    assert state() == "RUNNING"
    first.finalize("success")
    assert state() == "RUNNING"
    second.finalize("KILLED")
    assert state() == "KILLED"
    continued = begin(arm(store, folder, "moe"), run_id=second.run_id)
    assert state() == "RUNNING"
    continued.finalize("success")
    assert state() == "FINISHED"


def test_a_continued_run_finds_its_parent_wherever_the_folder_is_now(store, folder, client):
    logger = begin(arm(store, folder, "mohge"))
    logger.finalize("failed")
    moved = folder.rename(folder.with_name("moved"))
    continued = begin(arm(store, moved, "mohge"), run_id=logger.run_id)
    late = begin(arm(store, moved, "moe"))
    for each in (continued, late):
        each.finalize("success")
    assert parent_of(client, continued).info.run_id == parent_of(client, late).info.run_id
    assert not folder.exists()


def test_a_parent_that_was_deleted_is_made_anew(store, folder, client):
    first = begin(arm(store, folder, "mohge"))
    first.finalize("success")
    old = parent_of(client, first).info.run_id
    client.delete_run(old)
    second = begin(arm(store, folder, "moe"))
    second.finalize("success")
    assert parent_of(client, second).info.run_id != old
    begin(arm(store, folder, "mohge"), run_id=first.run_id).finalize("success")


def test_the_parent_shows_what_was_made_of_its_runs(store, folder, client):
    config = arm(store, folder, "mohge")
    logger = begin(config)
    logger.finalize("success")
    runs = {
        name: {
            "validation": {"bits_per_byte": bits},
            "parameters": {"total": 3_189_888},
            "tokens_per_second": None,
        }
        for name, bits in (("mohge", 2.34567), ("moe", None))
    }
    write_json_atomically(folder / "comparison.json", {"baseline": "moe", "runs": runs})
    (folder / "loss_curves.png").write_bytes(b"picture")
    whole = dataclasses.replace(config, paths=dataclasses.replace(config.paths, run_dir=str(folder)))
    for _ in range(2):  # as after a resume
        log_group_results(whole.logger, whole)
    parent = parent_of(client, logger)
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} == {
        "comparison.json",
        "loss_curves.png",
    }
    note = parent.data.tags["mlflow.note.content"]
    assert "| mohge | 2.3457 | 3,189,888 |  |" in note
    assert "| moe (baseline) |  | 3,189,888 |  |" in note
    assert note.count("Folder:") == note.count("validation bits per byte") == 1
    assert parent.info.status == "FINISHED"


def test_results_that_a_store_does_not_take_are_a_warning(store, folder):
    config = arm(store, folder, "mohge", "logger.tracking_uri=gopher://store")
    whole = dataclasses.replace(config, paths=dataclasses.replace(config.paths, run_dir=str(folder)))
    with pytest.warns(UserWarning, match=f"MLflow did not take the results.*; {folder} has them"):
        log_group_results(whole.logger, whole)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["seed=7", "arch=moe", "optim.lr=1e-3", "trainer.clip=2"], "nano-moe-seed7 optim.lr=1e-3"),
        (["seed=7", "logger.run_name=mine"], "mine"),
        (["+data.path=" + "x" * 200], "nano-mohge-seed1234 +data.path=" + "x" * 68 + "…"),
    ],
)
def test_jobs_of_a_multirun_are_named_by_what_differs(tmp_path, overrides, name):
    known = [item for item in overrides if not item.startswith("+")]
    (tmp_path / "multirun.yaml").write_text(
        "hydra: {overrides: {task: ['seed=7,8', trainer.clip=2, logger.run_name=mine]}}"
    )
    job = as_job(train_config(*known), overrides, tmp_path)
    assert job.logger.run_name == name
    assert job.logger.group == str(tmp_path)


def _begin_at_once(store, folder, name, barrier):
    config = arm(store, folder, name)
    barrier.wait()
    begin(config).finalize("success")


@pytest.mark.slow
def test_jobs_that_start_at_the_same_time_make_one_parent(tmp_path):
    """In a new store, too: without a lock, processes that make its tables together leave it broken."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    folder = tmp_path / "multirun"
    folder.mkdir()
    barrier = context.Barrier(4)
    jobs = [
        context.Process(target=_begin_at_once, args=(tmp_path, folder, f"job{index}", barrier))
        for index in range(4)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert [job.exitcode for job in jobs] == [0] * 4
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("mohge").experiment_id])
    parent = json.loads((folder / "mlflow.json").read_text())["run_id"]
    assert sorted(run.data.tags.get(PARENT, "") for run in runs) == ["", *[parent] * 4]
    assert client.get_run(parent).info.status == "FINISHED"

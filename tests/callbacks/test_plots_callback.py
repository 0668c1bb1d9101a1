from fabricated_runs import train_config, write_run
from fake_training import FakeModule, FakeTrainer

from callbacks import PlotsCallback
from mohge.training.run_folder import RunFolder


def test_pictures_are_drawn_into_the_run_folder(tmp_path):
    run = RunFolder(write_run(tmp_path / "run", "arch=mohge"))
    config = train_config()
    PlotsCallback(config.callbacks.plots, config).on_fit_end(FakeTrainer(), FakeModule(run=run))
    pictures = {path.name: path.read_bytes() for path in run.plots_dir.iterdir()}
    assert set(pictures) == {"loss_curves.png", "group_shares.png", "expert_load.png"}
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())

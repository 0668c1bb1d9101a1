"""Metrics as metrics.csv in the run's folder."""

from __future__ import annotations

from lightning.pytorch.loggers import CSVLogger

from mohge.config.schema import LoggerConfig, TrainConfig


def csv_logger(cfg: LoggerConfig, train: TrainConfig, run_id: str | None) -> CSVLogger:
    """Write metrics.csv and hparams.yaml into csv/version_<n> of the run's folder.

    Each start of a run, resumed ones too, has a version of its own: Lightning would delete an older file.
    """
    assert train.paths.run_dir is not None, "the run's folder is settled before its logger"
    return CSVLogger(train.paths.run_dir, name="csv", flush_logs_every_n_steps=1)

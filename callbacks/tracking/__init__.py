"""Loggers: MLflow made to last, and CSV.

A factory is called with (its configuration, the run's configuration, the MLflow run to continue or None),
and `log_hyperparams` of what it makes once the run's folder holds the facts of the run.
"""

from callbacks.tracking.csv_files import csv_logger
from callbacks.tracking.group import log_group_results
from callbacks.tracking.logger import TrackingLogger, mlflow_logger

__all__ = ["TrackingLogger", "csv_logger", "log_group_results", "mlflow_logger"]

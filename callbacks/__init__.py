"""What watches a run: where tokens went, how fast, what is wrong, how far, how good, and pictures at the end;
also when to end early.

Each callback is called with (its configuration, the run's configuration) and relies only on the
LightningModule's `config`, `record`, `recording`, `run`, `tokens_per_step`, `device`, `step_counts`,
`layer_losses`, `val_routing` and, to score it, `model`.
"""

from callbacks.alarms import AlarmsCallback
from callbacks.benchmarks import BenchmarksCallback
from callbacks.early_stopping import EarlyStoppingCallback
from callbacks.plots import PlotsCallback
from callbacks.progress import ProgressCallback
from callbacks.routing import RoutingCallback
from callbacks.throughput import ThroughputCallback

__all__ = [
    "AlarmsCallback",
    "BenchmarksCallback",
    "EarlyStoppingCallback",
    "PlotsCallback",
    "ProgressCallback",
    "RoutingCallback",
    "ThroughputCallback",
]

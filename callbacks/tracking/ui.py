"""Opens MLflow on a folder of runs: `python -m callbacks.tracking.ui outputs 5000`, which is `make ui`."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlencode

_HOST = "127.0.0.1"

_VIEW = urlencode(
    {
        "workflowType": "machine_learning",
        "compareRunsMode": "CHART",
        "orderByKey": "metrics.`val/bits_per_byte`",  # by date, children would be folded away
        "orderByAsc": "true",
    }
)


def view_url(port: int, experiment_id: str) -> str:
    """Address of an experiment's charts, with its runs from the best validation to the worst."""
    return f"http://{_HOST}:{port}/#/experiments/{experiment_id}/runs?{_VIEW}"


def server_command(store: Path, port: int) -> list[str]:
    """The command that serves a sqlite store on this machine alone."""
    return [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store.absolute()}"),
        *("--host", _HOST, "--port", str(port), "--workers", "1"),
    ]


def main() -> None:
    """Tells where each experiment is seen, and becomes the server."""
    outputs, port = Path(sys.argv[1]), int(sys.argv[2])
    store = outputs / "mlflow.db"
    if not store.is_file():
        _refuse(
            f"{outputs} holds no MLflow runs yet ({store} is missing): "
            "start one with mohge-train, or give another folder with make ui OUTPUTS=DIR"
        )
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind((_HOST, port))
        except OSError:
            _refuse(f"port {port} of this machine is in use: give another with make ui PORT={port + 1}")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{store.absolute()}")
    print(f"MLflow on the runs of {outputs}; Ctrl-C stops it. In a few seconds, the charts of")
    for experiment in client.search_experiments(order_by=["last_update_time DESC"]):
        if experiment.experiment_id != "0":  # MLflow's own, empty
            print(f"  {experiment.name}: {view_url(port, experiment.experiment_id)}")
    sys.stdout.flush()
    command = server_command(store, port)
    os.execv(command[0], command)


def _refuse(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()

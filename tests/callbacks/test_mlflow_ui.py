"""What `make ui` says and does before the server starts."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from callbacks.tracking import ui

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    for name in ("quickstart", "ablation"):
        client.create_experiment(name)
    return folder


def call(monkeypatch, outputs, port):
    """What the server would be started with."""
    started = []
    monkeypatch.setattr(sys, "argv", ["ui", str(outputs), str(port)])
    monkeypatch.setattr("os.execv", lambda program, command: started.append(command))
    ui.main()
    (command,) = started
    return command


def test_a_folder_without_runs_is_told_what_to_do(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, tmp_path / "none", 5000)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert re.match(r"error: .*none holds no MLflow runs yet .*mohge-train.*OUTPUTS=DIR\n$", said)
    assert not (tmp_path / "none").exists()


def test_a_port_in_use_is_told_with_another(outputs, monkeypatch, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            call(monkeypatch, outputs, port)
    assert ended.value.code == 2
    assert f"port {port} of this machine is in use" in capsys.readouterr().err


def test_it_says_where_each_experiment_is_and_serves_this_machine_only(outputs, monkeypatch, capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = call(monkeypatch, outputs, port)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == str(port)
    assert f"sqlite:///{outputs}/mlflow.db" in command
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["ablation", "quickstart"]  # newest first
    assert all(f"http://127.0.0.1:{port}/#/experiments/" in line for line in lines)


def test_make_ui_passes_folder_and_port():
    done = subprocess.run(
        [
            "make",
            "--no-print-directory",
            "--dry-run",
            "--assume-old=setup",
            "ui",
            "OUTPUTS=elsewhere",
            "PORT=5001",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == ".venv/bin/python -m callbacks.tracking.ui elsewhere 5001"

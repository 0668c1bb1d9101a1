import io

import pytest
from fabricated_runs import train_config
from fake_training import FakeModule, FakeTrainer, train_steps, validate
from rich.console import Console

from callbacks import ProgressCallback


def make(is_terminal):
    config = train_config("arch=moe")
    output = io.StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=110)
    return ProgressCallback(config.callbacks.progress, config, console), output


def run(callback, trainer, module, steps):
    callback.on_train_start(trainer, module)
    for step in train_steps(callback, trainer, module, steps):
        module.record = {"train/loss": 5 - step / 100}
    callback.on_train_end(trainer, module)


@pytest.mark.parametrize(("max_steps", "lines"), [(1000, 10), (25, 10), (10, 10), (3, 3), (1, 1)])
def test_a_file_gets_at_most_ten_lines_and_the_last_step(max_steps, lines):
    callback, output = make(is_terminal=False)
    run(callback, FakeTrainer(max_steps=max_steps), FakeModule(), max_steps)
    printed = output.getvalue().splitlines()
    assert len(printed) == lines
    assert f"step {max_steps}/{max_steps} (100%)" in printed[-1]
    assert "\x1b" not in output.getvalue()


def test_a_line_tells_run_loss_speed_and_time_left():
    callback, output = make(is_terminal=False)
    run(callback, FakeTrainer(max_steps=100), FakeModule(), 50)
    line = output.getvalue().splitlines()[-1]
    assert line.startswith("nano moe  step 50/100 (50%)  loss 4.510  ")
    assert "tokens/s" in line
    assert line.endswith(" left")


def test_a_resumed_run_goes_on_from_its_step():
    callback, output = make(is_terminal=False)
    run(callback, FakeTrainer(max_steps=100, global_step=80), FakeModule(), 20)
    assert [line.split()[3] for line in output.getvalue().splitlines()] == ["90/100", "100/100"]


def test_a_validation_is_told_on_a_line_of_its_own():
    callback, output = make(is_terminal=False)
    trainer = FakeTrainer(global_step=40)
    module = FakeModule(record={"val/bits_per_byte": 2.34567})
    callback.on_train_start(trainer, module)
    validate(callback, trainer, module)
    assert output.getvalue() == "nano moe  step 40/100 (40%)  validation 2.3457 bits per byte\n"


def test_a_terminal_gets_a_bar_that_goes_away_on_failure():
    callback, output = make(is_terminal=True)
    trainer, module = FakeTrainer(), FakeModule()
    callback.on_train_start(trainer, module)
    for _ in train_steps(callback, trainer, module, 30):
        module.record = {"train/loss": 3.25}
    callback.on_exception(trainer, module, RuntimeError("lost"))
    assert "30/100" in output.getvalue()
    assert "loss 3.250" in output.getvalue()
    assert output.getvalue().rstrip("\n").endswith("\x1b[?25h")  # the cursor is shown again

"""mohge-generate as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import Forked, run_forked
from refusals import assert_refused, assert_refused_at_once
from tiny_runs import TINY_MODEL, tiny_data, tiny_run, write_corpus

STEPS = ("trainer.max_steps=2", "trainer.checkpoint_every=2")
PROMPT = "prompt=some words"
SPEED = re.compile(r"^\d+ tokens after a prompt of \d+ in [\d.]+ s, [\d.]+ tokens/s; ended by: .+$")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and one of a dense model."""
    folder = tmp_path_factory.mktemp("work") / "trained"
    corpus, cache = Path("corpus"), Path("cache")
    write_corpus(folder / "corpus")
    quiet = ("logger=none", "callbacks=none")
    dense = ["arch=dense", *TINY_MODEL, *tiny_data(corpus, cache), *quiet]
    for run, overrides in (("run", tiny_run(corpus, cache)), ("dense", dense)):
        finished = run_forked("mohge-train", [*overrides, *STEPS, f"paths.run_dir={run}"], folder)
        assert finished.status == 0, finished.stderr
    return folder


def generated(folder: Path, *overrides: str) -> dict:
    finished = run_forked("mohge-generate", ["checkpoint=run", *overrides, "format=json"], folder)
    assert (finished.status, finished.stderr) == (0, "")
    return json.loads(finished.stdout)


def test_text_follows_the_prompt(folder: Path):
    arguments = ["checkpoint=run", PROMPT, "max_new_tokens=9"]
    finished = run_forked("mohge-generate", arguments, folder)
    assert finished.status == 0
    assert SPEED.match(finished.stderr.strip())
    expected = generated(folder, PROMPT, "max_new_tokens=9")
    assert finished.stdout == f"some words{expected['samples'][0]['text']}\n"
    assert expected["prompt"] == "some words"
    assert len(expected["samples"][0]["tokens"]) == 9
    assert expected["samples"][0]["reason"] == "length"
    assert expected["settings"]["seed"] == 1234
    assert "groups" not in expected["samples"][0]


def test_samples_come_one_after_another(folder: Path):
    settings = (PROMPT, "max_new_tokens=5", "samples=3", "seed=7")
    finished = run_forked("mohge-generate", ["checkpoint=run", *settings], folder)
    texts = [sample["text"] for sample in generated(folder, *settings)["samples"]]
    assert len(set(texts)) == 3
    assert finished.stdout == "\n".join(
        f"--- sample {number} of 3\nsome words{text}\n" for number, text in enumerate(texts, 1)
    )


def test_the_prompt_may_be_a_file_or_nothing(folder: Path):
    (folder / "prompt.txt").write_text("some words", encoding="utf-8")
    settings = ("temperature=0", "max_new_tokens=4")
    assert (
        generated(folder, "prompt_file=prompt.txt", *settings)["samples"]
        == (generated(folder, PROMPT, *settings)["samples"])
    )
    assert generated(folder, *settings)["prompt_tokens"] == 1


def test_groups_name_the_width_of_each_token(folder: Path):
    settings = (PROMPT, "max_new_tokens=4", "groups=true", "temperature=0")
    odd = (PROMPT, "max_new_tokens=25", "groups=true", "temperature=5", "samples=2")  # parts of characters
    finished = run_forked("mohge-generate", ["checkpoint=run", *odd], folder)
    tokens = [token for sample in generated(folder, *odd)["samples"] for token in sample["groups"]]
    assert f" 8  {sum(token['width'] == 8 for token in tokens) / len(tokens):.0%}" in finished.stderr
    sample = generated(folder, *settings)["samples"][0]
    assert len(sample["groups"]) == 4
    for token in sample["groups"]:
        assert len(token["widths"]) == 1  # layers
        assert len(token["widths"][0]) == 2  # experts of a token
        assert token["width"] in token["widths"][0]
    finished = run_forked("mohge-generate", ["checkpoint=run", *settings], folder)
    assert finished.stdout == f"some words{sample['text']}\n"  # no colours where no person looks
    narrow = sum(token["width"] == 8 for token in sample["groups"]) / 4
    assert f" 8  {narrow:.0%}" in finished.stderr


@pytest.mark.slow
def test_a_terminal_gets_colours_and_no_commands(folder: Path):
    """Each token has the background of its group: viridis from narrow to wide."""
    parent, child = pty.openpty()
    command = [Path(sys.executable).with_name("mohge-generate"), "checkpoint=run", "max_new_tokens=30"]
    (folder / "odd.txt").write_bytes(b"a\x1b[31mb\x07")
    environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(
        [*command, "groups=true", "prompt_file=odd.txt"],
        cwd=folder,
        env=environment,
        stdout=child,
        stderr=subprocess.DEVNULL,
    )
    os.close(child)
    shown = b""
    while chunk := _read(parent):
        shown += chunk
    assert process.wait() == 0
    text = shown.decode()
    assert {"48;2;68;1;84", "48;2;253;231;37"} & set(re.findall(r"48;2;\d+;\d+;\d+", text))
    assert "\x1b[31m" not in text
    assert "a␛[31mb␇" in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_ctrl_c_leaves_what_was_printed(folder: Path):
    endless = ["checkpoint=run", "prompt=Start", "max_new_tokens=25", "samples=20000"]
    running = Forked("mohge-generate", endless, folder)
    output = running._outputs / "stdout"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (output.exists() and output.read_bytes()):
        time.sleep(0.05)
    running.kill(signal.SIGINT)
    finished = running.wait()
    assert finished.status == 130
    assert finished.stdout.startswith("--- sample 1 of 20000\nStart")
    assert finished.stdout.endswith("\n")
    assert finished.stderr == "interrupted\n"


MISTAKES = [
    (["checkpoint=nowhere"], ["checkpoint=nowhere does not exist", "mohge-export"]),
    ([], ["checkpoint has no value"]),
    (["checkpoint=run", "model=tiny"], ["model=tiny has no effect"]),
    (["checkpoint=run", "temperature=0", "top_k=3"], ["top_k=3 has no effect with temperature=0"]),
    (["checkpoint=run", "temperature=0", "samples=3"], ["samples=3 has no effect with temperature=0"]),
    (["checkpoint=run", "prompt=a", "prompt_file=b"], ["prompt=a and prompt_file=b are two prompts"]),
    (["checkpoint=run", "prompt_file=nowhere"], ["prompt_file=nowhere cannot be read"]),
    (["checkpoint=run", "top_p=1.5"], ["top_p=1.5", "less than or equal to 1"]),
    (["checkpoint=run", "max_new_tokens=0"], ["max_new_tokens=0", "greater than 0"]),
    (["checkpoint=run", "stop=['']"], ["stop[0]=''", "at least 1 character"]),
    (["checkpoint=run", "prompt=12"], ["prompt=12", "text"]),
    (["checkpoint=run", "max_tokens=12"], ["max_tokens", "max_new_tokens"]),
]


@pytest.mark.parametrize(("arguments", "fragments"), MISTAKES, ids=[" ".join(each) for each, _ in MISTAKES])
def test_wrong_input_is_refused(folder: Path, arguments: list[str], fragments: list[str]):
    assert_refused(run_forked("mohge-generate", arguments, folder), fragments)


def test_wrong_input_is_refused_at_once(tmp_path: Path):
    assert_refused_at_once("mohge-generate", ["checkpoint=x", "top_k=0"], tmp_path, ["top_k=0"])


def test_what_only_the_model_can_tell_is_refused_too(folder: Path):
    long = "prompt=" + "word " * 40
    assert_refused(run_forked("mohge-generate", ["checkpoint=run", long], folder), ["context of 32 tokens"])
    dense = ["checkpoint=dense", "groups=true"]
    assert_refused(run_forked("mohge-generate", dense, folder), ["groups=true", "dense"])
    (folder / "latin").write_bytes(b"caf\xe9")
    latin = ["checkpoint=run", "prompt_file=latin"]
    assert_refused(run_forked("mohge-generate", latin, folder), ["prompt_file=latin is not UTF-8 (byte 3)"])

"""lm-eval's own `hf` backend on an exported folder gives what our bridge gives on the checkpoint."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TQDM_DISABLE="1")  # before lm-eval is imported

import datasets
import pytest
import torch
import yaml
from hf_folders import tiny_tokenizer
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tiny_runs import tiny_run, train_here, write_corpus
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evaluation.harness.bridge import MohgeLM
from mohge.interchange import register
from mohge.training.checkpoint_choice import choose_checkpoint
from mohge.training.export import export_checkpoint

ITEMS = 50
CONTEXT = 96
MOE = ["arch=moe", "experts.widths=[12]", "experts.per_group=4", "router.group_top_k=null"]
NO_EXPERTS = ["experts.widths=[]", "experts.per_group=0", "router.group_top_k=null", "router.expert_top_k=0"]
LATENT = ["model.attention=mla", "model.mla={kv_rank:8,nope_dim:8,rope_dim:4,value_dim:8}"]
ARCHS = {
    "dense": ("LlamaForCausalLM", ["arch=dense", *NO_EXPERTS, "experts.shared_width=24"]),
    "moe": ("GraniteMoeSharedForCausalLM", MOE),
    "plain moe": ("MixtralForCausalLM", [*MOE, "experts.shared=0", "experts.shared_width=0"]),
    "mohge": ("MohgeForCausalLM", []),
    "latent": ("MohgeForCausalLM", LATENT),
}
"""Class of the export, and overrides of the tiny run."""
TASKS: dict[str, dict[str, Any]] = {
    "choices": {"output_type": "multiple_choice", "doc_to_text": "{{text}}"},
    "endings": {"output_type": "multiple_choice", "doc_to_text": "{{short}}", "target_delimiter": ""},
    "last_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{word}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
    "whole": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [
            {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}
        ],
    },
    "writing": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{word}}",
        "generation_kwargs": {"until": ["\n", "e"], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
}
CHOICE = {
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and tasks about its words."""
    folder = tmp_path_factory.mktemp("work")
    words = write_corpus(folder / "corpus").joinpath("prose", "0.txt").read_text(encoding="utf-8").split()
    rng = random.Random(1)

    def phrase(most: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(1, most)))

    items = [
        {
            "text": phrase(70 if number % 5 == 0 else 12),  # some are longer than the model's context
            "short": phrase(3) if number % 3 else "",
            "word": phrase(2),
            "choices": [phrase(4) for _ in range(3)],
            "answer": rng.randrange(3),
        }
        for number in range(ITEMS)
    ]
    (folder / "tasks").mkdir()
    (folder / "tasks" / "items.jsonl").write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    for name, task in TASKS.items():
        definition = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / "tasks" / "items.jsonl")}},
            "test_split": "test",
            **(CHOICE if task["output_type"] == "multiple_choice" else {}),
            **task,
        }
        (folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    return folder


def answers(lm: Any, work: Path, monkeypatch: pytest.MonkeyPatch, limit: int = ITEMS) -> dict[str, list[Any]]:
    """By task: the model's answers to each item, in order."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", work / "datasets")
    manager = TaskManager(include_path=str(work / "tasks"), include_defaults=False)
    tasks = dict(manager.load(list(TASKS)))
    found = evaluate(lm, tasks, limit=limit, bootstrap_iters=0, log_samples=True)["samples"]
    return {
        name: [sample["resps"] for sample in sorted(found[name], key=lambda sample: sample["doc_id"])]
        for name in TASKS
    }


def agree(ours: dict[str, list[Any]], theirs: dict[str, list[Any]], items: int) -> None:
    """All log-likelihoods to 1e-4, which answers are greedy ones, and all texts."""
    assert [len(ours[task]) for task in TASKS] == [items] * len(TASKS)
    assert ours["writing"] == theirs["writing"], "greedy generations are identical"
    assert len({str(text) for text in ours["writing"]}) > 0.7 * items, "or agreement would mean little"
    for task in ("choices", "endings", "last_word"):
        pairs = [
            (mine, hf)
            for item, other in zip(ours[task], theirs[task], strict=True)
            for (mine,), (hf,) in zip(item, other, strict=True)
        ]
        assert len(pairs) == (items if task == "last_word" else 3 * items)
        assert max(abs(mine[0] - hf[0]) for mine, hf in pairs) < 1e-4, task
        assert [mine[1] for mine, _ in pairs] == [hf[1] for _, hf in pairs], task
        assert len({round(mine[0], 3) for mine, _ in pairs}) > 0.9 * items
    whole = [(mine, hf) for ((mine,),), ((hf,),) in zip(ours["whole"], theirs["whole"], strict=True)]
    assert max(abs(mine / hf - 1) for mine, hf in whole) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_the_hf_backend_agrees_on_250_items_of_five_tasks(work, monkeypatch, arch):
    name, overrides = ARCHS[arch]
    run, exported = work / arch / "run", work / arch / "hf"
    tiny = [*tiny_run(work / "corpus", work / "cache"), "model.layers=2", f"model.context={CONTEXT}"]
    # Weights start large, so that texts differ after few steps.
    learning = ["trainer.max_steps=5", "model.init_std=0.3"]
    train_here(run, *tiny, *overrides, *learning)
    assert export_checkpoint(choose_checkpoint(str(run)), exported, "hf")["class"] == name
    register()
    theirs = HFLM(pretrained=str(exported), device="cpu", dtype="float32", batch_size=8)
    assert type(theirs.model).__name__ == name
    assert theirs.max_length == CONTEXT
    ours = MohgeLM(checkpoint=str(run), batch_size=7)
    agree(answers(ours, work, monkeypatch), answers(theirs, work, monkeypatch), ITEMS)


@pytest.fixture(scope="module")
def beginning(work: Path) -> Path:
    """A folder of a Llama that transformers has made, whose tokenizer puts a token before every text."""
    folder = work / "beginning"
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(["<|begin|>"])
    begin, end = tokenizer.token_to_id("<|begin|>"), tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B", special_tokens=[("<|begin|>", begin)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    ).save_pretrained(folder)
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        bos_token_id=begin,
        eos_token_id=end,
        pad_token_id=end,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_tokenizer_that_begins_every_text_is_followed(work, beginning, monkeypatch):
    ours = MohgeLM(checkpoint=str(beginning), batch_size=7)
    theirs = HFLM(pretrained=str(beginning), device="cpu", dtype="float32", batch_size=8)
    begin = theirs.tokenizer.bos_token_id
    assert ours.language_model.begin == (begin,)
    assert ours.prefix_token_id == theirs.prefix_token_id == begin != ours.eot_token_id
    assert ours.eot_token_id == theirs.eot_token_id
    agree(answers(ours, work, monkeypatch, 10), answers(theirs, work, monkeypatch, 10), 10)

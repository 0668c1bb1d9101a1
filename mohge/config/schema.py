"""The typed configuration: one frozen dataclass per Hydra group.

Hydra composes YAML into a plain dict; `mohge.config.load.typed` validates that dict against these
classes with pydantic. Nothing here imports torch, so that a wrong configuration is refused at once.
A checkpoint stores the same content as a plain dict, and `typed` reads it back.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, ClassVar, Literal, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Kernel = Literal["auto", "loop", "grouped", "fused", "native"]
Placement = Literal["all_size", "contiguous", "pairs"]
GroupScore = Literal["softmax", "sigmoid"]
ExpertWeighting = Literal["renormalize", "post_softmax"]
Selection = Literal["joint", "per_group"]
Fraction = Annotated[float, Field(ge=0, le=1)]

LOCAL = "_local"
"""End of the names of tasks that mohge-prepare data=benchmarks writes."""

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field, Field))
def config_class(cls: type[_T]) -> type[_T]:
    """A frozen, keyword-only pydantic dataclass that refuses unknown keys."""
    keys = ConfigDict(extra="forbid", populate_by_name=True)
    return dataclass(frozen=True, kw_only=True, config=keys)(cls)  # type: ignore[return-value]


@config_class
class LatentAttentionConfig:
    """Multi-head latent attention (DeepSeek-V2): keys and values are expanded from one low-rank vector."""

    kv_rank: Positive = 512
    """Width of the compressed key-value vector."""
    nope_dim: Positive = 128
    """Width per head of queries and keys that carries no position."""
    rope_dim: Positive = 64
    """Width per head of queries, and of the one shared key, that RoPE rotates; even."""
    value_dim: Positive = 128
    """Width per head of values."""


@config_class
class ModelConfig:
    """Width, depth, attention, vocabulary and context of the transformer."""

    name: str
    """Name of the size, for tables and run names."""
    vocab_size: Positive
    """Rows of the embedding, and the size of a tokenizer trained for this model."""
    context: Positive
    """Longest sequence in tokens."""
    d_model: Positive
    """Width of the residual stream (D)."""
    layers: Positive
    """Number of transformer blocks."""
    heads: Positive
    """Query heads."""
    kv_heads: Positive
    """Key and value heads of grouped-query attention; divides `heads`. Latent attention ignores it."""
    attention: Literal["gqa", "mla"] = "gqa"
    """Grouped-query or multi-head latent attention."""
    mla: LatentAttentionConfig = field(default_factory=LatentAttentionConfig)
    """Dimensions of latent attention; used when `attention` is mla."""
    rope_base: PositiveNumber = 10000.0
    """Base of the rotary frequencies."""
    norm_eps: PositiveNumber = 1e-6
    """Epsilon of RMSNorm."""
    tied_head: bool = True
    """Whether the output head shares the embedding's weights."""
    init_std: PositiveNumber = 0.02
    """Standard deviation of weights at initialisation; projections into the residual stream get it
    divided by sqrt(2 * layers)."""
    activation_checkpointing: bool = False
    """Recompute attention and experts in the backward pass instead of keeping their activations."""


@config_class
class ExpertsConfig:
    """The expert pool of each MoE layer. No widths means a dense model made of the shared experts alone."""

    widths: tuple[Positive, ...] = ()
    """Hidden width of each group's SwiGLU experts, not decreasing (W_g)."""
    groups: NonNegative | None = None
    """Number of width groups (G); derived from `widths`, and checked against it when given."""
    per_group: NonNegative = 0
    """Experts in each group (N)."""
    shared: NonNegative = 0
    """Experts that every token passes through."""
    shared_width: NonNegative = 0
    """Hidden width of each shared expert."""
    # Not auto, which the presets have: a cell of a sweep is named by the keys that are not at the default of
    # their class, so that another default here would make other cells of those that are done.
    kernel: Kernel = "grouped"
    """How experts are computed: `auto` is the fastest for device, precision and sizes; `loop` is the slow
    reference, `grouped` one product per width group, `fused` one autograd function for the layer, `native`
    C for a CPU."""

    @property
    def num_groups(self) -> int:
        """G."""
        return len(self.widths)

    @property
    def num_experts(self) -> int:
        """E = G * N, per layer."""
        return len(self.widths) * self.per_group


@config_class
class RouterConfig:
    """How a token picks experts."""

    kind: Literal["two_level", "top_k", "none"]
    """Groups first and then experts (MoHGE), one flat choice (standard MoE), or no routing (dense)."""
    group_top_k: NonNegative | None = None
    """Groups per token (K_g); two_level only."""
    expert_top_k: NonNegative = 0
    """Routed experts per token (K_e), taken over all selected groups together."""
    group_score: GroupScore = "softmax"
    """Score function of the group logits; two_level only."""
    expert_weighting: ExpertWeighting = "renormalize"
    """Weights of the chosen experts: probabilities divided by their sum, or, as in the released code, a
    softmax over those probabilities, which makes them nearly uniform."""
    selection: Selection = "joint"
    """The most probable experts of all that are reachable together, or equally many of each group that is
    reachable: of the selected groups (two_level), of all (top_k; MoGE)."""
    bias_rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """By how much, in each step, a bias that only the choice of experts sees moves towards equal loads
    (loss-free balancing); top_k only, 0 for no bias."""
    target: Annotated[str | None, Field(alias="_target_")] = None
    """Class of a router that decides in a way of its own, from the same weights: derived from that of `kind`,
    which says what else applies to it. Unset, the class of `kind`."""


@config_class
class LossConfig:
    """Auxiliary losses. Each is summed over layers, weighted, and added to the cross-entropy."""

    group_weight: Weight = 0.0
    """Weight of the group-wise loss, which steers tokens to small experts (alpha_group)."""
    group_start: Fraction = 0.5
    """Fraction of training after which the group-wise loss is switched on."""
    width_interval: PositiveNumber | None = None
    """Interval of the size weights r_g = (W_g - W_min + interval) / interval. Unset, it is chosen so
    that r spans 1 to 1.875, as in the released recipe."""
    intra_weight: Weight = 0.0
    """Weight of the intra-group loss, which balances experts of one width (alpha_intra)."""
    balance_weight: Weight = 0.0
    """Weight of the Switch balance loss over all experts."""
    penalty_weight: Weight = 0.0
    """Weight of the parameter penalty of HMoE, a balance loss that charges experts by their width; top_k
    only."""
    z_weight: Weight = 0.0
    """Weight of the z-loss on router logits."""
    scope: Literal["micro_batch", "global_batch"] = "micro_batch"
    """Tokens over which the balance losses count how often an expert was picked: those of the
    micro-batch, or all of the optimizer step so far, over all ranks."""


@config_class
class ParallelConfig:
    """How the model is spread over processes."""

    name: Literal["single", "ddp", "fsdp", "ep", "fsdp_ep"] = "single"
    """Which axes of the mesh the preset opens; single runs one process."""
    dp_replicate: Positive | None = 1
    """Copies of the model; unset, what the other sizes leave of the ranks."""
    dp_shard: Positive | None = 1
    """Ranks that share the parameters of one copy; unset, what the other sizes leave of the ranks."""
    expert_parallel: Positive | None = 1
    """Ranks that share the experts of each layer; unset, what the other sizes leave of the ranks."""
    placement: Placement = "all_size"
    """Which rank holds which experts: every width on every rank (MoHGE), groups one after another, or
    widths in pairs (MoDSE). Training has all_size; the others can be planned and replayed."""
    timeout: Positive = 40
    """Seconds that a rank waits for the others before it calls them lost, and the run ends."""


@config_class
class DataConfig:
    """Corpus, tokenizer, context and batch."""

    target: Annotated[str, Field(alias="_target_")]
    """Class of the LightningDataModule; it is called with this configuration."""
    check: str | None = None
    """Function that refuses this configuration, with UserError, where it cannot work: called before
    torch is imported, and so takes well under a second."""
    name: Literal["python_stdlib", "text_files", "debian_docs", "hf", "benchmarks"]
    """Kind of corpus; benchmarks are none, and are prepared alone."""
    path: str | None = None
    """text_files: a file, folder or glob. hf: a dataset of the hub, or a local folder."""
    subset: str | None = None
    """hf: name of the dataset's configuration."""
    split: str = "train"
    """hf: split to read."""
    text_field: str = "text"
    """hf and .jsonl files: field that holds the text."""
    domain_field: str | None = None
    """hf and .jsonl files: field that names a document's domain."""
    max_bytes: Positive | None = None
    """Read at most this many bytes of text, spread over the domains in proportion."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of documents held out, chosen by a hash of their source."""
    tokenizer: str | None = None
    """A tokenizer.json (byte-level BPE) to use; unset, one of `vocab_size` entries is trained."""
    vocab_size: Positive
    """Entries of a tokenizer trained on the corpus."""
    context: Positive
    """Tokens per training sequence."""
    batch_sequences: Positive
    """Sequences in each micro-batch, over all ranks."""
    workers: NonNegative = 0
    """Loader processes; the order of batches does not depend on it."""
    cache_dir: str
    """Folder of prepared corpora."""


@config_class
class OptimConfig:
    """AdamW and its learning-rate schedule."""

    lr: PositiveNumber
    """Peak learning rate."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """Decay of the first and second moment."""
    eps: PositiveNumber = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Weight = 0.1
    """Decoupled decay of matrices; norms, biases and embeddings have none."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """Cosine decay, or warm-up, stable, linear decay."""
    warmup_fraction: Fraction = 0.05
    """Share of the steps in which the rate rises linearly."""
    decay_fraction: Fraction = 0.2
    """wsd: share of the steps, at the end, in which the rate falls."""
    final_lr: Fraction = 0.1
    """Rate at the last step, as a share of `lr`."""


@config_class
class TrainerConfig:
    """Length, hardware, precision, and how often to look, validate and save."""

    max_steps: Positive | None = None
    """Optimizer steps; unset, `max_tokens` decides."""
    max_tokens: Positive | None = None
    """Training tokens, rounded up to whole steps; used when `max_steps` is unset."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Hardware to run on."""
    devices: Positive | None = None
    """Processes on each machine; unset, as many as the sizes of `parallel` ask for."""
    nodes: Positive = 1
    """Machines; under torchrun or SLURM it is found."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 keeps weights in fp32 and computes matrix products in bfloat16."""
    accumulate: Positive = 1
    """Micro-batches per optimizer step."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient; null for no clipping."""
    val_every: Positive = 100
    """Steps between validations; the last step is always validated."""
    val_sequences: Positive = 64
    """Held-out sequences of each domain, at most, per validation."""
    log_every: Positive = 10
    """Steps between records of metrics."""
    checkpoint_every: Positive = 100
    """Steps between checkpoints; the last step is always saved."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints to keep."""


@config_class
class CallbackConfig:
    """A callback that has no settings but its class."""

    target: Annotated[str, Field(alias="_target_")]
    """Class of the callback."""


@config_class
class RoutingCallbackConfig(CallbackConfig):
    """The callback that records where tokens went."""

    tier: Literal["brief", "detailed"] = "detailed"
    """At most a dozen scalars; or also shares of groups, arrays per layer, and pictures."""
    picture_every: Positive = 1000
    """detailed: steps between pictures and arrays that go to the logger, beside those at the end."""


@config_class
class SuiteConfig:
    """Benchmarks that are run together."""

    name: str
    """Name of the suite; results go to a folder of this name, and of the limit if there is one."""
    tasks: tuple[str, ...] = ()
    """Tasks or groups of lm-eval: those that mohge-prepare data=benchmarks writes end in _local, all others
    are lm-eval's own, which fetch from a hub."""
    fewshot: dict[str, NonNegative] = field(default_factory=dict)
    """Solved examples before each item, by task, where it is not the task's own number."""
    limit: Positive | None = None
    """Items of each task, at most; of a group, of each of its tasks. Unset, all of them."""
    held_out: NonNegative | None = 0
    """Tokens of the run's own held-out text that are scored, about, spread over its domains; unset, all."""

    @property
    def needs_benchmarks(self) -> bool:
        """Whether a task reads what mohge-prepare has written."""
        return any(name.endswith(LOCAL) for name in self.tasks)

    @property
    def folder(self) -> str:
        """Name of the folder of its results: those of some items are not those of all."""
        return self.name if self.limit is None else f"{self.name}-limit{self.limit}"


@config_class
class BenchmarksCallbackConfig(CallbackConfig):
    """The callback that runs a small suite of benchmarks during training."""

    every: Positive | None = None
    """Steps between evaluations, at steps that are recorded; the last step too. Unset, there are none."""
    suite: SuiteConfig
    """What is asked of the model."""
    batch_size: Positive = 32
    """Sequences of a forward pass."""
    evaluator: str
    """Class or function that makes the evaluator; it is called with this configuration and the run's."""
    find_tasks: str
    """Finds the tasks that mohge-prepare has written; it is called with paths.cache_dir."""


@config_class
class EarlyStoppingCallbackConfig(CallbackConfig):
    """The callback that ends a run which no longer learns."""

    patience: Positive | None = None
    """Validations without improvement after which the run ends; unset, it never does."""
    min_change: Weight = 0.0
    """Bits per byte that the best validation must fall by to count as an improvement."""


@config_class
class CallbacksConfig:
    """What watches a run; null switches one off."""

    routing: RoutingCallbackConfig | None = None
    """Load of experts and groups, measured active parameters."""
    throughput: CallbackConfig | None = None
    """Tokens per second, FLOP/s, parts of a step's time, memory."""
    alarms: CallbackConfig | None = None
    """Warnings with a remedy: collapse, idle experts, loss spikes, non-finite values, stalls, imbalance."""
    progress: CallbackConfig | None = None
    """The progress bar."""
    plots: CallbackConfig | None = None
    """Pictures of losses, group shares and expert load at the end of the run."""
    benchmarks: BenchmarksCallbackConfig | None = None
    """A small suite of benchmarks at intervals."""
    early_stopping: EarlyStoppingCallbackConfig | None = None
    """The end of a run that no longer learns."""


@config_class
class LoggerConfig:
    """Where metrics go, beside metrics.jsonl in the run's folder."""

    name: Literal["mlflow", "csv", "none"]
    """Kind of logger."""
    target: Annotated[str | None, Field(alias="_target_")] = None
    """Factory of the Lightning logger; it is called with this configuration and the run's facts."""
    group_results: str | None = None
    """Function that gives the results of a finished comparison to the run that stands for all its arms; it
    is called with this configuration and the comparison's."""
    tracking_uri: str | None = None
    """mlflow: store or server."""
    experiment: str = "mohge"
    """mlflow: name of the experiment."""
    run_name: str | None = None
    """mlflow: name of the run; by default model, arch and seed."""
    group: str | None = None
    """mlflow: folder of runs that belong together, which become children of one run; comparisons and
    multiruns set it to their own."""


@config_class
class PathsConfig:
    """Folders."""

    output_dir: str = "outputs"
    """Parent of the runs' folders."""
    run_dir: str | None = None
    """Folder of this run; by default a new one under `output_dir`."""
    cache_dir: str = "~/.cache/mohge"
    """Prepared corpora and downloads, shared between runs."""


@config_class
class ComparisonConfig:
    """Several runs in one command, and what is made of them."""

    target: Annotated[str, Field(alias="_target_")]
    """Function that compares the finished runs' folders."""
    arms: dict[str, list[str]]
    """Overrides of each run, by its name."""
    baseline: str
    """Name of the run that the others are compared with."""


@config_class
class MatchConfig:
    """Widths that make a model cost what a reference does."""

    by: Literal["total", "active", "flops"] | None = None
    """What is equal: all parameters, those that a token uses if experts are picked equally often, or the
    FLOPs of a training token, likewise. Unset, widths stay as they are given."""
    to: str = "mohge"
    """Architecture preset of the reference, of the same `model`."""
    difference: float | None = None
    """By how much, relative to the reference, the matched model differs; found, not given."""


@config_class
class TrainConfig:
    """All that mohge-train reads."""

    has_mesh: ClassVar[bool] = True
    """Whether the ranks that have been started, if any, are to be laid out as `parallel` says."""
    is_run: ClassVar[bool] = True
    """Whether its keys are those of one run, and have to agree."""
    model: ModelConfig
    arch_name: str
    """Name of the architecture preset, for tables and run names."""
    experts: ExpertsConfig
    router: RouterConfig
    loss: LossConfig
    parallel: ParallelConfig
    data: DataConfig
    optim: OptimConfig
    trainer: TrainerConfig
    callbacks: CallbacksConfig
    logger: LoggerConfig
    paths: PathsConfig
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1234
    """Seed of weights, and of the order of data."""
    resume: str | None = None
    """Run folder to continue."""
    comparison: ComparisonConfig | None = None
    """Set by experiments that train several runs."""
    match: MatchConfig = field(default_factory=MatchConfig)
    """Widths that make this model cost what a reference does."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step learns from."""
        return self.data.batch_sequences * self.data.context * self.trainer.accumulate

    @property
    def steps(self) -> int:
        """Optimizer steps of a run: `trainer.max_steps`, or else `trainer.max_tokens` in whole steps."""
        trainer = self.trainer
        if trainer.max_steps is not None:
            return trainer.max_steps
        assert trainer.max_tokens is not None, "one is given: checked with the configuration"
        return math.ceil(trainer.max_tokens / self.tokens_per_step)


@config_class
class ResultConfig(TrainConfig):
    """All that a command reads which looks at a training configuration and prints a result."""

    format: Literal["table", "json"] = "table"
    """What to print."""
    output: str | None = None
    """File for the JSON result."""

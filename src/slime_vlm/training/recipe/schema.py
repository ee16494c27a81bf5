"""The keys of a recipe, which describes a training run.

`SlimeConfig` describes the architecture (`model.config` below). Everything that belongs to the run and not to the
weights is here. Defaults are in these dataclasses and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from slime_vlm.model.configuration_fields import SlimeFields
from slime_vlm.pages import PageSettings
from slime_vlm.processing.chat_styles import STYLES
from slime_vlm.processing.tokenization import LABEL_RULES
from slime_vlm.training.recipe.rules import (
    COUNTS,
    FOLDER_NAME,
    NOT_EMPTY,
    RATES,
    SHARE,
    SHARES,
    at_least,
    fields_of,
    one_of,
    some_of,
    value_rule,
)
from slime_vlm.training.reporting.trackers import TRACKERS

# Schedules of transformers that need no settings of their own.
SCHEDULES = (
    "cosine",
    "linear",
    "constant",
    "constant_with_warmup",
    "polynomial",
    "inverse_sqrt",
    "cosine_with_restarts",
)


@dataclass(frozen=True)
class MixturePart:
    """One source of a mixture, see `slime_vlm.data.open_source`."""

    path: str
    """A JSON, JSONL, Parquet or tar file, a pattern of several, a folder, or a hub id."""
    images: str | None = None
    """Folder, zip or tar file that image paths are relative to; default: the folder of the records."""
    config: str | None = None
    """Configuration of a data set on the hub."""
    split: str | None = None
    """Split of a data set of the `datasets` library; None = train."""
    passes: float | None = field(default=None, metadata=value_rule("more than 0", lambda value: 0 < value < 1e6))
    """Passes through the source in one epoch; None = 1."""
    weight: float | None = field(default=None, metadata=value_rule("more than 0", lambda value: 0 < value < math.inf))
    """Share of the samples relative to the other sources, in place of `passes`; set for all sources or for none."""


@dataclass(frozen=True)
class DataSource:
    """Where samples come from; exactly one of `pages`, `records` and `mixture` is set."""

    pages: dict[str, Any] | None = field(default=None, metadata=fields_of(PageSettings))
    """Settings of the page renderer (`slime_vlm.pages.PageSettings`)."""
    records: str | None = None
    """One source of conversation records: a JSON, JSONL, Parquet or tar file, a folder, a hub id."""
    images: str | None = None
    """Folder, zip or tar file that the image paths of `records` are relative to; default: the folder of the records."""
    mixture: list[MixturePart] | None = field(default=None, metadata=NOT_EMPTY)
    """Several sources of conversation records."""
    conversation: str = field(default="template", metadata=one_of("template", "plain"))
    """`template`: the model's chat template. `plain`: image, caption, newline (stages 1 and 2)."""
    labels: str = field(default="answers", metadata=one_of(*LABEL_RULES))
    """`answers`: every answer of a record is supervised. `published`: tokens are counted again as in the published
    code, and a record with a wrong count is not supervised at all."""
    max_bad: float = field(default=0.01, metadata=SHARE)
    """Share of the records of a source that may be unusable (a damaged image, roles out of order). Each is reported and
    replaced by the next one; one more stops the run. 0 stops at the first. Of several processes, each counts the bad
    records that it meets, up to its part of the limit (`training.records.part_of_limits`)."""
    workers: int = field(default=0, metadata=at_least(0))
    """Worker processes that prepare batches; 0 = the training process itself."""

    @property
    def parts(self) -> list[MixturePart]:
        """The sources of records; empty for pages."""
        return [MixturePart(self.records, self.images)] if self.records is not None else self.mixture or []


@dataclass(frozen=True)
class SymbolicTokensSettings:
    """Contents of a row under the `symbolic_tokens` objective.

    Recipes teach copying first, from the asked tokens alone, and then finding them among other tokens. Trained together
    from the start, neither is learned.
    """

    distractors: list[float] = field(default_factory=lambda: [0.0, 1.0], metadata=SHARES)
    """Smallest and largest share of the tokens outside of every question that stay in the row."""
    blanks: list[float] = field(default_factory=lambda: [0.0, 0.3], metadata=SHARES)
    """Smallest and largest share of the blank tokens that stay in the row."""
    unknown: float = field(default=0.5, metadata=SHARE)
    """Share of rows in which no token names the other text it belongs to; the language model has to infer it."""
    jitter: float = field(default=0.0, metadata=at_least(0))
    """Largest shift of the characters in pixels. A vision encoder is unsure whether a character near the edge of a
    token belongs to this token or its neighbour, and names it twice or not at all."""
    local_side: int | None = field(default=None, metadata=at_least(1))
    """Tokens along the side of a tile; None = those of the model. Smaller tokens hold fewer characters, and copying one
    character per token is much easier to learn."""


@dataclass(frozen=True)
class PageTraining:
    """How a stage learns from rendered pages: its objective, its rows, and the weights of auxiliary losses."""

    objective: str = field(default="answer", metadata=one_of("answer", "read", "symbolic_tokens"))
    """`answer`: language-model loss on the answers. `read`: name the characters in every token. `symbolic_tokens`:
    language-model loss on tokens whose content is given as labels, without pixels."""
    tiles_read: int | None = field(default=None, metadata=at_least(1))
    """Most tiles of a page that the `read` objective uses, drawn by the text they hold; None = all."""
    questions: list[int] = field(default_factory=lambda: [8], metadata=COUNTS)
    """Numbers of questions per page; one of them is drawn for every batch."""
    symbolic_tokens: SymbolicTokensSettings = field(default_factory=SymbolicTokensSettings)
    """Rows of the `symbolic_tokens` objective."""
    selector_loss: float = field(default=0.0, metadata=at_least(0))
    """Weight of the loss that raises the selector's scores of the asked key and its value."""
    context_loss: float = field(default=0.0, metadata=at_least(0))
    """Weight of the loss on naming, in the middle layer of the language model, the words that a visual token belongs to
    (`symbolic_tokens` only)."""
    pointing_loss: float = field(default=0.0, metadata=at_least(0))
    """Weight of the loss that trains attention heads to attend to the token with the answer's next character."""
    copying_loss: float = field(default=0.0, metadata=at_least(0))
    """Weight of the loss on naming the characters of the token to attend to."""
    reading_loss: float = field(default=0.0, metadata=at_least(0))
    """Weight of the reading loss of local tokens beside the answer loss."""
    global_reading_loss: float = field(default=0.0, metadata=at_least(0))
    """Weight of the reading loss of global tokens, for the adapters that the gate enables."""


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters on the language model."""

    rank: int = field(default=128, metadata=at_least(1))
    alpha: int = field(default=256, metadata=at_least(1))
    dropout: float = field(default=0.05, metadata=SHARE)
    merge: bool = True
    """Merge them into the language model at the end of the stage. `false` keeps them apart, in a small folder that
    refers to the model that the stage started from (`slime merge` merges them later)."""
    base_weights: str = field(default="float32", metadata=one_of("float32", "bfloat16", "4bit"))
    """Type of the frozen linear layers beside the adapters. Everything else stays in float32."""


@dataclass(frozen=True)
class FeatureCache:
    """Features of the frozen vision encoder on disk, computed once and read in later epochs, stages and runs."""

    folder: str
    """Folder of the features; several stages and runs may share it."""
    dtype: str = field(default="bfloat16", metadata=one_of("bfloat16", "float16", "float32"))
    """Type that they are stored in. float32 changes no loss and takes twice the space."""
    max_gib: float = field(default=500.0, metadata=value_rule("more than 0", lambda value: 0 < value < math.inf))
    """Most GiB in the folder; a stage that needs more stops."""


@dataclass(frozen=True)
class Stage:
    """One stage: the trained parts, the config during the stage, the data and the optimizer."""

    name: str = field(metadata=FOLDER_NAME)
    trains: list[str] = field(metadata=NOT_EMPTY)
    """Parts of the model (see `PART_PREFIXES`); everything else is frozen."""
    data: DataSource
    learning_rate: float = field(metadata=at_least(0))
    batch_size: int = field(metadata=at_least(1))
    """Samples in one optimizer step, over all processes and accumulation steps."""
    micro_batch_size: int | None = field(default=None, metadata=at_least(1))
    """Samples in one forward pass; None = `batch_size` on one process."""
    epochs: float = field(default=1.0, metadata=value_rule("more than 0", lambda value: 0 < value < 1e6))
    steps: int | None = field(default=None, metadata=at_least(1))
    """Optimizer steps; None = `epochs`. Required for pages, which have no epochs."""
    config: dict[str, Any] = field(default_factory=dict, metadata=fields_of(SlimeFields))
    """SlimeConfig values during this stage (gate, views, top_p, ...)."""
    start: list[str] | None = None
    """Stages to start from: the weights of the first, then the parts that each later one trained. None = the previous
    stage, [] = the recipe's model."""
    part_learning_rates: dict[str, float] = field(default_factory=dict, metadata=RATES)
    """Learning rates of single parts, in place of `learning_rate`."""
    schedule: str = field(default="cosine", metadata=one_of(*SCHEDULES))
    warmup_ratio: float = field(default=0.03, metadata=SHARE)
    weight_decay: float = field(default=0.0, metadata=at_least(0))
    adam_beta2: float = field(default=0.999, metadata=value_rule("0 or more, below 1", lambda value: 0 <= value < 1))
    max_grad_norm: float = field(default=1.0, metadata=at_least(0))
    gradient_checkpointing: bool = False
    bf16: bool = True
    """Compute in bfloat16 where the machine has instructions for it."""
    max_sequence_length: int | None = field(default=2048, metadata=at_least(1))
    packing: bool = False
    """Concatenate the samples of a forward pass instead of padding them, and group samples so that all passes have
    about the same number of tokens (records only)."""
    cache_features: FeatureCache | None = None
    """Keep the features of the vision encoder, which must be frozen, on disk (records only)."""
    lora: LoraSettings | None = None
    """Train low-rank adapters instead of all weights of `language_model`; other parts train whole."""
    page_training: PageTraining | None = None
    """Objective and losses on rendered pages; set if and only if the stage trains on `data.pages`."""
    save_minutes: float = field(default=4.0, metadata=at_least(0))
    """Minutes between checkpoints."""
    seed: int = field(default=0, metadata=at_least(0))
    source: str = ""
    """Where the numbers of this stage come from."""

    def __post_init__(self) -> None:
        """Give a stage on rendered pages the default objective if the recipe names none."""
        if self.data.pages is not None and self.page_training is None:
            object.__setattr__(self, "page_training", PageTraining())

    def samples_a_pass(self, processes: int) -> int:
        """Return the samples of one forward pass on each of the processes."""
        return self.micro_batch_size or max(1, self.batch_size // processes)


@dataclass(frozen=True)
class ModelSource:
    """The model that the first stage starts from."""

    path: str | None = None
    """A SliME checkpoint (native, published or `nano`)."""
    vision: str | None = None
    """A vision encoder (folder or hub id) for a new SliME."""
    llm: str | None = None
    """A language model (folder or hub id) for a new SliME."""
    tokenizer: str | None = field(default=None, metadata=one_of("pages"))
    """`pages`: a small tokenizer of words and characters for rendered pages, for a model from nothing."""
    conversation: str | None = field(default=None, metadata=one_of(*STYLES))
    """Conversation style of a new SliME: `v1`, `llama3` or `pages`."""
    config: dict[str, Any] = field(default_factory=dict, metadata=fields_of(SlimeFields))
    """SlimeConfig values."""


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    name: str = field(metadata=FOLDER_NAME)
    model: ModelSource
    stages: list[Stage] = field(metadata=NOT_EMPTY)
    description: str = ""
    seed: int = field(default=0, metadata=at_least(0))
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"], metadata=some_of(*TRACKERS))
    """Trackers that receive curves; [] for none."""

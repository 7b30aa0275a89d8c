"""The words of a scenario's spot-check: held-out data, what an answer is, and the margins that decide."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from perfbench.scenario.references import Data
from perfbench.scenario.strict import URL, NotNegative, Positive, Strict, plain_file

Share = Annotated[float, Field(ge=0, le=1)]
Margin = Annotated[float, Field(gt=0, lt=1)]
Column = Annotated[str, Field(min_length=1)]


class Classification(Strict):
    """The answer is one label."""

    task: Literal["classification"]
    expected: Column
    """Column that holds the right label."""
    labels: tuple[str, ...] | None = None
    """All labels; default: those that occur in the data. An answer that is none of them is `unparsed`, a class of its own."""


class Extraction(Strict):
    """The answer is a JSON object."""

    task: Literal["extraction"]
    expected: Column
    """Column that holds the right object (or its JSON text)."""
    json_schema: Annotated[str, AfterValidator(plain_file)] | None = None
    """File with the JSON Schema that answers must meet."""


class QuestionAnswering(Strict):
    """The answer is a short text, known beforehand."""

    task: Literal["qa"]
    expected: Column
    """Column that holds the right answer, or a list of equally right ones."""


class DomainQuestions(Strict):
    """The answer is a few sentences from a field; what it must say is known as key facts, a reference answer, or both."""

    task: Literal["domain_qa"]
    expected: Column
    """Column that holds a reference answer."""
    facts: Column
    """Column that holds the facts a right answer states: a list of texts; a list inside it holds wordings of the same fact."""
    pass_at: Share = 1.0
    """A sample passes when so large a share of its facts is stated."""


class BertScore(Strict):
    """An encoder whose contextual embeddings say how alike answer and reference are: the supporting metric `bertscore`. Nothing is downloaded."""

    path: Annotated[str, AfterValidator(plain_file)]
    """Folder of the encoder (BERT, RoBERTa, DeBERTa, ...), relative to the scenario file."""
    layer: Annotated[int, Field(ge=1)]
    """The layer whose embeddings count. bert-score takes 17 for roberta-large, 10 for roberta-base, 9 for bert-base-uncased and bert-base-multilingual-cased,
    17 for xlm-roberta-large, 40 for deberta-xlarge-mnli."""
    idf: bool = False
    """Weigh rare tokens more, by how many of the references hold them."""
    baseline: Annotated[str, AfterValidator(plain_file)] | None = None
    """File in bert-score's form (`LAYER,P,R,F`), by which scores are stretched to 0..1. Without one they crowd near 1, and a margin of 0.05 means little."""


class Comet(Strict):
    """A checkpoint of COMET, which says how good a translation is: the supporting metric `comet`. unbabel-comet computes it, in an environment of its own."""

    python: Annotated[str, AfterValidator(plain_file)]
    """The Python of an environment that has unbabel-comet."""
    checkpoint: Annotated[str, AfterValidator(plain_file)]
    """`FOLDER/checkpoints/model.ckpt` of a model as wmt22-comet-da, with its `hparams.yaml` in FOLDER."""
    encoder: Annotated[str, AfterValidator(plain_file)]
    """Folder with config and tokenizer of the encoder that the checkpoint was made from (xlm-roberta-large for wmt22-comet-da); its weights are not needed."""


class Summarisation(Strict):
    """The answer is a summary."""

    task: Literal["summarisation"]
    expected: Column
    """Column that holds a reference summary, or a list of them."""
    key_points: Column | None = None
    """Column that holds what a summary must mention: a list of texts; a list inside it holds wordings of the same point. Without it there is no `coverage`."""
    source: Column | None = None
    """Column that holds the text to summarise, for the judge's `faithfulness`."""
    min_words: Annotated[int, Field(ge=1)] | None = None
    """Shorter answers do not pass."""
    max_words: Annotated[int, Field(ge=1)] | None = None
    """Longer answers do not pass."""
    pass_at: Share = 0.6
    """A sample passes when its length is within the limits and so large a share of its key points is mentioned (without them: at this ROUGE-1)."""
    bertscore: BertScore | None = None
    """A local encoder for `bertscore`; without it that metric is not computed."""

    @model_validator(mode="after")
    def _some_length_fits(self) -> Self:
        if self.min_words is not None and self.max_words is not None and self.min_words > self.max_words:
            raise ValueError(f"no summary has at least {self.min_words} and at most {self.max_words} words; lower `min_words` or raise `max_words`")
        return self


class Translation(Strict):
    """The answer is a translation."""

    task: Literal["translation"]
    expected: Column
    """Column that holds a reference translation, or a list of them."""
    tokenizer: Literal["13a", "intl", "char", "zh"] = "13a"
    """BLEU's tokenizer in sacrebleu: `13a` for most languages, `zh` for Chinese, `char` for languages without spaces."""
    pass_at: Share = 0.5
    """A sample passes at this sentence-level chrF."""
    bertscore: BertScore | None = None
    """A local encoder for `bertscore`; without it that metric is not computed."""
    source: Column | None = None
    """Column that holds the text to translate, for `comet`."""
    comet: Comet | None = None
    """A local checkpoint for the metric `comet`; without it that metric is not computed."""

    @model_validator(mode="after")
    def _source_for_comet(self) -> Self:
        if self.comet is not None and self.source is None:
            raise ValueError("`comet` reads the text that was to be translated; name its column as `source`")
        return self


class Chat(Strict):
    """The answer is free: only a judge or a person can say how good it is."""

    task: Literal["chat"]
    expected: Column | None = None
    """Column that holds what a good answer does, or a reference answer; the judge reads it beside the rubric."""
    pass_at: Share = 0.5
    """A sample passes at this rubric score: 0.5 is 3 of 1 to 5."""


class Instructions(Strict):
    """The answer must keep constraints that a program can check."""

    task: Literal["instructions"]
    constraints: Column
    """Column that holds a list of constraints, each `{kind: ..., ...}`; docs/quality.md lists the kinds."""


class DocumentQuestions(Strict):
    """The answer comes out of retrieved passages (RAG): retrieval and generation are measured apart."""

    task: Literal["rag"]
    expected: Column
    """Column that holds the right answer, or a list of equally right ones."""
    contexts: Column
    """Column that holds the passages that the prompt shows: a list of `{id: ..., text: ...}`."""
    relevant_ids: Column
    """Column that holds the ids of the passages that are needed, whether they were retrieved or not."""


class Coding(Strict):
    """The answer is Python code. It runs in a sandbox without network or files, on Python's standard library."""

    task: Literal["coding"]
    hidden_tests: Column
    """Column that holds the tests which the prompt does not show: Python statements that raise if the code is wrong, one text or a list of them."""
    visible_tests: Column | None = None
    """Column that holds the tests which the prompt shows."""
    prefix: Column | None = None
    """Column that holds code to put before the answer, for prompts that a model continues."""
    expected: Column | None = None
    """Column that holds a right solution, shown beside the answers; default: the tests are shown."""
    samples: Annotated[int, Field(ge=1)] = 1
    """So many answers to each question, with seeds one apart, for `pass_at_K`. More than one needs a temperature above 0."""
    k: Annotated[int, Field(ge=1)] = 1
    """K of `pass_at_K`, at most `samples`."""
    test_s: Positive = 5.0
    """A test may take so long."""
    memory_mb: Annotated[int, Field(ge=64)] = 512
    """What the code may take, MiB."""
    allow_weak_sandbox: bool = False
    """Run code even where the machine's files cannot be kept from it. Only for models that you trust as you trust a colleague."""

    @model_validator(mode="after")
    def _enough_samples(self) -> Self:
        if self.k > self.samples:
            raise ValueError(f"pass@{self.k} cannot be estimated from {self.samples} answers; raise `samples` or lower `k`")
        return self


QualityTask = Annotated[
    Classification | Extraction | QuestionAnswering | DomainQuestions | Summarisation | Translation | Chat | Instructions | Coding | DocumentQuestions,
    Field(discriminator="task"),
]

TASKS: tuple[str, ...] = tuple(get_args(kind.model_fields["task"].annotation)[0] for kind in get_args(get_args(QualityTask)[0]))
"""The words that `task` may be."""


class Gate(Strict):
    """One of several metrics that a variant must keep. In YAML a plain string is the metric's name."""

    metric: str
    """A metric of the task."""
    margin: Margin | None = None
    """How much worse than base it may be; default: `quality.margin`."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"metric": value} if isinstance(value, str) else value


class Judge(Strict):
    """A model that judges answers: any server that speaks the OpenAI API, a vLLM of yours included. It is asked after all load has ended."""

    url: Annotated[str, Field(pattern=URL)]
    """Up to, not including, `/v1`; `unix:///run/vllm.sock` for a server on a Unix socket."""
    model: str
    """The name it serves the model by."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key."""
    rubric: str | None = None
    """What a good answer is, in your words; default: helpful, right, complete, and no longer than needed."""
    pairwise: bool = True
    """Chat: put each answer beside base's too, in both orders."""
    structured_output: bool = True
    """Ask for the verdict by JSON Schema (`response_format`), as vLLM and OpenAI offer it; off for servers that refuse it."""
    max_tokens: Annotated[int, Field(ge=16)] = 512
    """A verdict is cut off after so many."""
    retries: Annotated[int, Field(ge=0)] = 2
    """A verdict that cannot be read is asked for again so often, each time with another seed."""
    concurrency: Annotated[int, Field(ge=1)] = 8
    """Verdicts asked for at a time."""
    timeout_s: Positive = 120.0
    """A verdict that takes longer has failed."""
    usd_per_million_prompt_tokens: NotNegative | None = None
    """The judge's price; without both there is no cost of judging."""
    usd_per_million_output_tokens: NotNegative | None = None
    """As above, for what it answers."""


class Quality(Strict):
    """The spot-check: held-out samples, the same for every variant, decided against `base` by a margin fixed beforehand."""

    data: Data
    """Held-out rows."""
    task: QualityTask
    """What an answer is."""
    metric: str | None = None
    """The metric that decides; default: the first of the task's in docs/quality.md."""
    metrics: Annotated[tuple[Gate, ...], Field(min_length=1)] | None = None
    """Several metrics that decide together, instead of `metric`: each must be kept, with Holm's correction over them."""
    margin: Margin
    """How much worse than base the metric may be."""
    minimum: Share | None = None
    """A variant whose metric (the first of `metrics`) lies below this fails, whatever base does."""
    slices: tuple[Column, ...] = ()
    """Columns that cut the samples into slices; each value of each column is reported with its own difference from base."""
    groups: Column | None = None
    """Column that says which samples belong together (turns of a conversation, fields of a document); intervals then count groups, not samples."""
    must_refuse: Column | None = None
    """Column that is true for samples that a model has to refuse. They need no expected answer, and are right when refused."""
    judge: Judge | None = None
    """Who judges what no program can; without one those metrics are not run."""
    max_tokens: Annotated[int, Field(ge=1)] = 256
    """An answer is cut off after so many."""
    concurrency: Annotated[int, Field(ge=1)] = 16
    """Questions asked at a time; nothing is timed here."""
    under_load: Annotated[int, Field(ge=1)] | None = None
    """So many prompts of the load are asked again, one at a time with the server idle, and both answers are scored: a server that answers worse when it
    is busy is caught. The rows of `load.data` then need the task's columns, and a stage must ask with `max_tokens` as this block does."""
    train_data: Data | None = None
    """What the fine-tune was trained on, to find held-out samples that it has seen."""
    train_column: str | None = None
    """Column of `train_data` with the text to compare; default: the rendered prompt."""
    reference_prompts: Annotated[int, Field(ge=0)] = 4
    """Before load, so many served answers are scored by transformers with the same weights; 0 skips the check."""
    fidelity_prompts: Annotated[int, Field(ge=0)] = 64
    """Where adapter and merged are both served: so many held-out prompts are answered greedily with log-probabilities by both; 0 skips it."""

"""What perfbench writes down: one struct for each kind of row or file in a run folder.

Times are nanoseconds of CLOCK_MONOTONIC on the machine that took them. Not measured is None, never 0.
The structs are the contract between rooms: `load` makes `Record`, `sample` makes `Sample`, `quality` makes
`QualityRecord`, `run` makes `Manifest` and the journal's entries, `analyse` makes `Summary`; `results` stores them all.
A field may be added; to rename or remove one, raise SCHEMA_VERSION.
"""

from __future__ import annotations

from perfbench.records.answers import (
    QualityRecord,
    ReferenceCheck,
)
from perfbench.records.foreign import ForeignMetric, ForeignResult
from perfbench.records.plan import (
    Autoscaled,
    BreakEven,
    BreakEvenPoint,
    Demand,
    Deployment,
    Plan,
    Simulated,
    VariantPlan,
)
from perfbench.records.request import (
    ErrorKind,
    Record,
    RequestStatus,
    Sample,
    Stamp,
    TrialOutcome,
)
from perfbench.records.run import (
    SCHEMA_VERSION,
    JournalEntry,
    Manifest,
    ModelInfo,
    ServerInfo,
    TraceUse,
    TrialPlan,
)
from perfbench.records.shape import Linear, ModelShape
from perfbench.records.summary import (
    AdapterSummary,
    Audit,
    CapacitySummary,
    Comparison,
    CostSummary,
    Equivalence,
    Estimate,
    GateSummary,
    JudgeSummary,
    LatencyMetric,
    MemorySummary,
    MetricSummary,
    QualitySummary,
    QualityVerdict,
    Rates,
    Recommendation,
    RequestCounts,
    RooflineShare,
    SliceSummary,
    StageSummary,
    Summary,
    TrialSummary,
    VariantSummary,
)
from perfbench.records.two_runs import (
    GateCheck,
    GateResult,
    GateVerdict,
    RunComparison,
    RunDifference,
    Unlike,
)

__all__ = [
    "SCHEMA_VERSION",
    "AdapterSummary",
    "Audit",
    "Autoscaled",
    "BreakEven",
    "BreakEvenPoint",
    "CapacitySummary",
    "Comparison",
    "CostSummary",
    "Demand",
    "Deployment",
    "Equivalence",
    "ErrorKind",
    "Estimate",
    "ForeignMetric",
    "ForeignResult",
    "GateCheck",
    "GateResult",
    "GateSummary",
    "GateVerdict",
    "JournalEntry",
    "JudgeSummary",
    "LatencyMetric",
    "Linear",
    "Manifest",
    "MemorySummary",
    "MetricSummary",
    "ModelInfo",
    "ModelShape",
    "Plan",
    "QualityRecord",
    "QualitySummary",
    "QualityVerdict",
    "Rates",
    "Recommendation",
    "Record",
    "ReferenceCheck",
    "RequestCounts",
    "RequestStatus",
    "RooflineShare",
    "RunComparison",
    "RunDifference",
    "Sample",
    "ServerInfo",
    "Simulated",
    "SliceSummary",
    "StageSummary",
    "Stamp",
    "Summary",
    "TraceUse",
    "TrialOutcome",
    "TrialPlan",
    "TrialSummary",
    "Unlike",
    "VariantPlan",
    "VariantSummary",
]

"""A scenario: one YAML file, read, checked and frozen. Bad input ends here, with nothing started."""

from perfbench.scenario.model import Scenario, Stage
from perfbench.scenario.read import json_schema, load_scenario

__all__ = ["Scenario", "Stage", "json_schema", "load_scenario"]

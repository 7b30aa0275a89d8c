"""The scenario behind `perfbench load`: one endpoint, one stage, made prompts of equal length, answers of equal length. Nothing is read from a file."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from perfbench.errors import InputError
from perfbench.scenario import Scenario

_OPTIONS = {
    "url": "--url", "model": "--model", "arrival": "--arrival", "concurrency": "--concurrency", "rate_per_s": "--rate", "duration_s": "--duration",
    "input_tokens": "--input-tokens", "fixed": "--output-tokens", "api_key_env": "--api-key-env", "tokenizer": "--tokenizer",
}
"""The option that a scenario's key comes from."""


def quick_scenario(
    *, url: str, model: str, arrival: str, concurrency: int | None, rate_per_s: float | None, duration_s: float, input_tokens: int, output_tokens: int,
    tokenizer: str | None, api_key_env: str | None,
) -> Scenario:  # fmt: skip
    """Raises InputError that names the option and what was expected of it."""
    if arrival not in ("closed", "poisson"):
        raise InputError(f"--arrival: expected closed or poisson, got {arrival}; a scenario file has every other arrival", hint="perfbench init writes one")
    needed, other = ("--concurrency", "--rate") if arrival == "closed" else ("--rate", "--concurrency")
    given = {"--concurrency": concurrency, "--rate": rate_per_s}
    if given[needed] is None or given[other] is not None:
        raise InputError(f"--arrival {arrival}: expected {needed} and no {other}")
    stage: dict[str, Any] = {"name": arrival, "arrival": arrival, "duration_s": duration_s, "output": {"fixed": output_tokens}}
    stage |= {"concurrency": concurrency} if arrival == "closed" else {"rate_per_s": rate_per_s}
    synthetic: dict[str, Any] = {"input_tokens": {"fixed": input_tokens}}
    if tokenizer is not None:
        synthetic["tokenizer"] = tokenizer
    wanted = {
        "name": "load",
        "endpoints": {"endpoint": {"url": url, "model": model, "api_key_env": api_key_env}},
        "load": {"synthetic": synthetic, "stages": [stage]},
    }
    try:
        return Scenario.model_validate_json(json.dumps(wanted))
    except ValidationError as error:
        raise _input_error(error) from None


def _input_error(error: ValidationError) -> InputError:
    first = error.errors()[0]
    options = [_OPTIONS[str(key)] for key in first["loc"] if str(key) in _OPTIONS]
    what = first["msg"].removeprefix("Value error, ")
    return InputError(f"{options[-1]}: {what}; got {first['input']!r}" if options else what)

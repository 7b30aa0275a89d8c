"""The scenario behind `perfbench load`: one endpoint, one stage, made prompts of equal length, answers of equal length. Nothing is read from a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from perfbench.errors import EndpointError, InputError
from perfbench.scenario import Scenario
from perfbench.scenario.combinations import ARRIVAL_KEYS
from perfbench.serve.endpoint import answers_of_fixed_length

ARRIVALS = ("closed", "constant", "poisson", "gamma")
"""Those that a few numbers say; the others are described in a scenario."""
_NAME = "endpoint"
_OPTIONS = {
    "url": "--url", "model": "--model", "arrival": "--arrival", "concurrency": "--concurrency", "rate_per_s": "--rate", "burstiness": "--burstiness",
    "requests": "--requests", "duration_s": "--duration", "warmup_s": "--warmup", "input_tokens": "--input-tokens", "fixed": "--output-tokens",
    "api": "--api", "seed": "--seed", "api_key_env": "--api-key-env", "tokenizer": "--tokenizer",
}
"""The option that a scenario's key comes from."""


@dataclass(frozen=True)
class QuickLoad:
    """What the options of `perfbench load` say; None where one was left out."""

    url: str
    model: str
    arrival: str
    concurrency: int | None
    rate_per_s: float | None
    burstiness: float | None
    requests: int | None
    duration_s: float | None
    warmup_s: float
    input_tokens: int
    output_tokens: int
    api: str
    tokenizer: str | None
    api_key_env: str | None
    seed: int


def quick_scenario(wanted: QuickLoad) -> Scenario:
    """The scenario, after the endpoint has been asked whether it gives answers of a fixed length; where it refuses, they end when the model wants to.

    Raises InputError that names the option and what was expected of it, EndpointError for an endpoint that cannot be driven.
    """
    _check_options(wanted)
    scenario = _scenario(wanted, {"fixed": wanted.output_tokens})
    try:
        fixed = answers_of_fixed_length(_NAME, scenario.endpoints[_NAME], scenario.prompt.api)
    except EndpointError as error:
        raise EndpointError(_in_options(error.message), hint=error.hint) from None
    return scenario if fixed else _scenario(wanted, {"max_tokens": wanted.output_tokens})


def _check_options(wanted: QuickLoad) -> None:
    if wanted.arrival not in ARRIVALS:
        raise InputError(
            f"--arrival: expected one of {', '.join(ARRIVALS)}, got {wanted.arrival}; a scenario file has every other arrival", hint="perfbench init writes one"
        )
    needed, _ = ARRIVAL_KEYS[wanted.arrival]
    for key in ("concurrency", "rate_per_s", "burstiness"):
        given = getattr(wanted, key) is not None
        if given != (key in needed):
            expected = " and ".join(_OPTIONS[name] for name in needed)
            raise InputError(f"--arrival {wanted.arrival}: expected {expected}{f' and no {_OPTIONS[key]}' if given else ''}")
    if wanted.requests is not None and wanted.duration_s is not None:
        raise InputError("--requests and --duration: expected one of them; both say when the measured window ends")
    if wanted.api not in ("chat", "completions"):
        raise InputError(f"--api: expected chat or completions, got {wanted.api}")


def _scenario(wanted: QuickLoad, output: dict[str, int]) -> Scenario:
    keys = ("concurrency", "rate_per_s", "burstiness", "requests", "duration_s", "warmup_s")
    stage: dict[str, Any] = {"name": wanted.arrival, "arrival": wanted.arrival, "output": output}
    stage |= {key: getattr(wanted, key) for key in keys if getattr(wanted, key) is not None}
    synthetic: dict[str, Any] = {"input_tokens": {"fixed": wanted.input_tokens}}
    if wanted.tokenizer is not None:
        synthetic["tokenizer"] = wanted.tokenizer
    said = {
        "name": "load",
        "endpoints": {_NAME: {"url": wanted.url, "model": wanted.model, "api_key_env": wanted.api_key_env}},
        "prompt": {"api": wanted.api},
        "load": {"synthetic": synthetic, "seed": wanted.seed, "stages": [stage]},
    }
    try:
        return Scenario.model_validate_json(json.dumps(said))
    except ValidationError as error:
        raise _input_error(error) from None


def _input_error(error: ValidationError) -> InputError:
    first = error.errors()[0]
    options = [_OPTIONS[str(key)] for key in first["loc"] if str(key) in _OPTIONS]
    what = first["msg"].removeprefix("Value error, ")
    return InputError(f"{options[0]}: {what}; got {first['input']!r}" if options else what)


def _in_options(message: str) -> str:
    """A sentence about the endpoint in the words of the command line."""
    for key in ("url", "model", "api_key_env"):
        message = message.replace(f"`endpoints.{_NAME}.{key}`", _OPTIONS[key])
    return message.replace(f"endpoint `{_NAME}`", "the server")

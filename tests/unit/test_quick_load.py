"""The options of `perfbench load`: what cannot be is refused by the option's name before the server is asked anything."""

from __future__ import annotations

from typing import Any

import pytest

from perfbench.errors import InputError
from perfbench.quick_load import QuickLoad, quick_scenario

LEFT_OUT: dict[str, Any] = {
    "url": "http://127.0.0.1:9", "model": "m", "arrival": "closed", "concurrency": None, "rate_per_s": None, "burstiness": None, "requests": None,
    "duration_s": None, "warmup_s": 5.0, "input_tokens": 128, "output_tokens": 64, "api": "chat", "tokenizer": None, "api_key_env": None, "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arrival": "sine", "rate_per_s": 1.0}, "--arrival: expected one of closed, constant, poisson, gamma, got sine"),
        ({}, "--arrival closed: expected --concurrency"),
        ({"arrival": "poisson", "rate_per_s": 1.0, "concurrency": 2}, "--arrival poisson: expected --rate and no --concurrency"),
        ({"arrival": "constant", "rate_per_s": 1.0, "burstiness": 2.0}, "--arrival constant: expected --rate and no --burstiness"),
        ({"arrival": "gamma", "rate_per_s": 1.0}, "--arrival gamma: expected --rate and --burstiness"),
        ({"arrival": "gamma", "rate_per_s": 1.0, "burstiness": -1.0}, "--burstiness: Input should be greater than 0; got -1.0"),
        ({"arrival": "poisson", "rate_per_s": float("nan")}, "--rate: "),
        ({"concurrency": 0}, "--concurrency: Input should be greater than or equal to 1; got 0"),
        ({"concurrency": 1, "requests": 0}, "--requests: "),
        ({"concurrency": 1, "requests": 5, "duration_s": 3.0}, "--requests and --duration: expected one of them; both say when the measured window ends"),
        ({"concurrency": 1, "duration_s": 0.0}, "--duration: "),
        ({"concurrency": 1, "warmup_s": -1.0}, "--warmup: "),
        ({"concurrency": 1, "output_tokens": 0}, "--output-tokens: "),
        ({"concurrency": 1, "input_tokens": 0}, "--input-tokens: "),
        ({"concurrency": 1, "api": "responses"}, "--api: expected chat or completions, got responses"),
        ({"concurrency": 1, "url": "ftp://host"}, "--url: "),
    ],
)
def test_bad_options_are_named_in_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        quick_scenario(QuickLoad(**(LEFT_OUT | options)))
    assert caught.value.message.startswith(said)
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2

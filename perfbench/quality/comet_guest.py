"""COMET's scores of some translations: started by `comet` in unbabel-comet's own Python, where perfbench is not installed. JSON on stdin, JSON on stdout.

The checkpoint is loaded by the package's own function. Two things are laid over it: the encoder's settings and tokenizer come from a given folder instead
of a name on the Hub, and a checkpoint that lacks some of the model's weights, which the package fills at random and says nothing, is an error.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import sys
from typing import Any

del sys.path[0]  # this folder: its modules are not for others


def main() -> None:
    """Score what stands on stdin."""
    stdout = os.dup(1)
    os.dup2(2, 1)  # libraries that print do so on stderr
    given = json.load(sys.stdin)
    import comet
    from comet.models import str2model

    held: set[str] = set()
    model_class = str2model["regression_metric"]
    model_class.on_load_checkpoint = lambda self, checkpoint: held.update(checkpoint["state_dict"])
    model_class.load_from_checkpoint = functools.partial(model_class.load_from_checkpoint, pretrained_model=given["encoder"])
    model: Any = comet.load_from_checkpoint(given["checkpoint"], local_files_only=True)
    lacking = sorted(name for name, _ in model.named_parameters() if name not in held)
    if lacking:
        raise SystemExit(f"{given['checkpoint']} lacks the weights {lacking[0]}, and {len(lacking) - 1} more")
    told = model.predict(given["samples"], batch_size=16, gpus=0, num_workers=0, progress_bar=False, accelerator="cpu")
    found = {"scores": [float(score) for score in told.scores], "version": importlib.metadata.version("unbabel-comet")}
    with open(stdout, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()

"""perfbench: a deployment performance profiler for fine-tuned language models."""

__version__ = "0.1.0"

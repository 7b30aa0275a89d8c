"""The task of capitals.yaml as a file of Lighteval: `perfbench benchmark RUN --tool lighteval --task scenarios/quality/data/capitals.py`.

Data lies in a folder beside it, one file for each split, and is found offline. Lighteval reads no single file.
"""

from pathlib import Path

from lighteval.metrics.metrics import Metrics
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc


def question(row, task_name=None):
    """One row as a prompt and its right answer."""
    return Doc(task_name=task_name, query=f"What is the capital of {row['country']}? Answer with its name alone.", choices=[row["capital"]], gold_index=0)


TASKS_TABLE = [
    LightevalTaskConfig(
        name="capitals",
        prompt_function=question,
        hf_repo=str(Path(__file__).parent / "capitals"),
        hf_subset="default",
        hf_avail_splits=["test"],
        evaluation_splits=["test"],
        metrics=[Metrics.exact_match],
        generation_size=16,
        stop_sequence=["\n"],
    )
]

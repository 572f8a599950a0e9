"""Share of the step's own speed that training reaches."""

from functools import partial

from benchmarks.setting import Rows, Setting, Step, Training
from benchmarks.timing import compared, milliseconds


def run(setting: Setting, backbone: str) -> Rows:
    """Measure without augmentation and with it."""
    rows = []
    for recipe in ("none", "datta"):
        # The plateau scheduler wants a validation.
        job = setting.job(backbone, f"augment={recipe}", "scheduler=none")
        step, training = Step(job), Training(job)
        sides = {
            "step alone, ms": partial(milliseconds, step, setting.seconds),
            "training, ms a step": partial(training.milliseconds, setting.seconds),
        }
        about = {"augment": recipe, "batch": job.batch_size, "pixels": job.backbone["input_size"]}
        rows.append(about | compared(sides) | {"images on the device": training.loaders.resident})
    return rows

"""One job of a sweep: the run, whose failure is an outcome and stops nothing else."""

import gc
import logging
import time
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from skinlesion.cli import quick_imports
from skinlesion.errors import SkinlesionError, disk_problem
from skinlesion.runs.directory import RunLocked, identity
from skinlesion.runs.outcome import Failures, Outcome

log = logging.getLogger(__name__)


def run_job(config: DictConfig) -> Outcome:
    """Train what the config says, and write what became of it into the sweep's folder.

    Every exception but Ctrl-C ends in an outcome: of the error only its text is kept, because the
    exception itself would hold the network and its memory on the GPU while the next job trains.
    """
    hydra = HydraConfig.get()
    started = time.time()
    key = identity(config)
    failures = Failures(Path(config.machine.runs))
    status, where, why = "failed", "", ""
    try:
        with quick_imports():
            from skinlesion.evaluation.command import summarise
            from skinlesion.training.run import run

        directory = run(config)
        status = "skipped"
        if directory.done.stat().st_mtime >= started:
            status = "done"
            summarise(directory)
        where = str(directory.path)
        failures.forget(key)
    except RunLocked as error:
        status, why = "elsewhere", str(error)
    except SkinlesionError as error:
        why = str(error)
    except Exception as error:
        if (why := disk_problem(error) or "") == "":
            log.error("%s", traceback.format_exc())  # as text: a record would hold the exception
            why = f"{type(error).__name__}: {error}"
    if why:
        log.error("error: %s", why)
    if status == "failed":
        failures.record(key, why)
    import torch

    gc.collect()  # which gives back what this job held, on the GPU too
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    outcome = Outcome([*hydra.overrides.task], status, where, why, round(time.time() - started, 1))
    outcome.write(Path(hydra.sweep.dir) / "outcomes" / f"{hydra.job.num}.json")
    return outcome

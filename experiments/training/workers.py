"""Several processes on one table: on this machine, or as jobs of SLURM."""

import pathlib

from experiments.training import engine
from sam_jax import commands, errors


def run(job: engine.Job, workers: int, cluster: str) -> int:
    """Starts workers that share the runs of a table, waits, and writes the table.

    Args:
        job: what is to be done.
        workers: how many.
        cluster: ``"local"`` or ``"slurm"``.

    Returns:
        The exit code; 1 if a worker has died, whose run the same command continues.
    """
    try:
        import submitit
    except ImportError as error:
        raise errors.UserError(
            'workers need submitit: pip install submitit, or "sam_jax[slurm]"'
        ) from error
    executor = submitit.AutoExecutor(job.runs / "workers", cluster=cluster)
    executor.update_parameters(
        name=f"sam_jax_{pathlib.Path(job.name).stem}", timeout_min=24 * 60
    )
    started = [executor.submit(engine.run, job) for _ in range(workers)]
    code = 0
    for worker in started:
        try:
            code = max(code, worker.result())
        except Exception as error:  # it died, or something in it failed
            said = errors.one_line(error, 200)
            code = commands.say(
                f"worker {worker.job_id} died ({said}; {worker.paths.stderr}): "
                "finished runs are kept, and the same command continues its own",
                1,
            )
    engine.write(job)
    return code

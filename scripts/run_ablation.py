"""Runs the ablation: `python scripts/run_ablation.py --data DATA --start MODEL --peer PEER --out runs/ablation`."""

import argparse
import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from ablation.experiments import EXPERIMENTS, VARIANTS, execute, finished_results, plan, prepare_banks, run_config
from ablation.report import write_ablation

from crossearth_hf.errors import InputError
from crossearth_hf.progress import progress_bar


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Trains and scores variants x seeds; finished runs are not repeated.")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds dubai/, harvey_uav/, ...")
    parser.add_argument("--start", type=Path, required=True, help="model that every variant starts from")
    parser.add_argument("--peer", type=Path, required=True, help="model that the convolutional peer starts from")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, the table and the figure")
    parser.add_argument("--experiments", nargs="+", default=list(EXPERIMENTS), metavar="NAME")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max_steps", type=int, help="optimizer steps of every run; by default the experiment's own")
    parser.add_argument("--workers", type=int, default=1, help="runs side by side; the CPU's threads are shared out")
    parser.add_argument("--table", action="store_true", help="run nothing; write the table of what is finished")
    return parser.parse_args()


def main() -> int:
    """Runs what is missing, then writes the table of all that is there."""
    options = parse()
    try:
        failed = [] if options.table else run_missing(options)
        for sentence in failed:
            print(f"error: {sentence}", file=sys.stderr)
        written = write_ablation(finished_results(options.out), options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, BrokenProcessPool):  # Ctrl-C reaches the workers too, and may be seen there first
        print(
            "stopped, by Ctrl-C or because a worker was ended, as too little memory does; finished runs are kept, the "
            "same command goes on",
            file=sys.stderr,
        )
        return 130
    print(f"wrote {', '.join(map(str, written))}")
    return 2 if failed else 0


def run_missing(options: argparse.Namespace) -> list[str]:
    """Runs every cell that is not finished; what is wrong with those that failed, when all others are done."""
    if options.workers < 1:
        raise InputError(f"--workers {options.workers} cannot run anything; give 1 or more")
    runs = plan(options.experiments, options.variants, options.seeds)
    prepare_banks({run.experiment.name for run in runs}, options.data, options.out)
    places = {"data": options.data, "output": options.out, "start": options.start, "peer": options.peer}
    configs = [run_config(run, max_steps=options.max_steps, **places) for run in runs]
    threads = max(1, torch.get_num_threads() // options.workers)
    failed = []
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn"), start_worker, (threads,)) as pool:
        jobs = {pool.submit(execute, run, config, options.data): run for run, config in zip(runs, configs, strict=True)}
        for job in progress_bar(as_completed(jobs), desc="ablation", unit="run", total=len(jobs)):
            try:
                job.result()
            except (InputError, FloatingPointError) as error:
                failed.append(f"{jobs[job].folder(options.out)}: {error}")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return failed


def start_worker(threads: int) -> None:
    """Ends with Ctrl-C at once, as after any kill the next run goes on, instead of turning to the next cell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())

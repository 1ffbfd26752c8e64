"""Runs the ablation: `python scripts/ablation.py --data DATA --start MODEL --peer PEER --out runs/ablation`."""

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from crossearth_hf.ablation_report import write_ablation
from crossearth_hf.errors import InputError
from crossearth_hf.experiments import (
    EXPERIMENTS,
    VARIANTS,
    execute,
    finished_results,
    plan,
    prepare_banks,
    run_config,
)


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
    parser.add_argument("--steps", type=int, help="optimiser steps of every run; by default the experiment's own")
    parser.add_argument("--workers", type=int, default=1, help="runs side by side; the CPU's threads are shared out")
    parser.add_argument("--table", action="store_true", help="run nothing; write the table of what is finished")
    return parser.parse_args()


def main() -> int:
    """Runs what is missing, then writes the table of all that is there."""
    options = parse()
    try:
        runs = [] if options.table else plan(options.experiments, options.variants, options.seeds)
        prepare_banks({run.experiment.name for run in runs}, options.data, options.out)
        configs = [
            run_config(run, data=options.data, output=options.out, start=options.start, peer=options.peer,
                       steps=options.steps)
            for run in runs
        ]  # fmt: skip
        threads = max(1, torch.get_num_threads() // options.workers)
        with ProcessPoolExecutor(
            options.workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (threads,)
        ) as pool:
            jobs = [pool.submit(execute, run, config, options.data) for run, config in zip(runs, configs, strict=True)]
            for job in tqdm(jobs, desc="ablation", unit="run", disable=not jobs):
                job.result()
        written = write_ablation(finished_results(options.out), options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {', '.join(map(str, written))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

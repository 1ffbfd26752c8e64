"""Runs the ablation: `python scripts/run_ablation.py --data DATA --start MODEL --peer PEER --out runs/ablation`.

docs/ablation.md has the protocol and the lines that make the starts.
"""

import argparse
import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from ablation.cells import (
    Places,
    cell_config,
    execute,
    finished_results,
    prepare_bank,
    weigh_mim,
)
from ablation.protocol import PEER, REGIMES, ROWS, plan
from ablation.report import write_ablation

from crossearth_hf.errors import InputError
from crossearth_hf.progress import progress_bar

STEPS = 1500


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Trains and scores rows x seeds; finished runs are not repeated."
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds dubai/, manifest.json, ..."
    )
    parser.add_argument(
        "--start",
        type=Path,
        nargs="+",
        required=True,
        help="one or two models that rows start from",
    )
    parser.add_argument(
        "--peer", type=Path, required=True, help="model that the convolutional peer starts from"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the runs, the table and the figure"
    )
    parser.add_argument("--regimes", nargs="+", default=list(REGIMES), metavar="NAME")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: those of the protocol")
    parser.add_argument(
        "--max_steps", type=int, default=STEPS, help=f"optimizer steps of a run (default: {STEPS})"
    )
    parser.add_argument(
        "--peer_steps",
        type=int,
        help="those of the peer, for equal training time; default: the same",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="runs side by side; the CPU's threads are shared out"
    )
    parser.add_argument(
        "--table", action="store_true", help="run nothing; write the table of what is finished"
    )
    return parser.parse_args()


def main() -> int:
    """Runs what is missing, then writes the table of all that is there."""
    options = parse()
    try:
        failed = [] if options.table else run_missing(options)
        for sentence in failed:
            print(f"error: {sentence}", file=sys.stderr)
        results = finished_results(options.out)
        if not results:
            raise InputError(f"{options.out} holds no finished run; leave --table out to make them")
        written = write_ablation(results, options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (
        KeyboardInterrupt,
        BrokenProcessPool,
    ):  # Ctrl-C reaches the workers too, and may be seen there first
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
    if len(options.start) > 2:
        raise InputError(f"--start names {len(options.start)} models; give one or two")
    places = Places(options.data, options.out, tuple(options.start), options.peer)
    cells = plan(options.regimes, options.rows, options.seeds)
    prepare_bank(places)
    masked = {cell.regime for cell in cells if "mim_block_size" in cell.settings()}
    weights = {regime: weigh_mim(places, regime) for regime in masked}
    jobs_of = {}
    for cell in cells:
        steps = options.max_steps
        if cell.row == PEER and options.peer_steps is not None:
            steps = options.peer_steps
        jobs_of[cell] = cell_config(cell, places, steps, weights.get(cell.regime, 1.0))
    threads = max(1, torch.get_num_threads() // options.workers)
    failed = []
    with ProcessPoolExecutor(
        options.workers, multiprocessing.get_context("spawn"), start_worker, (threads,)
    ) as pool:
        jobs = {
            pool.submit(execute, cell, config, options.data): cell
            for cell, config in jobs_of.items()
        }
        for job in progress_bar(as_completed(jobs), desc="ablation", unit="run", total=len(jobs)):
            try:
                job.result()
            except (InputError, FloatingPointError) as error:
                failed.append(f"{options.out / jobs[job].name}: {error}")
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

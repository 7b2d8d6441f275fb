"""Run the measurements and print one table."""

import argparse
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from bench import network, sizes, texture, training, transport
from bench.measure import Row

SECTIONS: dict[str, Callable[[int], Iterator[Row]]] = {
    "network": network.rows,
    "texture": texture.rows,
    "training": training.rows,
    "transport": transport.rows,
    "sizes": sizes.rows,
}


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--rounds", type=int, default=11, help="measurements of each candidate (default 11)")
    options = parser.parse_args()
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f"no section {sorted(unknown)}; there are {list(SECTIONS)}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    print(
        f"{device}; torch {torch.__version__}, {torch.get_num_threads()} threads; {options.rounds} rounds, interleaved"
    )
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(
        f"median [quartiles]; a ratio is taken within each round; load before: {load} (above 0.5, do not believe it)\n"
    )
    print("| what | found | target | met |\n|---|---|---|---|", flush=True)
    for section in options.sections:
        for row in SECTIONS[section](options.rounds):
            met = {None: "", True: "yes", False: "NO"}[row.met]
            print(f"| {row.what} | {row.found} | {row.wanted} | {met} |", flush=True)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} × {os.cpu_count()}"


main()

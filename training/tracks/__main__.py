"""One command for the whole chain: ``python -m training.tracks STEP``.

Steps: ``generate`` (events), ``train`` (three networks and the thresholds), ``export`` (a model repository), ``evaluate``, ``sample``
(the events that the course ships), and ``all``, which runs them in this order. Every step goes on where it was stopped.

``python -m training.tracks all --trial`` tries the whole chain in minutes. Nothing that the course ships is touched unless
``--models`` and ``--data`` say so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any

STEPS = ("generate", "train", "export", "evaluate", "sample")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    from . import settings

    parser = argparse.ArgumentParser(prog="python -m training.tracks", description=__doc__.split("\n\n")[1])
    parser.add_argument("step", choices=(*STEPS, "all"))
    parser.add_argument("--trial", action="store_true", help="few events and few passes, to try the chain and not to find tracks")
    parser.add_argument("--generator", choices=("acts", "helix"), default="acts", help="acts (Pythia 8 and ACTS), or helix (NumPy alone)")
    parser.add_argument("--output", type=Path, default=settings.WORK, help=f"working folder, by default {settings.WORK}")
    parser.add_argument("--models", type=Path, help="model repository to write; default OUTPUT/models")
    parser.add_argument("--data", type=Path, help="folder for the shipped events; default OUTPUT/data")
    parser.add_argument("--reference", type=Path, help="what PyTorch makes of a shipped event, for tests; default OUTPUT/reference.npz")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the training")
    parser.add_argument("--pause-file", default=settings.PAUSE_FILE, help="while this file exists, wait")
    options = parser.parse_args(arguments)
    options.models = options.models or options.output / "models"
    options.data = options.data or options.output / "data"
    options.reference = options.reference or options.output / "reference.npz"
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run one step or all of them."""
    options = parse(arguments)
    # Before anything imports PyTorch: threads that wait for each other stall on a busy machine.
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    from . import settings

    settings.PAUSE_FILE = options.pause_file
    for step in STEPS if options.step == "all" else (options.step,):
        globals()[f"_{step}"](options)


def _samples(options: argparse.Namespace) -> dict[str, Any]:
    from . import settings

    return {sample.name: sample for sample in (settings.TRIAL_SAMPLES if options.trial else settings.SAMPLES)}


def _generate(options: argparse.Namespace) -> None:
    if options.generator == "acts":
        from .simulate import simulate
    else:
        from .helix import simulate
    for name, sample in _samples(options).items():
        simulate(sample, options.output / "events" / name)


def _events(options: argparse.Namespace, *names: str) -> list[Any]:
    from .events import load_sample

    return [event for name in names for event in load_sample(options.output / "events" / name)]


def _train(options: argparse.Namespace) -> None:
    import torch

    from . import choose, settings, stages

    torch.set_num_threads(options.threads)
    schedules = settings.TRIAL_SCHEDULES if options.trial else settings.SCHEDULES
    folder = options.output / "training"
    plain, crowded = _events(options, "train"), _events(options, "train_pile_up")
    samples = {name: plain[: schedule.plain] + crowded[: schedule.crowded] for name, schedule in schedules.items()}
    validation, crowded_validation = _events(options, "validate"), _events(options, "validate_pile_up")
    embedding = stages.train_embedding(samples["embedding"], schedules["embedding"], folder)
    radius = choose.radius(embedding, validation, crowded_validation)
    edge_filter = stages.train_filter(samples["filter"], embedding, radius, schedules["filter"], folder)
    cuts = stages.Cuts(radius=radius, filter=choose.filter_cut(embedding, edge_filter, radius, validation))
    interaction = stages.train_interaction(samples["interaction"], (embedding, edge_filter), cuts, schedules["interaction"], folder)
    cuts = choose.walk_cuts((embedding, edge_filter, interaction), [validation, crowded_validation], cuts)
    (folder / "cuts.json").write_text(json.dumps(dataclasses.asdict(cuts), indent=1) + "\n")


def _trained(options: argparse.Namespace) -> tuple[Any, Any]:
    """The three networks and the cuts."""
    import torch

    from .networks import Embedding, Filter, InteractionNetwork
    from .stages import Cuts

    folder = options.output / "training"
    networks = {"embedding": Embedding(), "filter": Filter(), "interaction": InteractionNetwork()}
    for name, network in networks.items():
        network.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True)["network"])
        network.eval()
    return tuple(networks.values()), Cuts(**json.loads((folder / "cuts.json").read_text()))


def _export(options: argparse.Namespace) -> None:
    from . import export

    networks, cuts = _trained(options)
    for name, difference in export.export_all(networks, cuts, _events(options, "validate"), options.models).items():
        print(f"{options.models / name}: differs from PyTorch by at most {difference:.1e} on validation events")

    export.write_reference(networks, cuts, _events(options, "ship")[0], options.reference)


def _evaluate(options: argparse.Namespace) -> None:
    import torch

    from .evaluate import evaluate, text

    torch.set_num_threads(options.threads)
    networks, cuts = _trained(options)
    report = {}
    for name in ("test", "test_pile_up"):
        report[name] = evaluate(networks, cuts, _events(options, name))
        print(text(name, report[name]), end="\n\n")
    (options.output / "report.json").write_text(json.dumps(report, indent=1) + "\n")


def _sample(options: argparse.Namespace) -> None:
    from helpers.physics.tracks import SAMPLES

    from .events import save

    for name, pile_up in (("ship", False), ("ship_pile_up", True)):
        path = options.data / SAMPLES[pile_up]
        save(path, _events(options, name))
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

"""One command for the whole chain: ``python -m training.jets STEP TAGGER``.

Steps: ``generate``, ``train``, ``sample`` (the shipped jets), ``export``, ``evaluate``,
and ``all``, which runs them in this order. Every step goes on where it was interrupted.

``python -m training.jets all ak4 --events 2000`` is a trial of the whole chain in a
minute or two, into the working folder; nothing that the course ships is touched unless
``--models`` and ``--data`` say so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path

from .features import TAGGERS, Tagger

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_OUTPUT = REPOSITORY / "work" / "training" / "jets"
EVENTS = {"ak4": 60_000, "ak8": 50_000}
SHIP_EVENTS = {"ak4": 3_000, "ak8": 1_600}
TRIAL_EVENTS = 5_000
"""Up to this many events everything is made small, to try the chain and not to tag jets."""
TRIAL_PASSES = {"ak4": 6_000, "ak8": 1_500}
STEPS = ("generate", "train", "sample", "export", "evaluate")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.jets", description=__doc__.split("\n\n")[1])
    parser.add_argument("step", choices=(*STEPS, "all"))
    parser.add_argument("tagger", choices=tuple(TAGGERS))
    parser.add_argument("--events", type=int, help=f"events to generate; default {EVENTS}")
    parser.add_argument("--passes", type=int, help="jets shown in training; default as in the recipe")
    parser.add_argument("--workers", type=int, help="processes that generate; default one per core")
    parser.add_argument("--emulations", type=int, default=2, help="detector emulations per training event")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the training")
    parser.add_argument("--device", default="cpu", help='"cpu" or "cuda"')
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="working folder")
    parser.add_argument("--models", type=Path, help="model repository; default OUTPUT/models")
    parser.add_argument("--data", type=Path, help="folder of the shipped jets; default OUTPUT/data")
    options = parser.parse_args(arguments)
    options.trial = options.events is not None and options.events <= TRIAL_EVENTS
    options.events = options.events or EVENTS[options.tagger]
    options.models = options.models or options.output / "models"
    options.data = options.data or options.output / "data"
    return options


def _generate(tagger: Tagger, options: argparse.Namespace) -> None:
    from .generate import default_workers, generate

    workers = options.workers or default_workers()
    generate(tagger.key, options.events, options.output, workers, emulations=options.emulations)


def _train(tagger: Tagger, options: argparse.Namespace) -> None:
    from .pictures import loss_curve
    from .train import RECIPES, Trainer

    recipe = RECIPES[tagger.key]
    passes = options.passes or (TRIAL_PASSES[tagger.key] if options.trial else recipe.passes)
    trainer = Trainer(tagger.key, options.output, dataclasses.replace(recipe, passes=passes), options.device, options.threads)
    trainer.run()
    loss_curve(trainer.folder / "log.jsonl", trainer.folder / "loss.png")


def _sample(tagger: Tagger, options: argparse.Namespace) -> None:
    from .generate import default_workers, generate
    from .sample import SHIPPED_JETS, ship

    events = options.events // 4 if options.trial else SHIP_EVENTS[tagger.key]
    jets = events // 2 if options.trial else SHIPPED_JETS[tagger.key]
    generate(tagger.key, events, options.output, options.workers or default_workers(), purpose="ship")
    path = ship(tagger.key, options.output, options.data, jets)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _export(tagger: Tagger, options: argparse.Namespace) -> None:
    from .export import export
    from .sample import read_root
    from .train import load_model

    jets = read_root(options.data / f"jets_{tagger.key}.root")
    model = load_model(tagger.key, options.output)
    for name, difference in export(tagger, model, options.models, jets).items():
        print(f"{options.models / name}: differs from PyTorch by at most {difference:.1e} on shipped jets")


def _evaluate(tagger: Tagger, options: argparse.Namespace) -> None:
    from .evaluate import markdown, report, scores
    from .export import onnx_runner
    from .pictures import roc_curves
    from .sample import read_root

    jets = read_root(options.data / f"jets_{tagger.key}.root")
    probabilities = scores(onnx_runner(options.models / tagger.model / "1" / "model.onnx"), tagger, jets)
    answers = report(tagger, probabilities, jets.label)
    folder = options.output / tagger.key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps([dataclasses.asdict(a) for a in answers], indent=1) + "\n")
    roc_curves(tagger, probabilities, jets.label, folder / "roc.png")
    print(markdown(answers))


def main(arguments: list[str] | None = None) -> None:
    """Run one step or all of them."""
    options = parse(arguments)
    # Before anything imports PyTorch or numba: threads that wait for each other stall on a busy machine.
    for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, str(options.threads))
    tagger = TAGGERS[options.tagger]
    actions = {
        "generate": _generate,
        "train": _train,
        "sample": _sample,
        "export": _export,
        "evaluate": _evaluate,
    }
    for step in STEPS if options.step == "all" else (options.step,):
        actions[step](tagger, options)


if __name__ == "__main__":
    main()

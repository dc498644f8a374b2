"""One command for the whole chain: ``python -m training.taus STEP``.

Steps: ``generate``, ``train``, ``sample`` (the shipped taus), ``export``, ``evaluate``, and ``all``, which runs them in this order. Every
step goes on where it was interrupted.

``python -m training.taus all --events 2000`` is a trial of the whole chain in some minutes, into the working folder; nothing that the
course ships is touched unless ``--models`` and ``--data`` say so.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_OUTPUT = REPOSITORY / "work" / "training" / "taus"
EVENTS = 16_000
SHIP_EVENTS = 4_000
TRIAL_EVENTS = 3_000
"""Up to this many events everything is made small, to try the chain and not to identify taus."""
TRIAL_PASSES = 3_000
STEPS = ("generate", "train", "sample", "export", "evaluate")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.taus", description=__doc__.split("\n\n")[1])
    parser.add_argument("step", choices=(*STEPS, "all"))
    parser.add_argument("--events", type=int, default=EVENTS, help=f"events to generate; default {EVENTS}")
    parser.add_argument("--passes", type=int, help="taus shown in training; default as in the recipe")
    parser.add_argument("--workers", type=int, help="processes that generate; default one per core")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the training")
    parser.add_argument("--device", default="cpu", help='"cpu" or "cuda"')
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="working folder")
    parser.add_argument("--models", type=Path, help="model repository; default OUTPUT/models")
    parser.add_argument("--data", type=Path, help="folder of the shipped taus; default OUTPUT/data")
    options = parser.parse_args(arguments)
    options.trial = options.events <= TRIAL_EVENTS
    options.models = options.models or options.output / "models"
    options.data = options.data or options.output / "data"
    return options


def _workers(options: argparse.Namespace) -> int:
    from training.jets.generate import default_workers

    return options.workers or default_workers()


def _generate(options: argparse.Namespace) -> None:
    from .generate import generate

    generate(options.events, options.output, _workers(options))


def _train(options: argparse.Namespace) -> None:
    from training.jets.pictures import loss_curve

    from .train import Recipe, Trainer

    recipe = Recipe()
    passes = options.passes or (TRIAL_PASSES if options.trial else recipe.passes)
    Trainer(options.output, dataclasses.replace(recipe, passes=passes), options.device, options.threads).run()
    loss_curve(options.output / "log.jsonl", options.output / "loss.png", "taus")


def _sample(options: argparse.Namespace) -> None:
    from .generate import generate
    from .sample import SHIPPED_TAUS, ship

    generate(options.events // 4 if options.trial else SHIP_EVENTS, options.output, _workers(options), purpose="ship")
    path = ship(options.output, options.data, 200 if options.trial else SHIPPED_TAUS)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _export(options: argparse.Namespace) -> None:
    from helpers.physics.taus import SAMPLE, read

    from .export import export
    from .serving import MODEL
    from .train import load_model

    difference = export(load_model(options.output), options.models, read(options.data / SAMPLE))
    print(f"{options.models / MODEL}: differs from PyTorch by at most {difference:.1e} on shipped taus")


def _evaluate(options: argparse.Namespace) -> None:
    from helpers.physics.taus import SAMPLE, read
    from training.jets.export import onnx_runner
    from training.jets.pictures import draw

    from .evaluate import QUESTIONS, markdown, scores, split
    from .features import preprocess
    from .serving import MODEL

    taus = read(options.data / SAMPLE)
    probabilities = scores(onnx_runner(options.models / MODEL / "1" / "model.onnx"), taus, preprocess())
    report = markdown(probabilities, taus)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "report.md").write_text(report)
    draw({question.name: split(probabilities, taus, question) for question in QUESTIONS}, options.output / "roc.png")
    print(report)


def main(arguments: list[str] | None = None) -> None:
    """Run one step or all of them."""
    options = parse(arguments)
    # Before anything imports PyTorch or numba: threads that wait for each other stall on a busy machine.
    for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, str(options.threads))
    actions = {"generate": _generate, "train": _train, "sample": _sample, "export": _export, "evaluate": _evaluate}
    for step in STEPS if options.step == "all" else (options.step,):
        actions[step](options)


if __name__ == "__main__":
    main()

"""The tagger as machine code: a package of `torch.export` and AOTInductor, which PyTorch's successor of TorchScript is.

Runs with the embedded server's Python, whose PyTorch loads the package, and needs a C++ compiler; running the package needs none::

    .server/bin/python -m training.jets.compiled ak4        # writes work/models/particlenet_AK4_AOTI, in a minute or two

The package is for processors of this kind and PyTorch of this version, so it is made where it is used and not kept in git.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch

from .agreement import network_of
from .export import check, eager_runner
from .features import TAGGERS, Tagger
from .serving import WARMUP_LENGTHS, input_names, model_name

REPOSITORY = Path(__file__).resolve().parents[2]
# Instructions that every x86-64 processor since 2013 or so has (AVX2), in place of all those of the machine that compiles.
PORTABLE = {"cpp.march": "x86-64-v3", "cpp.simdlen": 256}
# Where the backend asks the package to look at its inputs, it must not refuse a batch of one, or one vertex.
ONE_IS_FINE = {"aot_inductor.check_lowerbound": False}


def folder_name(tagger: Tagger) -> str:
    """Folder of the compiled model in the repository."""
    return f"{tagger.model}_AOTI"


def config_of(text: str, tagger: Tagger) -> str:
    """The TorchScript model's ``config.pbtxt`` for its compiled sibling: Triton numbers the tensors of a package."""
    text = text.replace(f'name: "{model_name(tagger, True)}"', f'name: "{folder_name(tagger)}"')
    nvidia = '# NVIDIA\'s images, from release 26.03 on, want in place of the next line: platform: "torch_aoti"'
    text = text.replace('platform: "pytorch_libtorch"', f'{nvidia}\nbackend: "pytorch"')
    return re.sub(r'"(?:pf|sv)_\w+__(\d)"', r'"INPUT__\1"', text).replace('"softmax__0"', '"OUTPUT__0"')


def compile_package(network: torch.nn.Module, examples: list[torch.Tensor], path: Path, *, native: bool = False) -> None:
    """Compile a network to ``path``, for any number of jets, candidates and vertices.

    Args:
        network: what to compile.
        examples: inputs, of sizes other than 0 and 1 along the axes that vary.
        path: the file to write.
        native: use all instructions of this machine's processor.
    """
    from torch._inductor import aoti_compile_and_package

    batch, candidates, vertices = (torch.export.Dim(name, min=1, max=4096) for name in ("batch", "candidates", "vertices"))
    dynamic = tuple({0: batch, 2: candidates if place < 3 else vertices} for place in range(len(examples)))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        exported = torch.export.export(network.eval(), tuple(examples), dynamic_shapes=dynamic)
        aoti_compile_and_package(exported, package_path=str(path), inductor_configs=ONE_IS_FINE | ({} if native else PORTABLE))


def warm_up_jet(folder: Path) -> list[np.ndarray]:
    """The real jet that lies beside a model, in the order of the inputs, each of shape (1, rows, length)."""
    lengths = [WARMUP_LENGTHS[0]] * 3 + [WARMUP_LENGTHS[1]] * 3
    files = [folder / "warmup" / name for name in input_names(False)]
    return [np.fromfile(file, "<f4").reshape(1, -1, length) for file, length in zip(files, lengths, strict=True)]


def make(tagger: Tagger, models: Path, target: Path, *, native: bool = False) -> tuple[Path, float]:
    """Write the compiled model of a tagger into a model repository, in place of an earlier one.

    Args:
        tagger: which one.
        models: the repository that has it as TorchScript.
        target: the repository that gets it.
        native: as for :func:`compile_package`.

    Returns:
        Its folder, and the largest difference of a probability from the network.

    Raises:
        ExportMismatch: it does not compute what the network computes; nothing was written then.
    """
    source, folder = models / model_name(tagger, True), target / folder_name(tagger)
    network = network_of(source / "1" / "model.pt", tagger.key)
    jet = warm_up_jet(source)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.pt2"
        # Else the compiler leaves its files below /tmp; that for headers does not look at the first variable.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ["TMPDIR"] = tempfile.tempdir = place
        compile_package(network, [torch.from_numpy(np.repeat(values, 5, axis=0)) for values in jet], path, native=native)
        loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
        compiled = lambda inputs: loader.run([torch.from_numpy(np.ascontiguousarray(values)) for values in inputs])[0].numpy()  # noqa: E731
        largest = 0.0
        for n_jets, candidates, vertices in ((1, 50, 4), (1, 50, 1), (3, 20, 2), (100, 9, 4)):
            cut = [values[:, :, : candidates if place < 3 else vertices] for place, values in enumerate(jet)]
            largest = max(largest, check(eager_runner(network), compiled, [np.repeat(values, n_jets, axis=0) for values in cut]))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.pt", "config.pbtxt"))
        shutil.copyfile(path, folder / "1" / path.name)
    (folder / "config.pbtxt").write_text(config_of((source / "config.pbtxt").read_text(), tagger))
    return folder, largest


def main() -> None:
    """Compile, compare with the network, and say where it is."""
    parser = argparse.ArgumentParser(prog=".server/bin/python -m training.jets.compiled")
    parser.add_argument("tagger", choices=tuple(TAGGERS))
    parser.add_argument("--models", type=Path, default=REPOSITORY / "work" / "models", help="repository that gets it; default work/models")
    parser.add_argument("--native", action="store_true", help="with all instructions of this processor: other machines may refuse it")
    options = parser.parse_args()
    if shutil.which("g++") is None:
        parser.exit(1, "There is no C++ compiler here. Compiling needs one, serving does not. Type: sudo apt-get install g++\n")
    torch.set_num_threads(1)
    folder, largest = make(TAGGERS[options.tagger], REPOSITORY / "models", options.models, native=options.native)
    size_mb = (folder / "1" / "model.pt2").stat().st_size / 1e6
    print(f"{folder}: {size_mb:.1f} MB, differs from the network by at most {largest:.1e}")


if __name__ == "__main__":
    main()

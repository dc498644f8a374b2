"""The input features of ParticleNet: names, order, transforms, labels.

This is the only place where they are written down. The generator fills them, the
training transforms them, and the export writes them beside each served model as
``preprocess.json``, in the layout that CMS uses, so that a client reads the same
table. The module imports the standard library only.

Typical use::

    table = AK8.preprocess()          # what the client reads
    names = [f.name for f in AK8.candidates]
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

NO_BOUND = 1e32
"""CMS's way to write "no clipping" in a preprocessing table."""


@dataclass(frozen=True)
class Feature:
    """One input and how the client transforms it: ``clip((x - median) * norm, lower, upper)``.

    Attributes:
        name: Branch name in the ROOT files and in the table.
        median: Subtracted first, in the unit of the branch.
        norm: Multiplied second, in one over the unit of the branch.
        bounded: Whether the result is clipped to -5 … 5.
        unit: Unit of the branch, "1" where it has none.
    """

    name: str
    median: float = 0.0
    norm: float = 1.0
    bounded: bool = True
    unit: str = "1"

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper limit after the transform."""
        return (-5.0, 5.0) if self.bounded else (-NO_BOUND, NO_BOUND)

    def info(self) -> dict[str, float]:
        """The entry of this feature in ``preprocess.json``."""
        lower, upper = self.bounds
        return {
            "median": self.median,
            "norm_factor": self.norm,
            "replace_inf_value": 0,
            "lower_bound": lower,
            "upper_bound": upper,
            "pad": 0,
        }


def _plain(name: str, unit: str = "1") -> Feature:
    return Feature(name, bounded=False, unit=unit)


CANDIDATE_FEATURES: tuple[Feature, ...] = (
    Feature("pfcand_pt_log_nopuppi", 1.0, 0.5, unit="log(GeV)"),
    Feature("pfcand_e_log_nopuppi", 1.3, 0.5, unit="log(GeV)"),
    _plain("pfcand_etarel"),
    _plain("pfcand_phirel", "rad"),
    Feature("pfcand_abseta", 0.6, 1.6),
    _plain("pfcand_charge", "e"),
    _plain("pfcand_isEl"),
    _plain("pfcand_isMu"),
    _plain("pfcand_isGamma"),
    _plain("pfcand_isChargedHad"),
    _plain("pfcand_isNeutralHad"),
    Feature("pfcand_VTX_ass", 4.0, 0.3),
    _plain("pfcand_lostInnerHits"),
    Feature("pfcand_normchi2", 5.0, 0.2),
    Feature("pfcand_quality", 0.0, 0.2),
    Feature("pfcand_dz", 0.0, 180.0, unit="cm"),
    Feature("pfcand_dzsig", 0.0, 0.9),
    Feature("pfcand_dxy", 0.0, 300.0, unit="cm"),
    Feature("pfcand_dxysig", 0.0, 1.0),
    Feature("pfcand_btagEtaRel", 1.5, 0.5),
    Feature("pfcand_btagPtRatio", 0.0, 1.0),
    Feature("pfcand_btagPParRatio", 0.0, 1.0),
    Feature("pfcand_btagSip3dVal", 0.0, 100.0, unit="cm"),
    Feature("pfcand_btagSip3dSig", 0.0, 0.5),
    Feature("pfcand_btagJetDistVal", 0.0, 40.0, unit="cm"),
)
"""The 25 candidate features of the AK8 tagger, in the order of its input."""

PARTICLE_TYPES = (
    "pfcand_isEl",
    "pfcand_isMu",
    "pfcand_isGamma",
    "pfcand_isChargedHad",
    "pfcand_isNeutralHad",
)
"""The five flags that the AK4 tagger does without: it has 20 candidate features."""

VERTEX_FEATURES: tuple[Feature, ...] = (
    Feature("sv_pt_log", 4.0, 0.6, unit="log(GeV)"),
    Feature("sv_mass", 1.2, 0.3, unit="GeV"),
    _plain("sv_etarel"),
    _plain("sv_phirel", "rad"),
    Feature("sv_abseta", 0.5, 1.6),
    Feature("sv_ntracks", 3.0, 1.0),
    Feature("sv_normchi2", 0.8, 0.6),
    Feature("sv_dxy", 0.4, 0.25, unit="cm"),
    Feature("sv_dxysig", 7.0, 0.02),
    Feature("sv_d3d", 0.5, 0.2, unit="cm"),
    Feature("sv_d3dsig", 7.0, 0.02),
)
"""The 11 secondary-vertex features, in the order of the input."""


@dataclass(frozen=True)
class Tagger:
    """One tagger: the jets it is for, its inputs and its classes.

    Attributes:
        key: ``"ak4"`` or ``"ak8"``.
        model: Name of its ONNX model in the model repository; ``_PT`` is added for TorchScript.
        radius: Jet radius parameter of the anti-kT algorithm.
        candidates: Candidate features in the order of the input.
        labels: Class names in the order of the output.
        max_candidates: Candidates kept per jet, highest transverse momentum first.
        max_vertices: Vertices kept per jet, most significant first.
        neighbours: k of the k nearest neighbours.
        max_batch_size: As in the served configuration.
        preferred_batch_size: As in the served configuration.
    """

    key: str
    model: str
    radius: float
    candidates: tuple[Feature, ...]
    labels: tuple[str, ...]
    max_candidates: int
    max_vertices: int
    neighbours: int
    max_batch_size: int
    preferred_batch_size: int
    vertices: tuple[Feature, ...] = VERTEX_FEATURES

    def preprocess(self) -> dict:
        """The table that the client reads, in CMS's layout.

        ``min_length`` is what padding must reach: the network looks for k neighbours
        besides the point itself among candidates and vertices together.
        """
        points = ("etarel", "phirel")

        def group(names: list[str], infos: list[Feature], shortest: int, longest: int) -> dict:
            return {
                "var_names": names,
                "var_infos": {f.name: f.info() for f in infos},
                "var_length": longest,
                "min_length": shortest,
                "max_length": longest,
            }

        def collection(prefix: str, features: tuple[Feature, ...], shortest: int, longest: int):
            coordinates = [_plain(prefix + p) for p in points]
            mask = _plain(prefix + "mask")
            for suffix, chosen in (
                ("points", coordinates),
                ("features", list(features)),
                ("mask", [mask]),
            ):
                yield suffix, group([f.name for f in chosen], chosen, shortest, longest)

        table: dict = {
            "output_names": list(self.labels),
            "input_names": [f"{kind}_{part}" for kind in ("pf", "sv") for part in ("points", "features", "mask")],
        }
        for part, entry in collection("pfcand_", self.candidates, self.neighbours, self.max_candidates):
            table[f"pf_{part}"] = entry
        for part, entry in collection("sv_", self.vertices, 1, self.max_vertices):
            table[f"sv_{part}"] = entry
        return table

    def write_preprocess(self, path: Path) -> None:
        """Write the table as JSON to ``path``."""
        path.write_text(json.dumps(self.preprocess(), indent=1) + "\n")


AK4 = Tagger(
    key="ak4",
    model="particlenet_AK4",
    radius=0.4,
    candidates=tuple(f for f in CANDIDATE_FEATURES if f.name not in PARTICLE_TYPES),
    labels=("probb", "probbb", "probc", "probcc", "probuds", "probg", "probundef", "probpu"),
    max_candidates=50,
    max_vertices=4,
    neighbours=8,
    max_batch_size=500,
    preferred_batch_size=200,
)
AK8 = Tagger(
    key="ak8",
    model="particlenet",
    radius=0.8,
    candidates=CANDIDATE_FEATURES,
    labels=(
        *("probTbcq", "probTbqq", "probTbc", "probTbq", "probTbel", "probTbmu", "probTbta"),
        *("probWcq", "probWqq", "probZbb", "probZcc", "probZqq"),
        *("probHbb", "probHcc", "probHqqqq"),
        *("probQCDbb", "probQCDcc", "probQCDb", "probQCDc", "probQCDothers"),
    ),
    max_candidates=100,
    max_vertices=10,
    neighbours=16,
    max_batch_size=160,
    preferred_batch_size=80,
)
TAGGERS = {t.key: t for t in (AK4, AK8)}

"""An idealised detector: from generated particles to reconstructed candidates.

Arrays are flat (all events of a batch one after the other), with an event index.
Lengths in cm, momenta in GeV, angles in radians, as in CMS's data formats.

What is emulated: tracking efficiency that falls with the radius of the production
vertex, helices and their impact parameters, resolution with tails, displaced and fake
tracks, calorimeter resolution, imperfect lepton identification. What is not: pile-up
tracks in the jets, material, real pattern recognition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIELD_T = 3.8
CURVATURE_RADIUS_CM_PER_GEV = 100.0 / (0.299792458 * FIELD_T)
PIXEL_RADII_CM = (2.9, 6.8, 10.9)
"""Inner three barrel layers: a track born outside has lost hits."""

ELECTRON, MUON, PHOTON, CHARGED_HADRON, NEUTRAL_HADRON = range(5)
"""Candidate types, in the order of the five flags of the feature table."""

MASS_GEV = np.array([0.000511, 0.10566, 0.0, 0.13957, 0.49761])
INVISIBLE = (12, 14, 16)


@dataclass(frozen=True)
class Settings:
    """Numbers of the detector. Fractions are per track unless said otherwise."""

    track_min_pt_gev: float = 0.4
    neutral_min_pt_gev: float = 0.5
    max_abs_eta: float = 2.5
    track_efficiency: float = 0.95
    electron_track_efficiency: float = 0.90
    electron_id: float = 0.80
    muon_id: float = 0.95
    muon_min_pt_gev: float = 2.0
    hadron_as_muon: float = 0.003
    hadron_as_electron: float = 0.005
    tail_fraction: float = 0.03
    """Tracks whose impact parameters get an additional exponential error ..."""
    tail_scale: float = 3.0
    """... of this many standard deviations."""
    displaced_fraction: float = 0.006
    """Good-looking tracks shifted by nuclear interactions and wrong hits ..."""
    displaced_scale_cm: float = 0.05
    """... by a Laplace distribution of this scale."""
    fake_fraction: float = 0.004
    """Tracks that are no particle at all."""
    vertex_sigma_cm: tuple[float, float, float] = (0.0012, 0.0012, 0.0020)
    pileup_sigma_z_cm: float = 5.0
    pileup_charged_cut_cm: float = 0.1
    """Charged candidates farther than this from the vertex are dropped (charged-hadron subtraction)."""


@dataclass
class Particles:
    """Stable visible particles: flat arrays over a batch. ``vertex`` (n, 3) in cm."""

    event: NDArray[np.int64]
    pdg: NDArray[np.int64]
    charge: NDArray[np.float64]
    momentum: NDArray[np.float64]  # (n, 4): px, py, pz, E in GeV
    vertex: NDArray[np.float64]


Candidates = dict[str, NDArray]
"""Flat arrays: event, type, pt, eta, phi, energy, charge, dxy, dz and their errors, lost_inner_hits, chi2, quality, vertex_association."""


def perigee(x, y, z, px, py, pz, charge):
    """Follow helices back to their closest approach to the beam axis, in the transverse plane.

    Args:
        x, y, z: A point on the helix with respect to the vertex, cm.
        px, py, pz: Momentum there, GeV.
        charge: In units of e, not 0.

    Returns:
        phi there, signed transverse impact parameter dxy (cm, CMS's sign), dz (cm).
    """
    pt = np.hypot(px, py)
    phi = np.arctan2(py, px)
    radius = CURVATURE_RADIUS_CM_PER_GEV * pt / charge  # signed; positive tracks turn clockwise
    centre_x = x + radius * np.sin(phi)
    centre_y = y - radius * np.cos(phi)
    distance = np.hypot(centre_x, centre_y)
    closest_x = centre_x * (1.0 - np.abs(radius) / distance)
    closest_y = centre_y * (1.0 - np.abs(radius) / distance)
    phi0 = np.arctan2(-(closest_x - centre_x) / radius, (closest_y - centre_y) / radius)
    turned = np.mod(phi - phi0 + np.pi, 2 * np.pi) - np.pi
    arc = -turned * radius
    dxy = -closest_x * np.sin(phi0) + closest_y * np.cos(phi0)
    return phi0, dxy, z - arc * pz / pt


def impact_errors(pt, eta):
    """Standard deviations of dxy and dz in cm: a constant and a multiple-scattering term."""
    sin_theta = 1.0 / np.cosh(eta)
    error_dxy = np.hypot(15e-4, 75e-4 / (pt * np.sqrt(sin_theta)))
    error_dz = np.hypot(30e-4, 90e-4 / (pt * sin_theta**1.5))
    return error_dxy, error_dz


def emulate(
    particles: Particles,
    n_events: int,
    rng: np.random.Generator,
    settings: Settings = Settings(),
    pileup: bool = False,
) -> Candidates:
    """Reconstruct a batch of events.

    Args:
        particles: Stable visible particles.
        n_events: Events in the batch.
        rng: Source of all randomness here.
        settings: The detector.
        pileup: Displace every event along the beam and subtract charged hadrons.

    Returns:
        Candidates in order of event.
    """
    s = settings
    px, py, pz, _ = particles.momentum.T
    pt = np.maximum(np.hypot(px, py), 1e-9)
    eta = np.arcsinh(pz / pt)
    radius = np.hypot(particles.vertex[:, 0], particles.vertex[:, 1])
    pdg = np.abs(particles.pdg)
    charged = particles.charge != 0

    efficiency = np.where(pdg == 11, s.electron_track_efficiency, s.track_efficiency)
    efficiency = efficiency * np.interp(radius, [0.0, 1.0, 4.0, 10.0, 15.0, 15.01], [1, 1, 0.75, 0.6, 0.5, 0])
    in_tracker = (np.abs(eta) < s.max_abs_eta) & (pt > s.track_min_pt_gev)
    tracked = charged & in_tracker & (rng.random(pt.size) < efficiency)

    tracks = _tracks(particles, np.flatnonzero(tracked), n_events, rng, s, pileup)
    neutrals = _neutrals(particles, np.flatnonzero(~tracked & (pdg != 13) & (np.abs(eta) < 3.0)), eta, pdg, charged, rng, s)
    merged = {key: np.concatenate([tracks[key], neutrals[key]]) for key in tracks}
    order = np.argsort(merged["event"], kind="stable")
    return {key: value[order] for key, value in merged.items()}


def _tracks(particles, index, n_events, rng, s: Settings, pileup: bool) -> Candidates:
    # Fakes copy the rough kinematics of real tracks, so they follow the jets.
    fake_of = index[rng.random(index.size) < s.fake_fraction]
    is_fake = np.r_[np.zeros(index.size, bool), np.ones(fake_of.size, bool)]
    index = np.r_[index, fake_of]
    event = particles.event[index]
    pdg = np.abs(particles.pdg[index])
    charge = particles.charge[index]
    charge = np.where(is_fake, rng.choice([-1.0, 1.0], index.size), np.sign(charge))
    px, py, pz, _ = particles.momentum[index].T
    vertex = particles.vertex[index] - (rng.normal(size=(n_events, 3)) * s.vertex_sigma_cm)[event]
    if pileup:
        vertex[:, 2] += (rng.normal(size=n_events) * s.pileup_sigma_z_cm)[event]

    phi, dxy, dz = perigee(*vertex.T, px, py, pz, charge)
    true_pt = np.hypot(px, py)
    eta = np.arcsinh(pz / true_pt)
    pt = true_pt * (1 + rng.normal(size=index.size) * np.hypot(0.01, 1e-4 * true_pt))
    pt = np.where(is_fake, pt * rng.uniform(0.3, 2.0, index.size), pt)
    eta = eta + rng.normal(size=index.size) * np.where(is_fake, 0.05, 1e-3)
    phi = phi + rng.normal(size=index.size) * np.where(is_fake, 0.05, 1e-3)

    error_dxy, error_dz = impact_errors(np.maximum(pt, 0.1), eta)
    in_tail = rng.random(index.size) < s.tail_fraction
    shifted = rng.random(index.size) < s.displaced_fraction
    for value, error in ((dxy, error_dxy), (dz, error_dz)):
        value += error * rng.normal(size=index.size)
        value += np.where(in_tail, rng.laplace(size=index.size) * s.tail_scale * error, 0)
        value += np.where(shifted, rng.laplace(size=index.size) * s.displaced_scale_cm, 0)
        value += np.where(is_fake, rng.laplace(size=index.size) * 3 * s.displaced_scale_cm, 0)

    kind = _identify(pdg, pt, is_fake, rng, s)
    radius = np.hypot(vertex[:, 0], vertex[:, 1])
    missed = np.searchsorted(PIXEL_RADII_CM, radius) - 1  # -1: hit in the first layer
    missed = np.maximum(missed, np.where(rng.random(index.size) < 0.03, 0, -1))
    chi2 = rng.gamma(12.0, 1.0 / 12.0, index.size) + np.where(is_fake | shifted, rng.exponential(1.0, index.size), 0)
    quality = np.where(rng.random(index.size) < np.where(is_fake, 0.4, 0.97), 7, 3)

    significance = np.abs(dz) / error_dz
    association = np.select(
        [
            (np.abs(dz) < 0.1) & (significance < 4) & (np.abs(dxy) < 4 * error_dxy),
            (np.abs(dz) < 0.1) & (significance < 4),
            np.abs(dz) < 0.1,
            np.abs(dz) < 0.3,
        ],
        [7, 6, 5, 4],
        0,
    )
    energy = np.hypot(pt * np.cosh(eta), MASS_GEV[kind])
    keep = pt > s.track_min_pt_gev
    if pileup:
        keep &= np.abs(dz) < s.pileup_charged_cut_cm
    columns = {
        "event": event,
        "type": kind,
        "pt": pt,
        "eta": eta,
        "phi": phi,
        "energy": energy,
        "charge": charge,
        "dxy": dxy,
        "dz": dz,
        "dxy_error": error_dxy,
        "dz_error": error_dz,
        "lost_inner_hits": missed,
        "chi2": np.floor(chi2),
        "quality": quality,
        "vertex_association": association,
    }
    return {key: np.asarray(value, dtype=_dtype(key))[keep] for key, value in columns.items()}


def _identify(pdg, pt, is_fake, rng, s: Settings):
    chance = rng.random(pdg.size)
    hadron = np.select(
        [chance < s.hadron_as_muon, chance < s.hadron_as_muon + s.hadron_as_electron],
        [MUON, ELECTRON],
        CHARGED_HADRON,
    )
    hadron = np.where(pt > s.muon_min_pt_gev, hadron, CHARGED_HADRON)
    found = pt > s.muon_min_pt_gev
    muon = np.where(found & (chance < s.muon_id), MUON, CHARGED_HADRON)
    electron = np.where(found & (chance < s.electron_id), ELECTRON, CHARGED_HADRON)
    return np.select([is_fake, pdg == 13, pdg == 11], [CHARGED_HADRON, muon, electron], hadron)


def _neutrals(particles, index, eta, pdg, charged, rng, s: Settings) -> Candidates:
    """Photons, neutral hadrons, and the calorimeter deposits of tracks that were lost."""
    px, py, _, energy = particles.momentum[index].T
    electromagnetic = (pdg[index] == 22) | (pdg[index] == 11)
    # A lost track below 0.8 GeV curls up before the calorimeter.
    reaches = ~charged[index] | (np.hypot(px, py) > 0.8)
    energy = np.maximum(energy, 1e-3)
    resolution = np.where(electromagnetic, np.hypot(0.03 / np.sqrt(energy), 0.005), np.hypot(0.9 / np.sqrt(energy), 0.05))
    measured = energy * (1 + resolution * rng.normal(size=index.size))
    pt = measured / np.cosh(eta[index])
    keep = reaches & (pt > s.neutral_min_pt_gev)
    kind = np.where(electromagnetic, PHOTON, NEUTRAL_HADRON)
    nothing = np.zeros(index.size)
    columns = {
        "event": particles.event[index],
        "type": kind,
        "pt": pt,
        "eta": eta[index],
        "phi": np.arctan2(py, px),
        "energy": np.hypot(measured, MASS_GEV[kind]),
        "charge": nothing,
        "dxy": nothing,
        "dz": nothing,
        "dxy_error": nothing,
        "dz_error": nothing,
        "lost_inner_hits": nothing,
        "chi2": nothing + 999,
        "quality": nothing,
        "vertex_association": nothing + 1,
    }
    return {key: np.asarray(value, dtype=_dtype(key))[keep] for key, value in columns.items()}


def _dtype(column: str) -> type:
    return np.int64 if column in ("event", "type") else np.float64

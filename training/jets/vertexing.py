"""A truth-free secondary-vertex finder, compiled with numba: microseconds a jet.

In each jet: take tracks that miss the primary vertex, fit every pair, seed with the
pair that most other tracks agree with, refit with those tracks, keep the vertex if it
is significantly displaced along the jet, remove its tracks, repeat.

Tracks are helices near the vertex: they are linearised again at every fit, because the
sagitta of a 1 GeV track after 1 cm exceeds the resolution. Lengths in cm, GeV, radians.
"""

from __future__ import annotations

import numpy as np
from numba import njit

CURVATURE = 100.0 / (0.299792458 * 3.8)
MAX_TRACKS = 14
"""Tracks considered per search, the most displaced ones: pairs grow as the square."""
MIN_TRACK_SIGNIFICANCE = 2.0
MIN_TRACK_PT = 0.7
MAX_PAIR_CHI2 = 6.0
MAX_TRACK_CHI2 = 9.0
MIN_FLIGHT_SIGNIFICANCE = 3.0
MAX_FLIGHT_2D_CM = 8.0
MIN_COS_FLIGHT_JET = 0.7
PION_MASS = 0.13957
N_OUTPUT = 14
"""px, py, pz, mass, n_tracks, chi2/ndf, dxy, dxysig, d3d, d3dsig, x, y, z, energy."""


@njit(cache=True)
def _at(track, x, y):
    """Point and direction of a helix where it passes nearest to (x, y), to first order.

    ``track`` holds pt, phi, sinh(eta), dxy, dz, charge, error_dxy, error_dz at the
    point of closest approach to the primary vertex, which is the origin.
    """
    pt, phi, slope, dxy, dz, charge = track[0], track[1], track[2], track[3], track[4], track[5]
    start_x = -dxy * np.sin(phi)
    start_y = dxy * np.cos(phi)
    arc = (x - start_x) * np.cos(phi) + (y - start_y) * np.sin(phi)
    radius = CURVATURE * pt / charge
    turned = phi - arc / radius
    point = np.empty(3)
    point[0] = start_x + radius * (np.sin(phi) - np.sin(turned))
    point[1] = start_y + radius * (np.cos(turned) - np.cos(phi))
    point[2] = dz + arc * slope
    return point, turned


@njit(cache=True)
def _fit(tracks, chosen, n, start):
    """Weighted least-squares vertex of ``n`` chosen tracks.

    Returns position (3,), covariance (3, 3), chi2 per chosen track, success.
    """
    vertex = start.copy()
    covariance = np.zeros((3, 3))
    chi2 = np.zeros(n)
    for _ in range(2):
        a = np.zeros((3, 3))
        b = np.zeros(3)
        for i in range(n):
            track = tracks[chosen[i]]
            point, phi = _at(track, vertex[0], vertex[1])
            sin, cos, slope = np.sin(phi), np.cos(phi), track[2]
            norm = np.sqrt(1 + slope * slope)
            across = (-sin, cos, 0.0)
            along = (-slope * cos / norm, -slope * sin / norm, 1.0 / norm)
            for direction, error in ((across, track[6]), (along, track[7] / norm)):
                weight = 1.0 / (error * error)
                offset = direction[0] * point[0] + direction[1] * point[1] + direction[2] * point[2]
                for k in range(3):
                    b[k] += weight * direction[k] * offset
                    for m in range(3):
                        a[k, m] += weight * direction[k] * direction[m]
        determinant = np.linalg.det(a)
        if not determinant > 1e-12 * (a[0, 0] * a[1, 1] * a[2, 2] + 1e-30):
            return vertex, covariance, chi2, False
        covariance = np.ascontiguousarray(np.linalg.inv(a))
        vertex = covariance @ b
        if vertex[0] ** 2 + vertex[1] ** 2 > 225.0:
            return vertex, covariance, chi2, False
    for i in range(n):
        chi2[i] = _compatibility(tracks[chosen[i]], vertex)
    return vertex, covariance, chi2, True


@njit(cache=True)
def _compatibility(track, vertex):
    """chi2 (2 degrees of freedom) of a track and a point."""
    point, phi = _at(track, vertex[0], vertex[1])
    across = -(vertex[0] - point[0]) * np.sin(phi) + (vertex[1] - point[1]) * np.cos(phi)
    along = (vertex[2] - point[2]) / np.sqrt(1 + track[2] ** 2)
    error = track[7] / np.sqrt(1 + track[2] ** 2)
    return (across / track[6]) ** 2 + (along / error) ** 2


@njit(cache=True)
def _search(tracks, usable, jet_direction, output):
    """Find one vertex among the usable tracks. Fills ``output``; returns whether it did."""
    n = usable.size
    pair = np.empty(2, np.int64)
    members = np.empty(n, np.int64)
    best_members = np.empty(n, np.int64)
    best_count, best_chi2 = 0, 1e30
    best_vertex = np.zeros(3)
    for i in range(n):
        for j in range(i + 1, n):
            pair[0], pair[1] = usable[i], usable[j]
            # Start where the straight lines cross in the transverse plane.
            first, second = tracks[pair[0]], tracks[pair[1]]
            sine = np.sin(second[1] - first[1])
            if abs(sine) < 1e-4:
                continue
            arc = (second[3] - first[3] * np.cos(second[1] - first[1])) / sine
            start = np.zeros(3)
            start[0] = -first[3] * np.sin(first[1]) + arc * np.cos(first[1])
            start[1] = first[3] * np.cos(first[1]) + arc * np.sin(first[1])
            if start[0] ** 2 + start[1] ** 2 > 225.0:
                continue
            vertex, _, chi2, good = _fit(tracks, pair, 2, start)
            if not good or chi2.sum() > MAX_PAIR_CHI2 or vertex @ jet_direction <= 0:
                continue
            count, total = 0, 0.0
            for k in range(n):
                value = _compatibility(tracks[usable[k]], vertex)
                if value < MAX_TRACK_CHI2:
                    members[count] = usable[k]
                    count += 1
                    total += value
            if count > best_count or (count == best_count and total < best_chi2):
                best_count, best_chi2 = count, total
                best_vertex = vertex
                best_members[:count] = members[:count]
    if best_count < 2:
        return best_members[:0], False
    best_members = best_members[:best_count]
    vertex, covariance, chi2, good = _fit(tracks, best_members, best_count, best_vertex)
    if not good:
        return best_members, False
    flight = np.sqrt(vertex @ vertex)
    flight_2d = np.hypot(vertex[0], vertex[1])
    error = np.sqrt(max(vertex @ covariance @ vertex, 1e-20)) / flight
    planar = np.array([vertex[0], vertex[1], 0.0])
    error_2d = np.sqrt(max(planar @ covariance @ planar, 1e-20)) / max(flight_2d, 1e-9)
    if flight / error < MIN_FLIGHT_SIGNIFICANCE or flight_2d > MAX_FLIGHT_2D_CM:
        return best_members, False
    if (vertex @ jet_direction) / flight < MIN_COS_FLIGHT_JET:
        return best_members, False
    px = py = pz = energy = 0.0
    for i in best_members:
        pt, slope = tracks[i, 0], tracks[i, 2]
        _, phi = _at(tracks[i], vertex[0], vertex[1])
        px += pt * np.cos(phi)
        py += pt * np.sin(phi)
        pz += pt * slope
        energy += np.sqrt(pt * pt * (1 + slope * slope) + PION_MASS**2)
    output[0], output[1], output[2] = px, py, pz
    output[3] = np.sqrt(max(energy**2 - px**2 - py**2 - pz**2, 0.0))
    output[4] = best_count
    output[5] = chi2.sum() / (2 * best_count - 3)
    output[6], output[7] = flight_2d, flight_2d / error_2d
    output[8], output[9] = flight, flight / error
    output[10], output[11], output[12] = vertex
    output[13] = energy
    return best_members, True


@njit(cache=True)
def find_vertices(tracks, significance, offsets, jet_directions, max_vertices):
    """Secondary vertices of many jets.

    Args:
        tracks: (n, 8) pt, phi, sinh(eta), dxy, dz, charge, error_dxy, error_dz.
        significance: (n,) signed 3D impact-parameter significance.
        offsets: (n_jets + 1,) where each jet's tracks begin and end.
        jet_directions: (n_jets, 3) unit vectors.
        max_vertices: Vertices per jet at most.

    Returns:
        (n_jets, max_vertices, 14) as `N_OUTPUT` lists, by falling dxy significance; (n_jets,) counts.
    """
    n_jets = offsets.size - 1
    vertices = np.zeros((n_jets, max_vertices, N_OUTPUT))
    counts = np.zeros(n_jets, np.int64)
    for jet in range(n_jets):
        low, high = offsets[jet], offsets[jet + 1]
        usable = np.empty(high - low, np.int64)
        n = 0
        for i in range(low, high):
            if significance[i] > MIN_TRACK_SIGNIFICANCE and tracks[i, 0] > MIN_TRACK_PT:
                usable[n] = i
                n += 1
        usable = usable[:n]
        if n > MAX_TRACKS:
            usable = usable[np.argsort(-significance[usable])[:MAX_TRACKS]]
        while counts[jet] < max_vertices and usable.size >= 2:
            members, found = _search(tracks, usable, jet_directions[jet], vertices[jet, counts[jet]])
            if members.size == 0:
                break
            if found:
                counts[jet] += 1
            left = np.empty(usable.size, np.int64)
            n = 0
            for i in usable:
                taken = False
                for m in members:
                    taken = taken or m == i
                if not taken:
                    left[n] = i
                    n += 1
            usable = left[:n]
        order = np.argsort(-vertices[jet, :, 7])
        vertices[jet] = vertices[jet][order]
    return vertices, counts

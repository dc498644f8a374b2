"""The generic detector of ACTS, which is the one of the TrackML challenge: how well it measures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ENDCAPS = (7, 9, 12, 14, 16, 18)
"""Volumes whose sensors are disks; in the others (8, 13, 17) they are cylinders."""

RESOLUTION_MM = {7: (0.0144, 0.0144), 8: (0.0144, 0.0144), 9: (0.0144, 0.0144), 12: (0.023, 0.346), 13: (0.023, 0.346), 14: (0.023, 0.346),
                 16: (0.035, 3.1), 17: (0.035, 3.1), 18: (0.035, 3.1)}  # fmt: skip
"""Standard deviation along the sensor's precise direction, r times phi, and across it: z in a cylinder, r in a disk.

Pixels of 50 µm, short strips of 80 µm x 1.2 mm, long strips of 0.12 mm x 10.8 mm, each divided by the square root of 12.
"""


def smear(
    x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64], volume: NDArray[np.integer], generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """True positions to measured ones.

    Args:
        x, y, z: (n,) true positions, mm.
        volume: (n,) volume of each hit.
        generator: Source of the random numbers.

    Returns:
        (n,) r in mm, phi in rad from -pi to pi, z in mm.
    """
    sigma = np.array([RESOLUTION_MM[int(v)] for v in volume]).reshape(-1, 2)
    precise, across = generator.normal(size=(2, x.size)) * sigma.T
    # Long strips measure uniformly within their length; a Gaussian would put hits beyond the end of the sensor.
    across = np.where(sigma[:, 1] > 1, generator.uniform(-1, 1, x.size) * sigma[:, 1] * np.sqrt(3), across)
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    disk = np.isin(volume, ENDCAPS)
    phi = phi + precise / r
    r = r + np.where(disk, across, 0.0)
    z = z + np.where(disk, 0.0, across)
    return r.astype(np.float32), (np.mod(phi + np.pi, 2 * np.pi) - np.pi).astype(np.float32), z.astype(np.float32)

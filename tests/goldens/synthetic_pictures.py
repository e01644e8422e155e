"""Pictures made from a seed."""

from __future__ import annotations

import numpy as np


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 [h, w, 3]: slopes, edges and noise, so that each filter tap, channel and position shows in the result."""
    draw = np.random.default_rng([seed, height, width])
    y, x = np.mgrid[0:height, 0:width]
    channels = []
    for _ in range(3):
        slope = draw.uniform(-3, 3) * y + draw.uniform(-3, 3) * x
        waves = 60 * np.sin(draw.uniform(0.05, 0.4) * x + draw.uniform(0.05, 0.4) * y)
        edge = 80 * (x * draw.uniform(-1, 1) + y * draw.uniform(-1, 1) > draw.uniform(-20, 20))
        channels.append(slope + waves + edge + draw.uniform(40, 200) + draw.normal(0, 12, (height, width)))
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)

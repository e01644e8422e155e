"""Muon for the matrices within blocks, Adam for the rest, both on the flat buffer of parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from networks import Parameters

MUON_LR, MUON_MOMENTUM, MUON_DECAY = 0.02, 0.95, 0.02
ADAM_LR, ADAM_BETAS, ADAM_EPS = 2e-3, (0.9, 0.98), 1e-8
LARGEST_GRADIENT = 1.0


def orthogonalised(matrices: Tensor) -> Tensor:
    """Newton-Schulz in bfloat16: about U V^T of each matrix [n, rows, columns] (Jordan et al., Muon)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.mT if tall else x).float()


class Optimiser:
    def __init__(self, parameters: Parameters):
        self.parameters = parameters
        flat = parameters.flat.detach()
        self.flat = flat
        self.first = torch.zeros_like(flat)
        self.second = torch.zeros_like(flat)
        self.is_adam = torch.ones_like(flat)
        self.steps = 0
        # Matrices of one shape are orthogonalised together.
        self.groups: dict[tuple[int, int], list[int]] = {}
        offset = 0
        for (name, shape), size in zip(parameters.shapes.items(), parameters.sizes):
            in_block = "blocks." in name or "layers." in name
            if len(shape) == 2 and in_block:
                self.groups.setdefault(tuple(shape), []).append(offset)
                self.is_adam[offset : offset + size] = 0
            offset += size
        self.momenta = {
            shape: torch.zeros(len(offsets), *shape, device=flat.device) for shape, offsets in self.groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update; `rate` from 0 to 1 scales the learning rates."""
        gradient = self.parameters.flat.grad
        gradient *= (LARGEST_GRADIENT / (gradient.norm() + 1e-6)).clamp(max=1.0)
        self.steps += 1
        self._adam(gradient, rate)
        for shape, offsets in self.groups.items():
            self._muon(gradient, shape, offsets, rate)
        self.parameters.flat.grad = None

    def _adam(self, gradient: Tensor, rate: float) -> None:
        beta1, beta2 = ADAM_BETAS
        self.first.lerp_(gradient, 1 - beta1)
        self.second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = ADAM_LR * rate / (1 - beta1**self.steps)
        root = (self.second / (1 - beta2**self.steps)).sqrt_().add_(ADAM_EPS)
        self.flat.sub_(self.first / root * self.is_adam, alpha=scale)

    def _muon(self, gradient: Tensor, shape: tuple[int, int], offsets: list[int], rate: float) -> None:
        size = math.prod(shape)
        slices = torch.stack([gradient[o : o + size].view(shape) for o in offsets])
        momentum = self.momenta[shape].lerp_(slices, 1 - MUON_MOMENTUM)
        update = orthogonalised(slices.lerp(momentum, MUON_MOMENTUM))
        scale = MUON_LR * rate
        views = [self.flat[o : o + size].view(shape) for o in offsets]
        torch._foreach_mul_(views, 1 - scale * MUON_DECAY)
        torch._foreach_add_(views, list(update.unbind(0)), alpha=-scale * max(1.0, shape[0] / shape[1]) ** 0.5)

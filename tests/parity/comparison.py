"""Tolerances of the parity data (its README, section 4) and the comparison under them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Pattern of a tensor's name (without a row prefix) -> absolute tolerance.
ABSOLUTE: tuple[tuple[str, float], ...] = (
    (r"pixel_values_.+", 2e-6),
    (r"(vision|expert_attn|post_qformer)_s\d+", 5e-5),
    (r"gates", 1e-5),
    (r"projector_call\d_s\d+|local_merged_rows\d+|embeds_rows", 2e-5),
    (r"local_merged_rowsum|embeds_rowsum|embeds_rowabssum", 3e-4),
    (r"router_sim", 2e-4),
    (r"logits_rows|logits_logsumexp|logits_max", 1e-3),
    (r"loss", 1e-4),
)
RELATIVE_PROBS = 3e-4
GRADIENT = 2e-4
ARGMAX_GAP = 2e-3
# Inputs of a run rather than results: which rows are stored, and injected noise. They have nothing to be compared with
# and no tolerance; what is computed from them has (`CaseRun.computed_with`).
INPUTS = re.compile(r"(row\d+\.)?(embeds_rows_index|logits_rows_index|noise_gate|noise_router)")


def bare_name(name: str) -> str:
    """Name without its row prefix."""
    return re.sub(r"^row\d+\.", "", name)


def is_input(name: str) -> bool:
    """Whether a recorded tensor is an input of the run."""
    return INPUTS.fullmatch(name) is not None


def tolerance(name: str, recorded: Tensor, case: Mapping[str, Any]) -> Tensor | None:
    """Largest allowed difference of every element; None where values have to be equal."""
    bare = bare_name(name)
    if bare == "router_probs":
        return recorded * RELATIVE_PROBS
    if bare.startswith(("grad.", "grad_norm.")):
        return torch.full_like(recorded, GRADIENT * case["grad_norms"][bare.split(".", 1)[1]])
    for pattern, value in ABSOLUTE:
        if re.fullmatch(pattern, bare):
            return torch.full_like(recorded, value)
    assert not recorded.is_floating_point(), f"no tolerance is known for {name}"
    return None


def must_be_equal(name: str, computed: Mapping[str, Tensor]) -> Tensor | None:
    """Places of whole numbers that have to be the recorded ones; None for all.

    Where the two best logits are nearer than their tolerance, either token is right. What is generated after such a
    place depends on it.
    """
    if bare_name(name) == "logits_argmax":
        return computed[name.replace("logits_argmax", "logits_gap")] > ARGMAX_GAP
    if name == "generated":
        return (computed["generated_gap"] > ARGMAX_GAP).long().cumprod(dim=-1).bool()
    return None


def may_differ(name: str, case: Mapping[str, Any], computed: Mapping[str, Tensor]) -> Tensor:
    """Local tokens so near the selector's cut that either decision is right, as indices."""
    prefix = name[: -len("selected_index")]
    router = case["router"]
    if prefix:
        router = router[int(prefix[3:-1])]
    if router["kept"] in (0, router["total"]) or router.get("boundary_gap") is None:
        return torch.empty(0, dtype=torch.long)
    if router["cum_margin"] >= 2e-6 and router["boundary_gap"] >= 1e-8:
        return torch.empty(0, dtype=torch.long)
    probs = computed[prefix + "router_probs"]
    cut = probs.sort(descending=True).values[router["kept"] - 1]
    return ((probs - cut).abs() <= 1e-6 * cut).nonzero()[:, 0]


def compare_tensor(name: str, recorded: Tensor, computed: Mapping[str, Tensor], case: Mapping[str, Any]) -> str | None:
    """Compare one tensor: None when it is within tolerance, else what is wrong."""
    if name not in computed:
        return f"{name}: not computed"
    ours = computed[name]
    if name.endswith("selected_index"):
        odd = set(recorded.tolist()) ^ set(ours.tolist())
        odd -= set(may_differ(name, case, computed).tolist())
        return f"{name}: {len(odd)} tokens are kept by one side only" if odd else None
    if tuple(ours.shape) != tuple(recorded.shape):
        return f"{name}: shape {tuple(ours.shape)}, recorded {tuple(recorded.shape)}"
    if recorded.numel() == 0:
        return None
    limit = tolerance(name, recorded, case)
    if limit is None:
        differs = ours.long() != recorded.long()
        firm = must_be_equal(name, computed)
        if firm is not None:
            differs &= firm
        return f"{name}: {int(differs.sum())} of {differs.numel()} values differ" if differs.any() else None
    excess = (ours.double() - recorded.double()).abs() - limit.double()
    # A comparison with NaN is false, so ask for what must hold rather than for what must not.
    if not bool((excess <= 0).all()):
        worst = int(excess.argmax())
        return (
            f"{name}: {ours.flatten()[worst].item():.8g}, recorded {recorded.flatten()[worst].item():.8g}, "
            f"allowed difference {limit.flatten()[worst].item():.2g}"
        )
    return None


def compare_case(recorded: Mapping[str, Tensor], computed: Mapping[str, Tensor], case: Mapping[str, Any]) -> list[str]:
    """Compare all tensors of a case; empty when the implementations agree."""
    results = (compare_tensor(name, tensor, computed, case) for name, tensor in recorded.items() if not is_input(name))
    return [result for result in results if result is not None]


def perturbed(name: str, recorded: Tensor, computed: Mapping[str, Tensor], case: Mapping[str, Any]) -> Tensor:
    """The recorded tensor with one element moved by ten times its tolerance; by one, where there is none.

    An empty tensor gets an element.
    """
    if recorded.numel() == 0:
        return recorded.new_zeros(1)
    changed = recorded.clone()
    flat = changed.view(-1)
    place = flat.numel() // 2
    firm = must_be_equal(name, computed)
    if firm is not None:
        place = int(firm.view(-1).nonzero()[0])
    limit = None if is_input(name) else tolerance(name, recorded, case)
    if name.endswith("selected_index"):
        flat[place] = -1
    elif limit is None:
        flat[place] += 1
    else:
        flat[place] += 10 * limit.view(-1)[place]
    return changed

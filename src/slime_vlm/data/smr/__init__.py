"""SMR, the paper's mixture of science and mathematics, built from the downloaded raw sets. One module per set."""

from __future__ import annotations

from slime_vlm.data.smr.building import SETS, Built, build_smr, table
from slime_vlm.data.smr.raw_set import RawSet, Skipped

__all__ = ["SETS", "Built", "RawSet", "Skipped", "build_smr", "table"]

"""Records from files, folders, shards and the hub: open, mix and check them, and build SMR from its raw sets.

This package does not import torch, so inspecting data is fast.
"""

from __future__ import annotations

from slime_vlm.data.dataset import RecordDataset
from slime_vlm.data.mixture import MixtureOrder, Share
from slime_vlm.data.opening import open_source
from slime_vlm.data.record import Record
from slime_vlm.data.source import Source

__all__ = ["MixtureOrder", "Record", "RecordDataset", "Share", "Source", "open_source"]

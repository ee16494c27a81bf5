"""Records from files, folders, shards and the hub: opening, mixing, checking, and building SMR from its raw sets.

Nothing here imports torch, so that looking at data costs no model.
"""

from __future__ import annotations

from slime_vlm.data.dataset import RecordDataset
from slime_vlm.data.mixture import MixtureOrder, Share
from slime_vlm.data.opening import open_source
from slime_vlm.data.record import Record
from slime_vlm.data.source import Source

__all__ = ["MixtureOrder", "Record", "RecordDataset", "Share", "Source", "open_source"]

"""`slime data check`: find what is wrong with records before any training time is spent."""

from __future__ import annotations

from slime_vlm.data.check.findings import KINDS, Finding
from slime_vlm.data.check.repair import check_target, write_repaired
from slime_vlm.data.check.report import Report, SourceReport
from slime_vlm.data.check.running import check_source

__all__ = ["KINDS", "Finding", "Report", "SourceReport", "check_source", "check_target", "write_repaired"]

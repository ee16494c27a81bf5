"""Makes clean pages look scanned, copied, faxed or photographed; boxes move with the pixels."""

from slime_vlm.pages.scan_look.looks import LOOKS, apply_look

__all__ = ["LOOKS", "apply_look"]

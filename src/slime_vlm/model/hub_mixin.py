"""What the classes of SliME do differently when transformers saves them for the hub: the stub module, and the card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slime_vlm.model.hub_card import CARD_FILE, write_card
from slime_vlm.model.hub_stub import write_stub


class HubMixin:
    """Base of the config, the models and the processors, beside transformers' own `PushToHubMixin`."""

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Do nothing. transformers would copy the source of the class into saved folders, which have the stub instead.

        It calls this for a class that it found by `auto_map`.
        """

    def _upload_modified_files(self, working_dir: Any, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """Upload a folder with the stub, and with our card in place of the one that transformers makes up.

        A card that is not there is not written, since the repository may have one. The stub is written again: only
        files that changed since the start of saving are uploaded.
        """
        write_stub(working_dir)
        if (Path(working_dir) / CARD_FILE).is_file():
            write_card(working_dir, getattr(self, "config", self), repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)  # type: ignore[misc]

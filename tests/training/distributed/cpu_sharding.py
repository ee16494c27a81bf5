"""FSDP2 on a CPU, for tests alone: Accelerate shards on accelerators only, and elsewhere silently falls back to DDP."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.tensor import DTensor


def shard_on_cpu() -> None:
    """Give the state the type that it would have on accelerators, and write down which parameters are then sharded.

    `$SHARDED` is the file, of the first process.
    """
    begin, prepare = AcceleratorState.__init__, Accelerator.prepare

    def begin_sharded(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        plugin = kwargs.get("fsdp_plugin")
        if plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            if self._mixed_precision != "no":
                plugin.set_mixed_precision(self._mixed_precision)

    def prepare_and_tell(self: Any, *args: Any, **kwargs: Any) -> Any:
        prepared = prepare(self, *args, **kwargs)
        for part in prepared if isinstance(prepared, list | tuple) else (prepared,):
            if isinstance(part, nn.Module) and os.environ["RANK"] == "0":
                sharded = {name: isinstance(value, DTensor) for name, value in part.named_parameters()}
                Path(os.environ["SHARDED"]).write_text(json.dumps(sharded))
        return prepared

    AcceleratorState.__init__ = begin_sharded  # type: ignore[method-assign]
    Accelerator.prepare = prepare_and_tell  # type: ignore[method-assign]

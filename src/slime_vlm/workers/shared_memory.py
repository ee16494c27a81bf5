"""Memory that a process shares with a worker, for what is too large for a pipe. It needs Linux.

A pipe is copied twice by the kernel, and both processes wake each other up for every piece of it.
"""

from __future__ import annotations

import mmap
import os

try:
    import fcntl
# Windows.
except ModuleNotFoundError:
    fcntl = None  # type: ignore[assignment]


class SharedMemory:
    """Memory without a name, which another process maps by an inherited file descriptor.

    Args:
        descriptor: The file descriptor. It belongs to this object from now on.

    Attributes:
        descriptor: The file descriptor, -1 once it is closed. The memory stays.
        content: The memory.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.content = memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size))

    @classmethod
    def create(cls, num_bytes: int) -> SharedMemory | None:
        """Create memory of a fixed size, or return None where the system or its policy has none."""
        if fcntl is None or not hasattr(os, "memfd_create"):
            return None
        descriptor = -1
        try:
            descriptor = os.memfd_create("slime", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(descriptor, num_bytes)
            # Reading what the other process has cut off would end this one, and growth would pass its memory limit.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            return cls(descriptor)
        except OSError:
            if descriptor >= 0:
                os.close(descriptor)
            return None

    def close_descriptor(self) -> None:
        """Close the file descriptor, once the other process has it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def close(self) -> None:
        """Let this end go."""
        self.close_descriptor()
        self.content.release()

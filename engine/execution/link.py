"""`Link`: how the host and a device pass things to each other, and how a device repeats a computation.

`CudaLink` never waits but where it says so. `HostLink` is for a device that is the host, so that what is
built on a Link runs, and is tested, without a GPU: a repeated computation writes where it wrote before, and
what is downloaded is copied as late as it may be. Neither knows what it carries.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Replay = Callable[[], Tensor]

NUM_WARM_UPS = 2  # the first may compile and pick kernels; the second allocates as the recorded one will


class Fence(Protocol):
    """A moment in a device's queue."""

    def wait(self) -> None:
        """Block the host until the device has come to it."""
        ...


class Download(Protocol):
    """Tensors on their way to the host."""

    def wait(self) -> list[Tensor]:
        """Block until they are there; the same tensors, in the same order."""
        ...


class Link(Protocol):
    """One host and one device."""

    def staging(self, num_words: int) -> Tensor:
        """int64 memory of the host that the device can read by itself."""
        ...

    def upload(self, source: Tensor, destination: Tensor) -> Fence:
        """Queue a copy from `staging` memory; it may be written again after the fence."""
        ...

    def download(self, tensors: Sequence[Tensor]) -> Download:
        """Begin to copy what is queued to be in `tensors`, beside what is queued after this."""
        ...

    def place(self, numbers: Sequence[int]) -> Tensor:
        """Queue a copy of a few numbers, as int64."""
        ...

    def record(self, compute: Callable[[], Tensor]) -> Replay:
        """Something that computes the same again on the same memory, and returns the same tensor.

        What `compute` reads and returns must stay where it is, and it may not wait for the device.
        """
        ...


class _Passed:
    """A fence that a device without a queue has always come to."""

    def wait(self) -> None:
        return None


class _HostDownload:
    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors

    def wait(self) -> list[Tensor]:
        return [tensor.clone() for tensor in self._tensors]


class HostLink:
    """The device is the host: a `Link` that copies at once, and repeats a computation by calling it."""

    def staging(self, num_words: int) -> Tensor:
        """Ordinary memory."""
        return torch.empty(num_words, dtype=torch.int64)

    def upload(self, source: Tensor, destination: Tensor) -> Fence:
        """Copy."""
        destination.copy_(source)
        return _Passed()

    def download(self, tensors: Sequence[Tensor]) -> Download:
        """Copies are made when they are waited for: what was written over by then was written too early."""
        return _HostDownload(tensors)

    def place(self, numbers: Sequence[int]) -> Tensor:
        """A tensor."""
        return torch.tensor(numbers, dtype=torch.int64)

    def record(self, compute: Callable[[], Tensor]) -> Replay:
        """The function, whose results go where the first of them is; it runs as often as on a GPU."""
        for _ in range(NUM_WARM_UPS):
            compute()
        output = compute()

        def replay() -> Tensor:
            return output.copy_(compute())

        return replay


class _Event:
    def __init__(self) -> None:
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch's own

    def record(self) -> None:
        self._event.record()

    def wait(self) -> None:
        self._event.synchronize()


class _CudaDownload:
    def __init__(self, tensors: list[Tensor], event: _Event) -> None:
        self._tensors = tensors
        self._event = event

    def wait(self) -> list[Tensor]:
        self._event.wait()
        return self._tensors


class CudaLink:
    """Pinned memory, a stream of its own for what goes back, and CUDA graphs in one pool of memory.

    Graphs of one pool may use each other's memory, since they are replayed one after the other on one
    stream. Source: CUDA C++ Programming Guide, "CUDA graphs"; torch.cuda.CUDAGraph.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._back = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch's own
        self._capturing = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch's own
        self._pool = torch.cuda.graph_pool_handle()

    def staging(self, num_words: int) -> Tensor:
        """Pinned memory."""
        return torch.empty(num_words, dtype=torch.int64, pin_memory=True)

    def upload(self, source: Tensor, destination: Tensor) -> Fence:
        """Queue the copy on the stream that computes."""
        destination.copy_(source, non_blocking=True)
        event = _Event()
        event.record()
        return event

    def download(self, tensors: Sequence[Tensor]) -> Download:
        """Copy on the stream for what goes back, once the computing stream has come to where it is now."""
        computing = torch.cuda.current_stream(self._device)
        self._back.wait_stream(computing)
        arrived = []
        event = _Event()
        with torch.cuda.stream(self._back):
            for tensor in tensors:
                host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                arrived.append(host.copy_(tensor, non_blocking=True))
                tensor.record_stream(self._back)  # its memory is not given to others before the copy
            event.record()
        return _CudaDownload(arrived, event)

    def place(self, numbers: Sequence[int]) -> Tensor:
        """Through fresh pinned memory, which the allocator keeps until the copy is done."""
        host = torch.tensor(numbers, dtype=torch.int64, pin_memory=True)
        return host.to(self._device, non_blocking=True)

    def record(self, compute: Callable[[], Tensor]) -> Replay:
        """A CUDA graph of what `compute` launches, after it was run as usual for kernels to be compiled.

        Waits for the device, as capturing happens at start alone.
        """
        self._capturing.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._capturing):
            for _ in range(NUM_WARM_UPS):
                compute()
            self._capturing.synchronize()
            graph = torch.cuda.CUDAGraph()
            # By hand: the context manager of torch collects garbage and empties caches for each graph.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                output = compute()
            finally:
                graph.capture_end()
        torch.cuda.current_stream(self._device).wait_stream(self._capturing)

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay

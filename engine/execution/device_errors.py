"""`device_errors`: what an error of the device means for the process."""

import torch

from engine.errors import EngineCrashedError


class device_errors:  # noqa: N801 - reads as a function at its call sites
    """Turns an error after which the device is of no use into EngineCrashedError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, torch.AcceleratorError):
            raise EngineCrashedError(f"the device failed: {error}") from error

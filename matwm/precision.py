"""Lets the matrix products of training run in bfloat16, and nothing else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def matrix_products(precision: str, device: torch.device) -> Iterator[None]:
    """Run matrix products and convolutions in `precision`, `float32` or `bfloat16`; their operands and results are float32 tensors.

    The forward pass belongs in here, `backward` does not: it goes by the precision of the forward pass. A context keeps the
    rounded weights of their first use, without a gradient if that one had none: enter anew where gradients begin to count.
    """
    if precision == "float32":
        yield
        return
    with torch.autocast(device.type, torch.bfloat16), _Float32Results():
        yield


class _Float32Results(TorchFunctionMode):
    """Gives back in float32 what autocast has computed in bfloat16.

    What autocast leaves alone depends on the device (a softmax of bfloat16 stays bfloat16 on a CPU); so nothing but products sees any.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return result.float() if isinstance(result, Tensor) and result.dtype == torch.bfloat16 else result

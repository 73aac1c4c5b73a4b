"""Launches on a GPU all that a function does at once: hundreds of small kernels take the host longer to launch than the GPU to run."""

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before the recording, in which libraries choose their kernels and take their memory."""


class Cloneable(Protocol):
    """A tensor, or something around one."""

    def clone(self) -> Self:
        """Return the same in memory of its own."""
        ...


OutputT = TypeVar("OutputT", bound=Cloneable)


class Graphed(Generic[OutputT]):
    """A function of named tensors whose kernels are recorded at the first call, as a CUDA graph, and launched together at every call.

    What it does must depend on nothing but tensors, whose values may change and whose shapes and places may not; random draws
    go on as if the function were called.
    """

    def __init__(self, function: Callable[..., OutputT], state: Callable[[], Iterable[Tensor]]) -> None:
        """`state` gives the tensors that the function changes, by which calls before the recording would be noticed."""
        self._function, self._state = function, state
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: dict[str, Tensor] = {}

    def __call__(self, **inputs: Tensor) -> OutputT:
        """Return what the function returns; the host waits only for the recording."""
        graph = self._graph or self._record(inputs)
        for name, tensor in inputs.items():
            assert tensor.shape == self._inputs[name].shape, f"{name} was {self._inputs[name].shape} and is {tensor.shape}"
            self._inputs[name].copy_(tensor)
        graph.replay()
        return self._output.clone()

    def _record(self, inputs: dict[str, Tensor]) -> torch.cuda.CUDAGraph:
        self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        before, draws = [tensor.clone() for tensor in self._state()], torch.cuda.get_rng_state()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._function(**self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = self._function(**self._inputs)
        for tensor, value in zip(self._state(), before, strict=True):
            tensor.copy_(value)
        torch.cuda.set_rng_state(draws)
        return self._graph

"""Says what training state is made of, takes it apart into tensors and plain values, and fingerprints it."""

import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from matwm.arrays import Arrays, escaped, names_in


class Chunk:
    """An immutable stretch of bulk data that checkpoints share, named by the digest of its bytes.

    `digest` is None until the bytes have been computed, written or read once; from then on it never changes.
    A function in place of the arrays is called at every look, so that what lies elsewhere is not held in memory twice.
    """

    def __init__(self, arrays: Arrays | Callable[[], Arrays], digest: str | None = None) -> None:
        self._arrays = arrays
        self.digest = digest

    @property
    def arrays(self) -> Arrays:
        """The data: look once and keep what you get."""
        return self._arrays() if callable(self._arrays) else self._arrays


Value = Tensor | Chunk | bool | int | float | str | None | Mapping[str, "Value"] | Sequence["Value"]
State = Mapping[str, Value]
Plain = bool | int | float | str | None | dict[str, "Plain"] | list["Plain"]
"""What JSON can hold exactly."""


@runtime_checkable
class Stateful(Protocol):
    """Something whose state belongs in a checkpoint. No defaults: a class that forgets to save or to load does not type-check."""

    def state_dict(self) -> State:
        """Return everything that the future depends on and the configuration does not determine."""
        ...

    def load_state_dict(self, state: State, /) -> object:
        """Take over a saved state, copying into existing tensors; raise ValueError if it does not fit."""
        ...


def save_parts(parts: Mapping[str, Stateful]) -> dict[str, State]:
    """Return the state of each part of a checkpoint, in the same order.

    Raises:
        TypeError: one cannot save or cannot load its state.
    """
    for name, part in parts.items():
        if not isinstance(part, Stateful):
            raise TypeError(f"{name} is a {type(part).__qualname__}, which lacks state_dict or load_state_dict: its state would be lost")
    return {name: part.state_dict() for name, part in parts.items()}


def fingerprint(parts: Mapping[str, State]) -> str:
    """Return a digest of exactly this state: of every name, type, shape and bit, but not of the order of mappings."""
    digest = hashlib.sha256()
    _absorb(digest.update, parts, "")
    return digest.hexdigest()


def copied(state: State) -> dict[str, Value]:
    """Return the state with tensors of its own on the CPU, which nobody else changes."""
    return {key: _copied(value) for key, value in state.items()}


def split(state: State) -> tuple[dict[str, Tensor], dict[str, Plain]]:
    """Take a state apart into tensors by path and a rest that JSON can hold exactly: `join` puts it together again.

    The rest keeps every mapping and list; a chunk becomes `{"$chunk": digest}`. In a path, `~1` stands for a slash within a name
    and `~0` for a tilde (as in JSON pointers).

    Raises:
        ValueError: a value has no place in a state, a number is not finite, or a tensor lies in a list.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _split_mapping(state, "", tensors)


def join(tensors: Mapping[str, Tensor], rest: Mapping[str, Plain], open_chunk: Callable[[str], Chunk]) -> dict[str, Value]:
    """Put a state together from what `split` made of it.

    Raises:
        ValueError: a tensor's path leads nowhere, or to a place that is taken.
    """
    state = {key: _revive(value, open_chunk) for key, value in rest.items()}
    for path, tensor in tensors.items():
        *above, name = names_in(path)
        node: Any = state
        for key in above:
            node = node.get(key) if isinstance(node, dict) else None
        if not isinstance(node, dict) or name in node:
            raise ValueError(f"the tensor {path} has no place in the rest of the state")
        node[name] = tensor
    return state


def encode_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of a safetensors file; they depend on the tensors alone."""
    # Copied one by one: safetensors refuses tensors that share memory, as the agents' slices of a stacked weight do.
    return safetensors.torch.save({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()})


def decode_tensors(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        ValueError: it is none.
    """
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"no safetensors file: {error}") from None


def encode_chunk(chunk: Chunk) -> bytes:
    """Return a chunk's bytes, a safetensors file, and note their digest in the chunk.

    Raises:
        ValueError: the chunk has a digest already, of other bytes.
    """
    data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in chunk.arrays.items()})
    digest = hashlib.sha256(data).hexdigest()
    if chunk.digest not in (None, digest):
        raise ValueError(f"a chunk named {chunk.digest} has bytes with the digest {digest}")
    chunk.digest = digest
    return data


def digest_of(chunk: Chunk) -> str:
    """Return the digest of a chunk's bytes, computing them if nobody has."""
    if chunk.digest is None:
        encode_chunk(chunk)
    assert chunk.digest is not None
    return chunk.digest


def chunks_in(value: Value) -> Iterator[Chunk]:
    """Yield every chunk of a state."""
    if isinstance(value, Chunk):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from chunks_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from chunks_in(item)


def _absorb(update: Callable[[Any], None], value: Value, path: str) -> None:
    """Feed a value to a digest; every record starts with its type and length, so that no two values read the same."""
    match value:
        case None:
            update(b"none;")
        case bool():
            update(b"true;" if value else b"false;")
        case int():
            update(b"int %d;" % value)
        case float():
            update(b"float " + struct.pack("<d", value))
        case str():
            data = value.encode("utf-8", "surrogatepass")
            update(b"str %d " % len(data) + data)
        case Tensor():
            update(f"tensor {value.dtype} {list(value.shape)} ".encode())
            update(_bytes(value))
        case Chunk():
            update(b"chunk " + digest_of(value).encode())
        case Mapping():
            update(b"mapping %d " % len(value))
            for key, below in sorted((key, _below(path, key)) for key in value):
                _absorb(update, key, below)
                _absorb(update, value[key], below)
        case list() | tuple():
            update(b"sequence %d " % len(value))
            for number, item in enumerate(value):
                _absorb(update, item, f"{path}/{number}")
        case _:
            raise _not_state(value, path)


def _bytes(tensor: Tensor) -> np.ndarray:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    # With fewer than two elements any stride counts as contiguous, but only 1 can be viewed as bytes.
    flat = flat if flat.stride(0) == 1 else flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy()


def _copied(value: Value) -> Value:
    match value:
        case Tensor():
            return value.detach().to("cpu", copy=True)
        case Mapping():
            return copied(value)
        case list() | tuple():
            return [_copied(item) for item in value]
        case _:
            return value


def _split_mapping(state: State, path: str, tensors: dict[str, Tensor]) -> dict[str, Plain]:
    rest: dict[str, Plain] = {}
    for key, value in state.items():
        below = _below(path, key)
        if isinstance(value, Tensor):
            tensors[below] = value
        else:
            rest[key] = _split(value, below, tensors)
    return rest


def _split(value: Value, path: str, tensors: dict[str, Tensor]) -> Plain:
    match value:
        case float() if not math.isfinite(value):
            raise ValueError(f"{path} of the state is {value}: a plain number must be finite")
        case None | bool() | int() | float() | str():
            return value
        case Chunk():
            return {"$chunk": digest_of(value)}
        case Mapping():
            return _split_mapping(value, path, tensors)
        case list() | tuple():
            return [_split(item, f"{path}/{number}", tensors) for number, item in enumerate(value)]
        case Tensor():
            raise ValueError(f"{path} of the state is a tensor in a list: give it a name in a mapping")
        case _:
            raise _not_state(value, path)


def _revive(value: Plain, open_chunk: Callable[[str], Chunk]) -> Value:
    if isinstance(value, dict):
        if value.keys() == {"$chunk"}:
            return open_chunk(str(value["$chunk"]))
        return {key: _revive(item, open_chunk) for key, item in value.items()}
    if isinstance(value, list):
        return [_revive(item, open_chunk) for item in value]
    return value


def _below(path: str, key: object) -> str:
    """Return the path of a mapping's entry."""
    if not isinstance(key, str) or not key or key.startswith("$") or key == "__metadata__":
        raise ValueError(f"{path or 'the state'} has the key {key!r}: use a text that is not empty, no __metadata__, and begins without $")
    return f"{path}/{escaped(key)}" if path else escaped(key)


def _not_state(value: object, path: str) -> ValueError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return ValueError(f"{path} of the state is a {kind}: use tensors, chunks, bool, int, float, str, None, mappings and lists of them")

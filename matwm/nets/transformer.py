"""A causal post-norm transformer that reads whole windows, or one row at a time through a cache of projected keys and values."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from matwm.nets.attention import as_bias, attend, attend_once, drop_out


@dataclass
class Cache:
    """Projected keys and values of the rows read so far, in storage for all that will be; opaque outside this module."""

    keys: Float[Tensor, "layers cap B D"]
    values: Float[Tensor, "layers cap B D"]
    bias: Float[Tensor, "cap B 1"]
    """Added to the scores: 0, or -inf for left padding."""
    positions: Int[Tensor, " B"]
    """Of the next row: the number of valid rows before it."""
    length: int


def layout(is_first: Bool[Tensor, "B T"], is_valid: Bool[Tensor, "B T"]) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T T"]]:
    """Return each row's position in its episode (from 0 at a window's or episode's start) and what it may attend to.

    A row sees the rows of its own episode up to itself. A padding row sees itself, so that no softmax is empty.
    """
    rows = torch.arange(is_first.shape[1], device=is_first.device)
    previous_valid = F.pad(is_valid[:, :-1], (1, 0), value=False)
    starts = is_first | (is_valid & ~previous_valid)
    segment_start = torch.where(starts, rows, 0).cummax(1).values
    same = segment_start[:, :, None] == segment_start[:, None, :]
    causal = rows[:, None] >= rows[None, :]
    allowed = (same & causal & is_valid[:, None, :]) | torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return rows - segment_start, allowed


class Block(nn.Module):
    """Attention and feed-forward, each followed by dropout, residual and LayerNorm (as STORM)."""

    def __init__(self, hidden_size: int, heads: int, feedforward_multiple: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.project = nn.Linear(hidden_size, hidden_size, bias=False)
        self.norm_attention = nn.LayerNorm(hidden_size, eps=1e-6)
        self.widen = nn.Linear(hidden_size, feedforward_multiple * hidden_size)
        self.narrow = nn.Linear(feedforward_multiple * hidden_size, hidden_size)
        self.norm_feedforward = nn.LayerNorm(hidden_size, eps=1e-6)

    def forward(self, x: Float[Tensor, "B T D"], bias: Float[Tensor, "G T T"]) -> Float[Tensor, "B T D"]:
        """Return the block's output of whole windows."""
        dropout = self.dropout if self.training else 0.0
        return self.finish(x, attend(self.qkv(x), bias, self.heads, dropout), dropout)

    def step(
        self, x: Float[Tensor, "B D"], keys: Float[Tensor, "S B D"], values: Float[Tensor, "S B D"], bias: Float[Tensor, "S B 1"]
    ) -> Float[Tensor, "B D"]:
        """Return the block's output of one row, whose key and value are written to the last place."""
        q, keys[-1], values[-1] = self.qkv(x).chunk(3, -1)
        return self.finish(x, attend_once(q, keys, values, bias, self.heads))

    def finish(self, x: Float[Tensor, "*batch D"], read: Float[Tensor, "*batch D"], dropout: float = 0.0) -> Float[Tensor, "*batch D"]:
        """Return the block's output from its input and what the heads read."""
        x = self.norm_attention(x + drop_out(self.project(read), dropout))
        narrow = self.narrow(F.relu(self.widen(x)))
        return self.norm_feedforward(x + drop_out(narrow, dropout))


class CausalTransformer(nn.Module):
    """Blocks over learned positions; dropout only where whole windows are read in training mode."""

    def __init__(self, hidden_size: int, layers: int, heads: int, feedforward_multiple: int, max_positions: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Embedding(max_positions, hidden_size)
        nn.init.normal_(self.positions.weight, std=0.02)  # one-hot inputs are small: positions of unit size would drown them
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.blocks = nn.ModuleList(Block(hidden_size, heads, feedforward_multiple, dropout) for _ in range(layers))

    def forward(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "B T"], allowed: Bool[Tensor, "B T T"]) -> Float[Tensor, "B T D"]:
        """Return the hidden state after each row.

        Raises:
            ValueError: the window is longer than the table of positions.
        """
        self._check_length(x.shape[1])
        x = self.norm(x + self.positions(positions))
        bias = as_bias(allowed, self.heads)
        for block in self._blocks():
            x = block(x, bias)
        return x

    @torch.no_grad()
    def prefill(self, x: Float[Tensor, "B T D"], is_valid: Bool[Tensor, "B T"], capacity: int) -> tuple[Float[Tensor, "B D"], Cache]:
        """Read a left-padded context of one episode a row; return its last hidden state and the cache for `capacity` rows in all.

        Without any row the hidden state is zero. Above the last block's keys and values only the last row is computed.

        Raises:
            ValueError: the capacity exceeds the table of positions.
        """
        self._check_length(capacity)
        batch, length, hidden = x.shape
        keys, values = x.new_empty(2, len(self.blocks), capacity, batch, hidden)
        bias = x.new_zeros(capacity, batch, 1)
        bias[:length, :, 0].masked_fill_(~is_valid.T, float("-inf"))
        cache = Cache(keys, values, bias, is_valid.sum(1), length)
        if length == 0:
            return x.new_zeros(batch, hidden), cache
        positions, allowed = layout(torch.zeros_like(is_valid), is_valid)
        x = self.norm(x + self.positions(positions))
        window_bias = as_bias(allowed, self.heads)
        *lower, top = self._blocks()
        for number, block in enumerate(lower):
            qkv = block.qkv(x)
            _, keys[number, :length], values[number, :length] = qkv.transpose(0, 1).chunk(3, -1)
            x = block.finish(x, attend(qkv, window_bias, self.heads))
        of_query, of_memory = top.qkv.weight.split([hidden, 2 * hidden])
        top_keys, top_values = keys[-1, :length], values[-1, :length]
        top_keys[:], top_values[:] = F.linear(x, of_memory).transpose(0, 1).chunk(2, -1)
        last = x[:, -1]
        own_bias = torch.zeros(length, batch, 1, device=x.device).masked_fill_(~allowed[:, -1].T.unsqueeze(-1), float("-inf"))
        read = attend_once(F.linear(last, of_query), top_keys, top_values, own_bias, self.heads)
        return top.finish(last, read), cache

    @torch.no_grad()
    def step(self, x: Float[Tensor, "B D"], cache: Cache) -> Float[Tensor, "B D"]:
        """Read one more row of every sequence, in place in the cache; return its hidden state."""
        past = cache.length + 1
        x = self.norm(x + self.positions(cache.positions))
        for number, block in enumerate(self._blocks()):
            x = block.step(x, cache.keys[number, :past], cache.values[number, :past], cache.bias[:past])
        cache.length = past
        cache.positions = cache.positions + 1
        return x

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    def _check_length(self, length: int) -> None:
        if length > self.positions.num_embeddings:
            raise ValueError(f"a sequence of {length} rows exceeds max_positions = {self.positions.num_embeddings}")

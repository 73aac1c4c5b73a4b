"""Computes segment keys: which training a checkpoint, a run or a segment of params.yaml is."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def segment_key(numerics: int, shaping: Mapping[str, Any], parent_digest: str) -> str:
    """Digest what decides every number that a segment trains to; how far it trains is no part of that."""
    text = json.dumps([numerics, shaping, parent_digest], sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def manifest_key(manifest: Mapping[str, Any]) -> str:
    """Return the key of the segment that made a checkpoint, from the checkpoint's manifest alone."""
    return segment_key(manifest["numerics"], manifest["config"], manifest["parent"]["digest"])

"""Makes policies one file that runs without MATWM: with torch alone (`pt2`), or with ONNX Runtime alone (`onnx`).

Beside the program the file holds, as JSON under the name `matwm`, what its user must know: of which checkpoint it is, the agents in the
order of the second axis, and name, shape, type and first value of every input (see docs/recipes/policy.md for how to use it).
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from matwm.checkpoint import Checkpoint
from matwm.errors import UserError
from matwm.policy import load_networks
from matwm.program import ActingProgram

METADATA = "matwm"
OUTPUTS = ("action", "log_probs", "new_probs", "new_action", "new_rows")
FIRST = {"action_mask": True, "is_first": True, "uniform": 0.5}
"""The values with which an episode can begin, of inputs that do not begin with zeros."""


def export(checkpoint: Checkpoint, form: str, *, agents: Sequence[str] = (), run_id: str | None = None) -> tuple[bytes, dict[str, Any]]:
    """Return a file with the policies of these agents, or of all, and what it says of itself; `form` is one of `FORMATS`.

    Raises:
        UserError: there is no such agent, a file of the checkpoint is damaged, or what ONNX needs is not installed.
    """
    if form == "onnx" and not all(map(find_spec, ("onnx", "onnxscript"))):
        raise UserError('onnx and onnxscript are not installed: pip install -c constraints.txt -e ".[export]"')
    names, spec = list(agents or checkpoint.spec.agents), checkpoint.spec
    if unknown := [name for name in names if name not in spec.agents]:
        raise UserError(f"{checkpoint.path} has no agent {unknown[0]!r}: it has {', '.join(spec.agents)}")
    networks, numbers = load_networks(checkpoint, names), [spec.agents.index(name) for name in names]
    program = ActingProgram(networks.world_model, networks.actors, numbers, networks.acting_context).eval()
    program.autoencoder.decoder = nn.Identity()  # Nobody calls it, but it would be in the file.
    example = program.inputs(spec, 2)  # torch would take a batch of 1 for the only one
    about = _about(checkpoint, numbers, example, run_id)
    batch = torch.export.Dim("batch")
    with _quiet():
        exported = torch.export.export(program, (), example, dynamic_shapes={name: {0: batch} for name in example})
        return FORMATS[form](exported, json.dumps(about, indent=1)), about


def _as_pt2(exported: ExportedProgram, about: str) -> bytes:
    file = io.BytesIO()
    torch.export.save(exported, file, extra_files={METADATA: about})
    return file.getvalue()


def _as_onnx(exported: ExportedProgram, about: str) -> bytes:
    made = torch.onnx.export(exported, (), dynamo=True, output_names=list(OUTPUTS), verbose=False)
    assert made is not None
    made.model.metadata_props[METADATA] = about
    return made.model_proto.SerializeToString()


FORMATS: dict[str, Callable[[ExportedProgram, str], bytes]] = {"pt2": _as_pt2, "onnx": _as_onnx}


def _about(checkpoint: Checkpoint, numbers: Sequence[int], example: Mapping[str, torch.Tensor], run_id: str | None) -> dict[str, Any]:
    spec = checkpoint.spec
    told = [spec.agent_specs[number] for number in numbers]
    return {
        "run_id": run_id,
        "step": checkpoint.step,
        "digest": checkpoint.digest,
        "environment": checkpoint.config["env"],
        "agents": [
            {
                "name": agent.name,
                "role": agent.role,
                "observation": list(agent.obs_shape),
                "num_actions": agent.num_actions,
                "has_action_mask": agent.has_action_mask,
            }
            for agent in told
        ],
        "inputs": {
            name: {
                "shape": ["batch", *tensor.shape[1:]],
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "first": FIRST.get(name, 0),
            }
            for name, tensor in example.items()
        },
        "outputs": list(OUTPUTS),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters say of themselves to themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

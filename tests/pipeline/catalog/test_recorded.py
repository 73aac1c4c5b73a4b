"""What is here, beside what dvc.lock says of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.version import NUMERICS
from pipeline.catalog.recorded import LockedStage, RecordError


@pytest.mark.parametrize(
    ("locked", "params", "words"),
    [
        ({"env": {"name": "a"}}, {"env": {"name": "b"}}, "env.name is 'b', but dvc.lock says that s00 was trained with 'a'"),
        ({"device": None}, {}, "device is absent, but dvc.lock says that s00 was trained with None"),
        ({"device": "cpu"}, {}, "device is absent, but dvc.lock says that s00 was trained with 'cpu'"),
        ({"env": {"size": None}}, {"env": {}}, "env is {}, but dvc.lock says that s00 was trained with {'size': None}"),
    ],
)
def test_a_parameter_that_dvc_would_train_again_for_is_named(
    tmp_path: Path, locked: dict[str, Any], params: dict[str, Any], words: str
) -> None:
    entry = {
        "cmd": "train",
        "params": {"matwm/version.py": {"NUMERICS": NUMERICS}, "params.yaml": locked},
        "outs": [{"path": "checkpoints/s00", "md5": "0.dir"}],
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"train@s00": entry}}), encoding="utf-8")
    stage = LockedStage(tmp_path, "s00")
    stage.check_params(locked, NUMERICS)
    with pytest.raises(RecordError) as caught:
        stage.check_params(params, NUMERICS)
    assert str(caught.value).startswith(f"params.yaml: {words}: restore it")

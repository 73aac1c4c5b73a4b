"""The benchmark of a GPU says where there is none, and times whole steps of training."""

import importlib
import subprocess
import sys

import pytest
import torch

from benchmarks.learning import REPOSITORY


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_it_says_so_in_one_sentence():
    done = subprocess.run([sys.executable, "benchmarks/gpu.py"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"torch {torch.__version__} sees no CUDA device here: there is nothing to measure\n"
    assert not done.stdout


def test_a_way_is_a_configuration_and_a_measurement_has_its_figures(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    gpu = importlib.import_module("gpu")
    graphed = gpu.config_of("paper", "compiled and graphed", "bfloat16").run
    assert (graphed.device, graphed.precision, graphed.cuda_graphs) == ("cuda", "bfloat16", True)
    assert not gpu.config_of("paper", "compiled", "float32").run.cuda_graphs
    found = gpu.measure(gpu.config_of("ci-tiny", "eager", "float32", "cpu"), 4, is_compiled=False)
    assert found["environment"] == "simple_tag_v3"
    assert 0 < found["steps_per_second"] < 1e6

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matwm.arrays import decode_arrays
from matwm.stateful import (
    Chunk,
    chunks_in,
    decode_tensors,
    digest_of,
    encode_chunk,
    encode_tensors,
    fingerprint,
    join,
    save_parts,
    split,
)

SOURCE = Path(__file__).parents[2]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int16, torch.uint8, torch.bool)


def no_chunk(digest):
    raise AssertionError(digest)


names = st.text(st.sampled_from("ab/~01.é"), min_size=1, max_size=4)
tensors = st.builds(
    lambda seed, shape, dtype: torch.from_numpy(np.random.default_rng(seed).integers(0, 2, shape)).to(dtype),
    st.integers(0, 2**30),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
plain_trees = st.recursive(plain, lambda below: st.lists(below, max_size=3) | st.dictionaries(names, below, max_size=3), max_leaves=8)
states = st.dictionaries(
    names, st.recursive(plain_trees | tensors, lambda below: st.dictionaries(names, below, max_size=3), max_leaves=8), max_size=4
)


# ---- split and join


@settings(deadline=None, max_examples=150)
@given(states)
def test_a_state_survives_being_taken_apart_into_files(state):
    import json

    found, rest = split(state)
    again = join(decode_tensors(encode_tensors(found)), json.loads(json.dumps(rest)), no_chunk)
    assert fingerprint({"x": again}) == fingerprint({"x": state})


def test_paths_and_rest_look_as_documented():
    one, two = torch.ones(1), torch.zeros(2)
    chunk = Chunk({"a": np.zeros(2)}, "d" * 64)
    found, rest = split({"net": {"layer/0.weight": one, "b~": two, "n": 3}, "list": (1, [None, chunk]), "empty": {}})
    assert {path: tensor.shape for path, tensor in found.items()} == {"net/layer~10.weight": (1,), "net/b~0": (2,)}
    assert rest == {"net": {"n": 3}, "list": [1, [None, {"$chunk": "d" * 64}]], "empty": {}}


def test_join_gives_chunks_back_through_the_caller():
    chunk = Chunk({"a": np.arange(3)})
    _, rest = split({"replay": {"chunks": [chunk, chunk]}})
    opened = []
    again = join({}, rest, lambda digest: opened.append(digest) or chunk)
    assert opened == [chunk.digest] * 2
    assert list(chunks_in(again)) == [chunk, chunk]


@pytest.mark.parametrize("path", ["b", "a/b/c", "a/n/x", "a/n", "a/list/0", "b/c"])
def test_a_tensor_whose_place_is_not_there_or_taken_is_refused(path):
    rest = {"a": {"n": 1, "list": [2]}}
    if path == "b":
        assert join({path: torch.ones(1)}, rest, no_chunk)["b"] == 1
    else:
        with pytest.raises(ValueError, match=f"the tensor {path} has no place"):
            join({path: torch.ones(1)}, rest, no_chunk)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"a": {"b": float("nan")}}, "a/b of the state is nan: a plain number must be finite"),
        ({"a": [1.0, float("-inf")]}, "a/1 of the state is -inf"),
        ({"a": [torch.ones(1)]}, "a/0 of the state is a tensor in a list: give it a name"),
        ({"a": np.ones(1)}, "a of the state is a numpy.ndarray: use tensors"),
        ({"a": np.int64(1)}, "a of the state is a numpy.int64"),
        ({"a": {1, 2}}, "a of the state is a builtins.set"),
        ({"a": b"x"}, "a of the state is a builtins.bytes"),
        ({"a": {3: 1}}, "a has the key 3"),
        ({"": 1}, "the state has the key ''"),
        ({"a": {"$chunk": "x"}}, "a has the key '\\$chunk'"),
        ({"__metadata__": torch.ones(1)}, "the state has the key '__metadata__'"),
    ],
)
def test_what_has_no_place_in_a_state_is_named(state, sentence):
    with pytest.raises(ValueError, match=sentence):
        split(state)


def test_the_fingerprint_refuses_unknown_values_too():
    with pytest.raises(ValueError, match=r"part/a of the state is a numpy\.ndarray"):
        fingerprint({"part": {"a": np.ones(1)}})


# ---- bytes


def test_the_bytes_of_tensors_do_not_depend_on_their_order_or_memory():
    base = torch.arange(12.0).reshape(3, 4)
    spread = torch.zeros(4, 6)[:, ::2].T.copy_(base)
    assert not spread.is_contiguous()
    one = encode_tensors({"a": base, "b": base[0], "c": torch.tensor(2), "d": torch.zeros(0, 2)})
    two = encode_tensors({"d": torch.zeros(0, 2), "c": torch.tensor(2), "b": spread[0], "a": torch.nn.Parameter(spread)})
    assert one == two


def test_tensors_of_no_dimension_and_no_element_survive_exactly():
    state = {
        "step": torch.tensor(3.0),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "low": torch.tensor([1.5], dtype=torch.bfloat16),
    }
    again = decode_tensors(encode_tensors(state))
    assert {name: (t.shape, t.dtype) for name, t in again.items()} == {name: (t.shape, t.dtype) for name, t in state.items()}
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    assert decode_tensors(encode_tensors({})) == {}


@pytest.mark.parametrize("decode", [decode_tensors, decode_arrays])
@pytest.mark.parametrize("data", [b"", b"x" * 50, encode_tensors({"a": torch.ones(9)})[:-1]])
def test_other_bytes_are_no_safetensors_file(decode, data):
    with pytest.raises(ValueError, match="no safetensors file"):
        decode(data)


def test_a_chunk_is_named_by_its_bytes_once():
    arrays = {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "b": np.zeros((2, 0), bool)}
    chunk, spread = Chunk(arrays), Chunk({"b": arrays["b"], "a": np.asfortranarray(arrays["a"])})
    data = encode_chunk(chunk)
    assert encode_chunk(spread) == data
    assert chunk.digest == spread.digest == digest_of(Chunk(arrays))
    again = decode_arrays(data)
    assert all(np.array_equal(again[name], array) and again[name].dtype == array.dtype for name, array in arrays.items())
    with pytest.raises(ValueError, match="has bytes with the digest"):
        encode_chunk(Chunk({"a": np.zeros(1)}, chunk.digest))


def test_a_chunk_may_fetch_its_arrays_when_they_are_looked_at():
    looks = []
    chunk = Chunk(lambda: looks.append(1) or {"a": np.arange(3)})
    assert not looks
    digest = digest_of(chunk)
    assert digest_of(chunk) == digest == digest_of(Chunk({"a": np.arange(3)}))
    assert len(looks) == 1


# ---- fingerprint


def test_values_that_differ_in_any_bit_have_different_fingerprints():
    one = torch.tensor([1.0])
    texts = ["", "1", "None", "é", "e\u0301", "\ud800"]
    numbers = [None, True, False, 0, 1, -1, 10**30, 0.0, -0.0, 1.0, 1e30]
    trees = [[], {}, [1], [[1]], [1, 2], ["1", "2"], ["12"], {"a": 1}, {"a": {"a": 1}}, {"b": 1}]
    shapes = [one, one.int() * 0, one.reshape(()), one.reshape(1, 1), torch.zeros(0), torch.zeros(0, 1)]
    elements = [one.double(), one.long(), one.bool(), -one, torch.nextafter(one, one + 1), torch.tensor([0.0]), torch.tensor([-0.0])]
    chunks = [Chunk({"a": np.zeros(1)}), Chunk({"a": np.zeros(1, np.float32)}), Chunk({"b": np.zeros(1)})]
    values = [*texts, *numbers, *trees, *shapes, *elements, *chunks]
    digests = [fingerprint({"part": {"value": value}}) for value in values]
    assert len(set(digests)) == len(values)


def test_the_fingerprint_sees_names_and_parts():
    state = {"a": 1, "b": torch.ones(2)}
    digests = {fingerprint({"p": state}), fingerprint({"q": state}), fingerprint({"p": state, "q": {}}), fingerprint({"p": {"a": state}})}
    assert len(digests) == 4


@settings(deadline=None, max_examples=50)
@given(states)
def test_the_fingerprint_does_not_depend_on_the_order_of_mappings(state):
    def turned(value):
        return {key: turned(item) for key, item in reversed(value.items())} if isinstance(value, dict) else value

    assert fingerprint({"p": state, "q": {}}) == fingerprint({"q": {}, "p": turned(state)})


def test_tuples_and_lists_are_one_kind_since_json_knows_one():
    assert fingerprint({"p": {"a": (1, (2,))}}) == fingerprint({"p": {"a": [1, [2]]}})


def test_another_process_with_other_hashes_finds_the_same_fingerprint():
    program = (
        "import numpy as np, torch; from matwm.stateful import Chunk, fingerprint; keys = set('abcdefgh');"
        "state = {key: torch.full((2,), float(ord(key))) for key in keys}; chunk = Chunk({key: np.ones(2) for key in keys});"
        "print(fingerprint({'p': state, 'q': {'c': [chunk]}}), end='')"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    state, chunk = {key: torch.full((2,), float(ord(key))) for key in "abcdefgh"}, Chunk({key: np.ones(2) for key in "abcdefgh"})
    assert run.stdout == fingerprint({"p": state, "q": {"c": [chunk]}})


def test_odd_strides_of_short_tensors_do_not_matter():
    for odd in (torch.ones(()).expand(1), torch.zeros(3, 0)[0], torch.ones(1, 3)[:, 1:2]):
        assert fingerprint({"p": {"a": odd}}) == fingerprint({"p": {"a": odd.clone(memory_format=torch.contiguous_format)}})
        assert encode_tensors({"a": odd}) == encode_tensors({"a": odd.clone(memory_format=torch.contiguous_format)})


class Forgetful:
    """It saves and cannot load."""

    def state_dict(self):
        return {"value": 1}


def test_parts_are_what_can_save_and_load():
    module = torch.nn.Linear(2, 1)
    assert list(save_parts({"b": module, "a": module})) == ["b", "a"]
    assert save_parts({"one": module})["one"].keys() == {"weight", "bias"}
    with pytest.raises(TypeError, match="two is a Forgetful, which lacks state_dict or load_state_dict"):
        save_parts({"one": module, "two": Forgetful()})  # pyright: ignore[reportArgumentType]


def test_the_type_checker_refuses_a_part_that_cannot_save_or_load(tmp_path):
    saves = "    def state_dict(self) -> State: return {}\n"
    loads = "    def load_state_dict(self, state: State, /) -> None: ...\n"
    code = "from matwm.stateful import State, save_parts\n"
    for name, body in {"Saves": saves, "Loads": loads, "Both": saves + loads}.items():
        code += f"class {name}:\n{body}save_parts({{'part': {name}()}})\n"
    (tmp_path / "part.py").write_text(code, encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({"extraPaths": [str(SOURCE)], "typeCheckingMode": "standard"}), encoding="utf-8"
    )
    command = [sys.executable, "-m", "basedpyright", "--project", str(tmp_path), "--pythonpath", sys.executable, str(tmp_path / "part.py")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path).stdout
    assert [name for name in ("Saves", "Loads", "Both") if f'"{name}" is incompatible with protocol "Stateful"' in found] == [
        "Saves",
        "Loads",
    ]
    assert "2 errors" in found, found

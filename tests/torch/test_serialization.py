"""Tensors in files, pickles and copies, and the ways out that are refused with torch's own words."""

from __future__ import annotations

import copy
import io
import pickle

import numpy
import pytest
import torch
from torch import nn


def saved(value, **options) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file, **options)
    file.seek(0)
    return file


def trained(device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).to(device)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(2, 3, device=device)).pow(2).sum().backward()
    optimizer.step()
    return module, optimizer


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_save_and_load(device, zipped):
    x = torch.randn(3, 4).to(device)
    value = {"x": x, "view": x[1:], "parameter": nn.Parameter(x.clone()), "bool": x > 0, "half": x.bfloat16()}

    def load(**options):
        return torch.load(saved(value, _use_new_zipfile_serialization=zipped), weights_only=True, **options)

    for where, options in (
        (device, {}),
        (torch.device("cpu"), {"map_location": "cpu"}),
        (device, {"map_location": {str(device): str(device)}}),
    ):
        found = load(**options)
        assert all(t.device == where for t in found.values())
        assert all(torch.equal(t.cpu(), value[name].cpu()) for name, t in found.items())
        found["x"][1, 0] = 7  # the view still shares its memory
        assert found["view"][0, 0].item() == 7
        assert isinstance(found["parameter"], nn.Parameter)


def test_mapped_files(device, tmp_path):
    x = torch.randn(3, 4)
    for origin, where in ((device, "cpu"), ("cpu", device), (device, None)):
        torch.save({"x": x.to(origin)}, tmp_path / "file.pt")
        found = torch.load(tmp_path / "file.pt", mmap=True, map_location=where, weights_only=True)["x"]
        assert found.device == torch.device(where or device)
        assert torch.equal(found.cpu(), x)
    with torch.device("meta"):
        module = nn.Linear(4, 3)
    torch.save(nn.Linear(4, 3).to(device).state_dict(), tmp_path / "module.pt")
    module.load_state_dict(torch.load(tmp_path / "module.pt", mmap=True), assign=True)
    assert module(torch.ones(1, 4, device=device)).shape == (1, 3)


@pytest.mark.remote
def test_a_device_that_is_not_open_is_named(device):
    with pytest.raises(Exception, match=r"sky:7 is not open"):
        torch.load(saved(torch.ones(2)), map_location="sky:7")


def test_pickle_and_deepcopy(device):
    module, optimizer = trained(device)
    for again in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        x = torch.randn(4, 3, device=device, requires_grad=True)
        y = again(x)
        assert y.device == device
        assert y.requires_grad
        assert torch.equal(x, y)
        (first, second) = again((module, optimizer))
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), first.parameters(), strict=True))
        states = zip(optimizer.state.values(), second.state.values(), strict=True)
        assert all(torch.equal(a["exp_avg"], b["exp_avg"]) and b["exp_avg"].device == device for a, b in states)
        lstm = again(nn.LSTM(2, 3).to(device))
        assert lstm(torch.ones(1, 2, device=device))[0].shape == (1, 3)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(x * 2)


def test_safetensors(device, tmp_path):
    from safetensors.torch import load_file, load_model, save_file, save_model

    x, file = torch.randn(3, 4).to(device), tmp_path / "x.safetensors"
    save_file({"x": x}, file)
    where = device if device.type == "cpu" else device.index  # it knows no device named sky; a number means ours
    found = load_file(file, device=where if isinstance(where, int) else "cpu")["x"]
    assert found.device == device
    assert torch.equal(found, x)
    module, other = nn.Linear(3, 2).to(device), nn.Linear(3, 2).to(device)
    save_model(module, tmp_path / "m.safetensors")
    load_model(other, tmp_path / "m.safetensors")
    assert torch.equal(module.weight, other.weight)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_distributed_checkpoint(device, tmp_path):
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    (module, optimizer), (other, second) = trained(device), trained(device)
    model_state, optimizer_state = get_state_dict(module, optimizer)
    checkpoint.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=tmp_path / "now")
    checkpoint.async_save({"model": model_state}, checkpoint_id=tmp_path / "later").result()
    with torch.no_grad():
        other[0].weight.zero_()
    for folder, parts in (("later", ["model"]), ("now", ["model", "optimizer"])):
        state = dict(zip(["model", "optimizer"], get_state_dict(other, second), strict=True))
        wanted = {name: state[name] for name in parts}
        checkpoint.load(wanted, checkpoint_id=tmp_path / folder)
        state.update(wanted)
        set_state_dict(other, second, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        assert torch.equal(module[0].weight, other[0].weight)
    ours, theirs = optimizer.state[module[0].weight], second.state[other[0].weight]
    assert torch.equal(ours["exp_avg"], theirs["exp_avg"])
    assert theirs["exp_avg"].device == device


def test_storages(device):
    x = torch.arange(4, dtype=torch.uint8, device=device)
    storage = x.untyped_storage()
    assert storage.device == device
    assert storage.nbytes() == 4
    assert list(storage.cpu()) == [0, 1, 2, 3]
    assert list(storage.clone().cpu()) == [0, 1, 2, 3]
    assert storage[2] == 2
    other = torch.zeros(4, dtype=torch.uint8, device=device)
    other.untyped_storage().copy_(storage)
    assert torch.equal(other, x)


@pytest.mark.remote
def test_ways_out_that_torch_refuses(device):
    x = torch.ones(3, device=device)
    refusal = r"can't convert sky:\d+ device type tensor to numpy\. Use Tensor\.cpu\(\)"
    for way in (x.numpy, lambda: numpy.asarray(x), lambda: numpy.sqrt(x)):
        with pytest.raises(TypeError, match=refusal):
            way()
    assert x.numpy(force=True).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="Unknown device type sky for Dlpack"):
        torch.from_dlpack(x)
    with pytest.raises((RuntimeError, BufferError, ValueError)):
        numpy.from_dlpack(x)
    with pytest.raises(RuntimeError, match="cannot pin"):
        x.pin_memory()
    with pytest.raises(AttributeError, match="__cuda_array_interface__"):
        _ = x.__cuda_array_interface__
    assert torch.from_dlpack(numpy.ones(3, dtype=numpy.float32), device=device).device == device


@pytest.mark.remote
def test_a_pointer_into_the_middle_names_no_storage(device):
    """Another tensor's placeholder may begin there: what came through DLPack's capsule is refused, not misread."""
    x = torch.arange(1 << 18, device=device)
    borrowed = torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x[1 << 17 :]))
    with pytest.raises(RuntimeError, match="storage is not one of a sky device"):
        borrowed.cpu()

"""Views are local metadata: they must share storage, keep the base's version and cost no bytes on the wire."""

from __future__ import annotations

import pytest
import torch

VIEWS = {
    "view": lambda x: x.view(6, 4),
    "view_infer": lambda x: x.view(-1),
    "as_strided": lambda x: x.as_strided((2, 3), (7, 2), 3),
    "transpose": lambda x: x.transpose(0, 2),
    "permute": lambda x: x.permute(2, 0, 1),
    "T": lambda x: x[0].T,
    "slice": lambda x: x[:, 1:, ::2],
    "select": lambda x: x[1, :, 2],
    "negative_index": lambda x: x[-1, -2:],
    "ellipsis_none": lambda x: x[..., None, 0],
    "narrow": lambda x: x.narrow(2, 1, 2),
    "expand": lambda x: x[:, :1].expand(2, 5, 4),
    "broadcast_to": lambda x: torch.broadcast_to(x[0, 0], (3, 4)),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "diagonal": lambda x: x.diagonal(dim1=1, dim2=2),
    "unfold": lambda x: x.unfold(2, 2, 1),
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: x.unflatten(2, (2, 2)),
    "detach": lambda x: x.detach(),
    "alias": lambda x: torch.ops.aten.alias(x),
    "movedim": lambda x: x.movedim(0, -1),
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "view_dtype": lambda x: x.view(torch.int32),
    "view_dtype_narrower": lambda x: x.view(torch.int16),
    "reshape_of_contiguous": lambda x: x.reshape(4, 6),
    "real_of_complex": lambda x: torch.view_as_complex(x.view(2, 3, 2, 2)).imag,
}


@pytest.mark.parametrize("name", VIEWS)
def test_view_reads_and_writes_the_base(same_on_both, name):
    def program(device):
        x = torch.arange(24.0, device=device).reshape(2, 3, 4)
        view = VIEWS[name](x)
        before = view.clone()
        version = x._version
        if name not in (
            "expand",
            "broadcast_to",
            "unfold",
        ):  # these overlap themselves: torch refuses to write to them
            view.fill_(1)
        return [before, x, view, x._version - version, view._is_view(), view.is_contiguous()]

    same_on_both(program)


@pytest.mark.parametrize("name", VIEWS)
def test_view_shares_storage(device, name):
    x = torch.arange(24.0, device=device).reshape(2, 3, 4)
    view = VIEWS[name](x)
    assert view.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_lists_of_views(same_on_both):
    def program(device):
        x = torch.arange(24.0, device=device).reshape(4, 6)
        for part in (*x.split(2), *x.chunk(3, dim=1), *x.unbind(0), *x.tensor_split(2, dim=1), *x.hsplit(2)):
            part.mul_(1.5)
        return [x, x.split([2, 4], dim=1), x.chunk(4)]

    same_on_both(program)


def test_reshape_copies_when_it_must(same_on_both):
    def program(device):
        x = torch.arange(12.0, device=device).reshape(3, 4)
        copied = x.t().reshape(12)
        copied.zero_()
        return [x, copied, x.t().contiguous(), x.t().contiguous(memory_format=torch.contiguous_format)]

    same_on_both(program)


def test_views_with_grad(same_on_both):
    def program(device):
        x = torch.arange(24.0, device=device).reshape(4, 6).requires_grad_()
        y = x.view(2, 12)[:, 3:9].transpose(0, 1).unsqueeze(0).expand(3, -1, -1)
        (y * y).sum().backward()
        return [x.grad, y]

    same_on_both(program)


def test_view_of_inference_tensor(same_on_both):
    def program(device):
        with torch.inference_mode():
            x = torch.arange(6.0, device=device)
            return [x.view(2, 3) + 1, x[2:]]

    same_on_both(program)


@pytest.mark.remote
def test_views_cost_no_bytes(compute):
    x = torch.arange(24.0, device=compute.device()).reshape(2, 3, 4)
    torch.sky.synchronize()
    before = compute.stats()
    kept = [view(x) for view in VIEWS.values()]
    after = compute.stats()
    assert len(kept) == len(VIEWS)
    assert after["ops"] == before["ops"]
    assert after["op_bytes_sent"] == before["op_bytes_sent"]


def test_storage_resize_and_set(same_on_both):
    def program(device):
        x = torch.arange(8.0, device=device)
        y = torch.empty(0, device=device)
        y.set_(x.untyped_storage(), 2, (2, 3), (3, 1))
        y.add_(10)
        x.resize_(3)
        z = torch.ones(4, device=device)
        z.untyped_storage().resize_(32)
        z.set_(z.untyped_storage(), 0, (8,))
        z[4:] = 2
        freed = torch.ones(5, device=device)
        freed.untyped_storage().resize_(0)
        return [x, y, z, freed.untyped_storage().nbytes()]

    same_on_both(program)


def test_storage_grows_keeps_contents(same_on_both):
    def program(device):
        x = torch.arange(4.0, device=device)
        x.resize_(2, 4)
        x[1] = 9
        return x

    same_on_both(program)


def test_median_of_an_expanded_tensor(same_on_both):
    def program(device):
        wide = torch.arange(6.0).reshape(2, 3).to(device).expand(4, 2, 3)
        return wide.median(), *wide.nanmedian(-1)

    same_on_both(program)


def test_median_along_the_expanded_dimension(device):
    """Torch's own kernel reads outside of the tensor here (2.15); nothing to compare with."""
    wide = torch.arange(6.0).reshape(2, 3).to(device).expand(4, 2, 3)
    if device.type == "sky":
        assert torch.equal(wide.median(0).values.cpu(), torch.arange(6.0).reshape(2, 3))


def test_results_lie_as_on_the_cpu(same_on_both):
    """Operators whose results are contiguous whatever lies before them, and those that LAPACK leaves by columns."""

    def program(device):
        turned = torch.arange(12.0).reshape(3, 4).to(device).t()
        values, vectors = torch.linalg.eig(torch.eye(3, device=device) * 2)
        image = torch.arange(72.0).reshape(1, 2, 6, 6).to(device).to(memory_format=torch.channels_last)
        pooled, places = torch.nn.functional.max_pool2d(image, 2, return_indices=True)
        return (
            torch.nn.functional.logsigmoid(turned),
            values,
            vectors,
            torch.nn.functional.max_unpool2d(pooled, places, 2),
        )

    same_on_both(program)

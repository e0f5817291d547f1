"""A session whose newest storage id lies beyond 32 bits, as after 10^10 operators, and at the end of 64.

The id is made through the wire's C table, as the device does it. Ids travel as their distance to the newest, so from
then on every record of the torch program holds distances that wide.
"""

from __future__ import annotations

import ctypes

import pytest
import torch
from servers import local_compute
from skytorch import _wire
from test_waits import OK, Error, function

pytestmark = pytest.mark.remote


def program(device: torch.device) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model, x = torch.nn.Linear(4, 4).to(device), torch.arange(8.0, device=device).view(2, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return [model.weight.detach().cpu(), x.nonzero().cpu(), torch.stack([x[0] * n for n in range(50)]).cpu()]


@pytest.mark.slow
def test_storage_ids_beyond_32_bits() -> None:
    pointer, u32, u64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
    api, kind, error = _wire.client_api(), ctypes.CFUNCTYPE, Error()
    lock = function(api, "lock", kind(u32, pointer, pointer))
    unlock = function(api, "unlock", kind(None, pointer))
    alloc = function(api, "alloc", kind(u32, pointer, u64, u64, u32, pointer))
    expected = program(torch.device("cpu"))
    with local_compute("large-ids") as (node, _):
        session, device = node._link._session.pointer, node.device()
        old = torch.ones(3, device=device)
        for newest in (1 << 33, 1 << 40, (1 << 63) + 5):
            assert lock(session, ctypes.byref(error)) == OK, error.message
            code = alloc(session, newest, 16, 0, ctypes.byref(error))
            unlock(session)
            assert code == OK, error.message
            for got, wanted in zip(program(device), expected, strict=True):
                torch.testing.assert_close(got, wanted)
            assert old.tolist() == [1, 1, 1]

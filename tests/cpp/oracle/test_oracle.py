"""The shape oracle against what the CPU really returns, over torch's own samples and whole training steps."""

from __future__ import annotations

import threading
import warnings
from types import ModuleType
from typing import Any

import pytest
import torch
from survey import Survey, load_probe, run_errors, run_programs, run_samples

# Operators whose strides torch's own Meta kernels get wrong, or that depend on what oneDNN or MKL choose.
OTHER_STRIDES = {
    "aten::convolution",
    "aten::convolution_backward",
    "aten::max_unpool2d",
}

# Refused by the device alone, because of values: indices out of range, probabilities that are none.
REFUSED_LATE = {"aten::gather", "aten::gather.out", "aten::multinomial", "aten::scatter.src", "aten::scatter_add"}

# May be answered neither by torch's slow Meta kernels nor by a round trip: a transformer's and a convolutional
# network's training and decoding.
HOT_NAMES = """
add.Tensor add.Scalar add_.Tensor sub.Tensor mul.Tensor mul.Scalar div.Tensor div.Scalar pow.Tensor_Scalar rsqrt mm
addmm bmm mv _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data native_layer_norm
native_layer_norm_backward native_group_norm native_batch_norm native_batch_norm_backward convolution
convolution_backward _scaled_dot_product_flash_attention_for_cpu embedding embedding_dense_backward cat stack
_scaled_dot_product_flash_attention_for_cpu_backward index_put_ index_select gather where.self masked_fill.Scalar
nll_loss_forward nll_loss_backward native_dropout native_dropout_backward gelu gelu_backward silu relu tanh
threshold_backward sum.dim_IntList mean.dim sum mean clone _to_copy copy_ zeros zeros_like ones_like empty_like full
arange arange.start max_pool2d_with_indices _adaptive_avg_pool2d select_backward slice_backward topk sort argmax
cumsum std.correction var.correction _foreach_add_.Scalar _foreach_mul_.Scalar _foreach_addcmul_.Scalar
_foreach_addcdiv_.ScalarList _foreach_sqrt _foreach_norm.Scalar _foreach_lerp_.Scalar _fused_adamw_ clamp uniform_
normal_ fill_.Scalar zero_ repeat flip roll constant_pad_nd tril triu
"""
HOT = {f"aten::{name}" for name in HOT_NAMES.split()}

SLOW_TYPES = ["bfloat16", "float64", "float16", "complex64", "uint8", "bool"]


@pytest.fixture(scope="module")
def probe() -> ModuleType:
    return load_probe()


@pytest.fixture(autouse=True)
def _no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def assert_right(survey: Survey) -> None:
    assert dict(survey.wrong) == {}
    assert not set(survey.restrided) - OTHER_STRIDES
    slow = {n: dict(c) for n, c in survey.sources.items() if n in HOT and set(c) - {"structured", "rule"}}
    assert not slow


@pytest.mark.parametrize(
    "dtype", ["float32", "int64", *(pytest.param(t, marks=pytest.mark.slow) for t in SLOW_TYPES)]
)
def test_every_operator_of_torchs_samples(probe: ModuleType, dtype: str) -> None:
    survey = Survey(probe)
    for _ in run_samples(survey, getattr(torch, dtype), set(), most=4):
        pass
    assert len(survey.sources) > 150
    assert_right(survey)


def test_training_steps_and_decoding(probe: ModuleType) -> None:
    survey = Survey(probe)
    assert list(run_programs(survey)) == []
    assert_right(survey)


def test_a_bad_argument_is_torchs_own_error_or_the_servers(probe: ModuleType) -> None:
    survey = Survey(probe)
    for _ in run_errors(survey):
        pass
    assert sum(c["refused"] for c in survey.sources.values()) > 200
    assert not survey.reworded
    assert not set(survey.late) - REFUSED_LATE


def geometry(answer: tuple[str, list[Any]]) -> list[tuple[Any, list[int]]]:
    return [(dtype, sizes) for _, _, dtype, sizes, _ in answer[1]]


def test_statistics_are_those_of_the_servers_device(probe: ModuleType) -> None:
    half = torch.bfloat16
    x, w = torch.randn(2, 3, 4, dtype=half), torch.randn(4, dtype=half)
    for cuda, stats in ((False, half), (True, torch.float32)):
        answer = probe.ask("aten::native_layer_norm", "", cuda, x, [4], w, w, 1e-5)
        assert geometry(answer) == [(half, [2, 3, 4]), (stats, [2, 3, 1]), (stats, [2, 3, 1])]
    w = torch.randn(3)
    for cuda, saved in ((False, 0), (True, 3)):
        answer = probe.ask("aten::native_batch_norm", "", cuda, x.float(), w, w, w, w, False, 0.1, 1e-5)
        assert geometry(answer)[1:] == [(torch.float32, [saved])] * 2


def test_a_gradient_that_is_not_asked_for_is_undefined(probe: ModuleType) -> None:
    x, w = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    mask = [False, True, False]
    answer = probe.ask(
        "aten::convolution_backward",
        "",
        False,
        torch.randn(2, 4, 6, 6),
        x,
        w,
        [4],
        [1, 1],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        1,
        mask,
    )
    assert [defined for defined, *_ in answer[1]] == mask


def test_in_place_and_out_describe_the_written_tensor(probe: ModuleType) -> None:
    x, out = torch.randn(3, 4), torch.empty(4, 3, dtype=torch.float64).t()
    assert probe.ask("aten::add", "out", False, x, x, out=out)[1] == [(True, False, torch.float64, [3, 4], [1, 3])]
    assert probe.ask("aten::mm", "out", False, x, x.t(), out=torch.empty(0))[1][0][3] == [3, 3]
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        probe.ask("aten::add_", "Tensor", False, torch.randn(4), x)
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type"):
        probe.ask("aten::mul_", "Scalar", False, torch.ones(2, dtype=torch.int64), 1.5)
    with pytest.raises(RuntimeError, match="Expected out tensor to have dtype"):
        probe.ask("aten::mm", "out", False, x, x.t(), out=torch.empty(3, 3, dtype=torch.float64))


def test_lists_are_flattened_and_marked(probe: ModuleType) -> None:
    source, outputs = probe.ask("aten::_foreach_add", "Scalar", False, [torch.randn(2), torch.randn(3, 4)], 1.0)
    assert (source, [(o[1], o[3]) for o in outputs]) == ("rule", [(True, [2]), (True, [3, 4])])


def test_what_depends_on_data_is_for_the_server(probe: ModuleType) -> None:
    x = torch.randn(3, 4)
    assert probe.ask("aten::nonzero", "", False, x) == ("server", [])
    assert probe.ask("aten::index", "Tensor", False, x, [x > 0]) == ("server", [])
    assert probe.ask("aten::_local_scalar_dense", "", False, x[0, 0]) == ("server", [])
    # A mask that selects what is written changes no shape.
    assert probe.ask("aten::index_put_", "", False, x, [x > 0], torch.tensor(0.0))[0] == "rule"


def test_the_report_counts_what_no_rule_answers(probe: ModuleType) -> None:
    probe.reset_report()
    x = torch.randn(4)
    for _ in range(2):
        probe.ask("aten::_fft_r2c", "", True, x, [0], 0, True)
    probe.ask("aten::nonzero", "", False, x)
    probe.ask("aten::add", "Tensor", False, x, x)
    assert probe.report() == ["aten::_fft_r2c\tdispatcher\t2", "aten::nonzero\tserver\t1"]
    probe.reset_report()
    assert probe.report() == []


def test_a_default_device_of_the_caller_does_not_reach_the_meta_kernels(probe: ModuleType) -> None:
    with torch.device("cpu"):
        source, outputs = probe.ask("aten::_fft_r2c", "", True, torch.randn(4), [0], 0, True)
    assert (source, outputs[0][3]) == ("dispatcher", [3])


def test_many_threads_ask_at_once(probe: ModuleType) -> None:
    failures: list[object] = []

    def ask(n: int) -> None:
        for i in range(200):
            x = torch.randn(n + 1, i + 1)
            answers = {
                "add": (probe.ask("aten::add", "Tensor", False, x, x), [n + 1, i + 1]),
                "cdist": (probe.ask("aten::_cdist_forward", "", False, x, x, 2.0, None), [n + 1, n + 1]),
            }
            failures.extend((k, a) for k, (a, sizes) in answers.items() if a[1][0][3] != sizes)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures

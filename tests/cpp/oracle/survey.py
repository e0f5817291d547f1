"""Puts every aten operator that torch's own samples run to the oracle and compares with what the CPU returned.

`Survey` is a dispatch mode: inside it each operator is first answered by the oracle, then run. `PYTHONPATH=tests
python survey.py` prints a table by operator. It wants the module `_oracle_probe` (see CMakeLists.txt), found by
SKYTORCH_ORACLE_PROBE.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
import torch_samples
from programs import PROGRAMS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def load_probe() -> ModuleType:
    """The test module that wraps the oracle; raises ImportError when it was not built."""
    path = os.environ.get("SKYTORCH_ORACLE_PROBE", "")
    spec = importlib.util.spec_from_file_location("_oracle_probe", path) if path else None
    if spec is None or spec.loader is None or not os.path.exists(path):
        raise ImportError(
            "_oracle_probe is not built: run `make native`, or set SKYTORCH_ORACLE_PROBE to where it lies"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def geometry(value: Any, in_list: bool) -> tuple[bool, bool, Any, list[int], list[int]]:
    """The probe's tuple for a real tensor (None: an undefined one)."""
    if value is None:
        return (False, in_list, None, [], [])
    return (True, in_list, value.dtype, list(value.shape), list(value.stride()))


def returned(func: Any, result: Any) -> tuple[bool, list[tuple[bool, bool, Any, list[int], list[int]]]]:
    """Whether the results are all tensors, and the geometry of those that the oracle has to name."""
    returns = func._schema.returns
    values = (result,) if len(returns) == 1 else (result or ())
    fresh = [(r, v) for r, v in zip(returns, values, strict=True) if r.alias_info is None]
    written = [(r, v) for r, v in zip(returns, values, strict=True) if r.alias_info and r.alias_info.is_write]
    flat: list[tuple[bool, bool, Any, list[int], list[int]]] = []
    for _, v in fresh or written:
        if isinstance(v, list | tuple):
            flat.extend(geometry(t, True) for t in v)
        elif v is None or isinstance(v, torch.Tensor):
            flat.append(geometry(v, False))
        else:
            return False, []
    return True, flat


def first_line(e: BaseException) -> str:
    return str(e).split("\n")[0]


def sensible_strides(g: tuple[bool, bool, Any, list[int], list[int]]) -> list[int]:
    """Strides that mean something: those of dimensions longer than 1 of a tensor that is not empty."""
    return [] if 0 in g[3] else [s for n, s in zip(g[3], g[4], strict=True) if n != 1]


class Survey(TorchDispatchMode):
    """Counts, by operator: who answered, wrong answers, wrong strides, and errors that the CPU does not raise."""

    def __init__(self, probe: ModuleType) -> None:
        super().__init__()
        self.probe = probe
        self.sources: dict[str, Counter[str]] = defaultdict(Counter)
        self.wrong: dict[str, list[str]] = defaultdict(list)
        self.late: dict[str, list[str]] = defaultdict(list)
        self.reworded: dict[str, list[str]] = defaultdict(list)
        self.restrided: dict[str, list[str]] = defaultdict(list)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
        if views or not schema.returns or any(t.layout != torch.strided or t.is_quantized for t in tensors):
            return func(*args, **kwargs)
        numbers = any(
            isinstance(v, int | float | complex) and "Tensor" in str(a.type)
            for a, v in zip(schema.arguments, args, strict=False)
        )
        if numbers:  # decompositions written in Python pass numbers for tensors, which no boxed call does
            return func(*args, **kwargs)
        name = schema.name + ("." + schema.overload_name if schema.overload_name else "")
        # Before the call, which may change its arguments; only geometry, since it is done for each of many calls.
        shapes = [(t.dtype, tuple(t.shape), t.stride()) for t in tensors]
        call = (shapes, [a for a in args if isinstance(a, int | float | str)])
        try:
            source, got = self.probe.ask(schema.name, schema.overload_name, False, *args, **kwargs)
        except Exception as e:
            source, got = "raised", [e]
        try:
            result = func(*args, **kwargs)
        except Exception as e:
            self.refused(name, source, got, e, call)
            raise
        self.sources[name][source] += 1
        tensors_only, want = returned(func, result)
        if source == "raised" or (source != "server" and not tensors_only):
            self.wrong[name].append(f"{source} {got} for {call}")
        elif source != "server":
            if [g[:4] for g in got] != [w[:4] for w in want if True]:
                self.wrong[name].append(f"{source} {got} instead of {want} for {call}")
            elif [sensible_strides(g) for g in got] != [sensible_strides(w) for w in want]:
                self.restrided[name].append(f"{source} {got} instead of {want} for {call}")
        return result

    def refused(self, name: str, source: str, got: Any, error: Exception, call: object) -> None:
        """The CPU raised: the oracle should have, with the same message, or have left it to the server."""
        self.sources[name]["refused"] += 1
        if source == "raised":
            if type(got[0]) is not type(error) or first_line(got[0]) != first_line(error):
                self.reworded[name].append(f"{got[0]!r} instead of {error!r} for {call}")
        elif source != "server":
            self.late[name].append(f"{source} {got} instead of {error!r} for {call}")


def run_errors(survey: Survey) -> Iterator[str]:
    """Runs what torch's own tests expect to fail: an operator has to fail in the oracle or be left to the server."""
    for op in torch_samples.operators():
        try:
            samples = torch_samples.error_inputs(op)
        except Exception as e:
            yield f"{op.name}: no error inputs: {e!r}"
            continue
        for sample in samples:
            s = sample.sample_input
            try:
                with survey:
                    op(s.input, *s.args, **s.kwargs)
            except Exception:
                pass


def run_samples(survey: Survey, dtype: torch.dtype, names: set[str], most: int) -> Iterator[str]:
    """Runs forward, and backward where there is one, of up to `most` samples of each operator of torch's own list."""
    for op in torch_samples.operators():
        if names and op.name not in names:
            continue
        if dtype not in op.supported_dtypes("cpu"):
            continue
        grad = dtype.is_floating_point and op.supports_autograd
        try:
            samples = torch_samples.sample_inputs(op, dtype, grad)
        except Exception as e:
            yield f"{op.name}: no samples: {e!r}"
            continue
        step = max(1, len(samples) // most)
        for sample in samples[::step]:
            try:
                with survey:
                    result = op(sample.input, *sample.args, **sample.kwargs)
                    outs = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.requires_grad]
                    outs = [t for t in outs if t.is_floating_point() or t.is_complex()]
                    if grad and outs:
                        torch.autograd.backward(outs, [torch.ones_like(t) for t in outs])
            except Exception as e:
                yield f"{op.name}: {type(e).__name__}: {str(e)[:100]}"


def run_programs(survey: Survey) -> Iterator[str]:
    """Runs all of programs.py."""
    for program in PROGRAMS:
        torch.manual_seed(0)
        try:
            with survey:
                program()
        except Exception as e:
            yield f"{program.__name__}: {type(e).__name__}: {str(e)[:300]}"


def found_by_title(survey: Survey) -> list[tuple[str, dict[str, list[str]]]]:
    return [
        ("WRONG", survey.wrong),
        ("STRIDES", survey.restrided),
        ("LATE", survey.late),
        ("REWORDED", survey.reworded),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--most", type=int, default=12, help="samples per operator")
    parser.add_argument("--show", type=int, default=1, help="examples shown of each wrong answer")
    parser.add_argument("--table", action="store_true", help="also list the operators that no rule answers")
    parser.add_argument("--programs", action="store_true", help="run programs.py instead of torch's samples")
    parser.add_argument("--errors", action="store_true", help="run what torch's tests expect to fail")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    survey = Survey(load_probe())
    if options.programs:
        lines = run_programs(survey)
    elif options.errors:
        lines = run_errors(survey)
    else:
        lines = run_samples(survey, getattr(torch, options.dtype), set(options.names), options.most)
    for line in lines:
        print("skipped", line, file=sys.stderr)
    total: Counter[str] = Counter()
    by_best: Counter[str] = Counter()
    for counts in survey.sources.values():
        total.update(counts)
        by_best[max(counts, key=lambda s: counts[s])] += 1
    print("calls", dict(total), "operators", dict(by_best))
    for title, found in found_by_title(survey):
        for name, examples in sorted(found.items()):
            print(f"{title} {name} {len(examples)} of {sum(survey.sources[name].values())}")
            for example in examples[: options.show]:
                print("     ", example[:1200])
    if options.table:
        for name, counts in sorted(survey.sources.items()):
            if set(counts) - {"structured", "rule"}:
                print(name, dict(counts))


if __name__ == "__main__":
    main()

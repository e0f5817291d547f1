"""`skytorch build-backend`: on a two-file project in place of the C++ part, whose own build takes minutes."""

from __future__ import annotations

import pytest
from skytorch import cli
from skytorch.backend.library import cache_folder, find, minor_of
from skytorch.cli import _build

CMAKE = """cmake_minimum_required(VERSION 3.22)
project(tiny LANGUAGES CXX)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${SKYTORCH_LIB_DIR}")
add_library(skytorch_backend SHARED a.cpp)
add_library(skytorch_server SHARED a.cpp)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A tiny project as the sources, and a cache of the test's own."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(CMAKE)
    (source / "a.cpp").write_text("int answer() { return 42; }\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_build, "source_folder", lambda: source)
    return source


def test_it_builds_into_the_cache_where_import_finds_it(project, monkeypatch, capsys):
    import torch

    assert cli.main(["build-backend", "--jobs", "1"]) == 0
    folder = cache_folder() / f"torch{minor_of(torch.__version__)}"
    assert f"done: {folder}" in capsys.readouterr().out.replace("\n", "")
    monkeypatch.setattr("skytorch.backend.library.PACKAGE_LIB", project / "nowhere")
    assert find("backend", torch.__version__) == folder / "libskytorch_backend.so"
    assert find("server", torch.__version__) == folder / "libskytorch_server.so"


def test_a_failed_build_shows_the_compiler_and_keeps_the_last_good_one(project, capsys):
    assert cli.main(["build-backend", "--jobs", "1"]) == 0
    (project / "a.cpp").write_text("int answer() { return fortytwo; }\n")
    assert cli.main(["build-backend", "--jobs", "1"]) == 1
    err = capsys.readouterr().err
    assert "fortytwo" in err
    assert "build.log" in err
    assert list(cache_folder().glob("torch*/libskytorch_server.so"))


def test_a_missing_tool_is_named_with_how_to_get_it(project, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.main(["build-backend"]) == 1
    assert "cmake is missing: install CMake" in capsys.readouterr().err


def test_the_sources_are_found_in_this_checkout():
    assert (_build.source_folder() / "crates/skytorch-wire/include/skytorch/wire.h").is_file()

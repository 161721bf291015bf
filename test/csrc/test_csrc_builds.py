"""The C++ side compiles without a GPU and without cuBLAS; what an architecture lacks is a stub of the same name that says so."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.checkers import ROOT

from flashrt_core.ops.table import OPS

CSRC = ROOT / "csrc"
HEADER = (CSRC / "flashrt_kernels.h").read_text(encoding="utf-8")
NVCC, CMAKE = shutil.which("nvcc"), shutil.which("cmake")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc is not installed: csrc is not compiled here")
needs_cmake = pytest.mark.skipif(CMAKE is None, reason="cmake is not installed: csrc is not compiled here")
NOT_BUILT = 2  # frt_status


def run(*command: object, cwd: Path | None = None, timeout: float = 280) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout + done.stderr


def test_every_row_of_the_op_table_is_declared_and_bound() -> None:
    bindings = (CSRC / "bindings.cpp").read_text(encoding="utf-8")
    for name in OPS:
        assert re.search(rf"\bint frt_{name}\(", HEADER), f"frt_{name} is not in flashrt_kernels.h"
        assert f'op(m, "{name}", frt_{name});' in bindings, f"{name} is not bound"


def test_arguments_of_the_c_functions_are_those_of_the_rows_in_order() -> None:
    for name, op in OPS.items():
        declared = re.search(rf"int frt_{name}\(([^;]*)\);", HEADER)[1]
        names = [re.search(r"(\w+)$", part.strip())[1] for part in declared.split(",")]
        assert names == list(op.arg_names), name


def host_compile(source: Path, out: Path) -> None:
    """With nvcc as the driver of the host compiler: it knows where the CUDA headers are."""
    run(NVCC, "-std=c++17", f"-I{CSRC}", f"-I{CSRC / 'stubs'}", '-DFRT_ARCHS="none"', "-Xcompiler=-Wall", "-c", source, "-o", out)


@needs_nvcc
def test_the_host_side_compiles_without_cublas(tmp_path: Path) -> None:
    for source in ("core/context.cpp", "core/error.cpp", "core/act_as.cpp", "gemm/lt_plan.cpp"):
        host_compile(CSRC / source, tmp_path / (Path(source).stem + ".o"))


@needs_nvcc
def test_ptx_and_machine_code_of_one_architecture(tmp_path: Path) -> None:
    source = CSRC / "families" / "images.cu"
    common = ("-std=c++17", f"-I{CSRC}", f"-I{CSRC / 'stubs'}")
    run(NVCC, *common, "-arch=compute_90a", "-ptx", source, "-o", tmp_path / "images.ptx")
    ptx = (tmp_path / "images.ptx").read_text()
    assert ".target sm_90a" in ptx and "resize_pad_kernel" in ptx
    run(NVCC, *common, "-arch=sm_90a", "-ptx", CSRC / "families" / "gemm_choice.cu", "-o", tmp_path / "choice.ptx")
    run(NVCC, *common, "-arch=sm_90a", "-cubin", source, "-o", tmp_path / "images.cubin")
    assert (tmp_path / "images.cubin").stat().st_size > 1000


@needs_cmake
def test_a_family_that_is_not_built_becomes_stubs_of_the_same_names(tmp_path: Path) -> None:
    out = tmp_path / "wide.cpp"
    names = "amax;attention;attention_scratch"
    run(CMAKE, f"-DHEADER={CSRC / 'flashrt_kernels.h'}", f"-DOUT={out}", f"-DOPS={names}", "-P", ROOT / "test/csrc/stub_text.cmake")
    text = out.read_text()
    assert text.count('extern "C"') == 3 and "needs SM90, this build has SM89, SM120" in text
    if NVCC is None:
        return
    library = tmp_path / "libstub.so"
    flags = ("-std=c++17", f"-I{CSRC}", '-DFRT_ARCHS="89"', "-shared", "-Xcompiler=-fPIC")
    run(NVCC, *flags, out, CSRC / "core/error.cpp", "-o", library)
    lib = ctypes.CDLL(str(library))
    assert lib.frt_amax(0, 0, 0, 0, 0) == NOT_BUILT
    lib.frt_last_error.restype = ctypes.c_char_p  # the struct begins with an int, then char op[32]
    assert lib.frt_attention_scratch() == 0


@needs_cmake
def test_a_stub_of_an_undeclared_function_stops_the_build(tmp_path: Path) -> None:
    done = subprocess.run(
        [CMAKE, f"-DHEADER={CSRC / 'flashrt_kernels.h'}", f"-DOUT={tmp_path / 'x.cpp'}", "-DOPS=no_such_op", "-P",
         str(ROOT / "test/csrc/stub_text.cmake")], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "frt_no_such_op" in done.stderr


def configure(tmp_path: Path, *options: str, path: str | None = None) -> subprocess.CompletedProcess:
    """A project that includes the package's switch, as the top-level CMakeLists.txt does."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.24)\nproject(package LANGUAGES C CXX)\n"
        f"set(PACKAGE_DIR lib/flashrt_core)\ninclude({CSRC}/cmake/package.cmake)\n"
        'message(STATUS "kernels: ${FLASHRT_CUDA_BUILD}")\n'
    )
    return subprocess.run(
        [CMAKE, "-S", str(tmp_path), "-B", str(tmp_path / "build"), *options], capture_output=True, text=True, check=False
    )


@needs_cmake
def test_the_package_builds_without_the_kernels_when_told_or_when_nothing_is_there(tmp_path: Path) -> None:
    nothing = ("-DFLASHRT_NVCC=NOTFOUND", "-DFLASHRT_SMI=NOTFOUND", "-DCMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH=OFF",
               "-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF", "-DCMAKE_FIND_USE_CMAKE_ENVIRONMENT_PATH=OFF")  # fmt: skip
    done = configure(tmp_path, "-DFLASHRT_CUDA=OFF")
    assert done.returncode == 0 and "kernels: OFF" in done.stdout, done.stderr
    assert "include(csrc/cmake/package.cmake)" in (ROOT / "CMakeLists.txt").read_text()
    if NVCC is None:
        done = configure(tmp_path, "-DFLASHRT_CUDA=auto", *nothing)
        assert done.returncode == 0 and "kernels: OFF" in done.stdout
        done = configure(tmp_path, "-DFLASHRT_CUDA=ON", *nothing)
        assert done.returncode != 0 and "FLASHRT_CUDA=OFF" in done.stderr


@needs_nvcc
@needs_cmake
def test_the_package_builds_the_kernels_for_named_architectures(tmp_path: Path) -> None:
    done = configure(tmp_path, "-DGPU_ARCH=90", "-DFLASHRT_CUBLAS=OFF")
    assert done.returncode == 0 and "kernels: ON" in done.stdout, done.stderr
    assert (tmp_path / "build" / "csrc").is_dir()
    done = configure(tmp_path, "-DGPU_ARCH=91", "-DFLASHRT_CUBLAS=OFF")
    assert done.returncode != 0 and "91 is not one of" in done.stderr


@pytest.mark.long
@needs_nvcc
@needs_cmake
@pytest.mark.parametrize("arch", ["90", "80,86,87,89,90,110,120"])
def test_the_whole_library_builds_without_cublas(tmp_path: Path, arch: str) -> None:
    run(CMAKE, "-S", CSRC, "-B", tmp_path, f"-DGPU_ARCH={arch}", "-DFLASHRT_CUBLAS=OFF", f"-DPACKAGE_DIR={tmp_path / 'out'}")
    run(CMAKE, "--build", tmp_path, "-j2", timeout=3000)
    library = next(tmp_path.glob("libflashrt_kernels.so"))
    lib = ctypes.CDLL(str(library))
    lib.frt_built_archs.restype = ctypes.c_char_p
    assert lib.frt_built_archs().decode() == arch
    assert all(hasattr(lib, f"frt_{name}") for name in OPS)

"""Extensions only; all metadata stands in pyproject.toml.

FASTIRL_DEBUG=1   bounds and None checks, no optimisation, assertions on
FASTIRL_OPENMP=0  do not use OpenMP even where the compiler has it
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("FASTIRL_DEBUG", "0") == "1"
DIRECTIVES = {
    "language_level": 3,
    "binding": True,
    "embedsignature": True,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": True,
    "annotation_typing": False,
}


def openmp_flags(compiler):
    """Compile and link flags of OpenMP, or two empty lists: it is used where found, never required."""
    if os.environ.get("FASTIRL_OPENMP", "1") == "0":
        return [], []
    if compiler.compiler_type == "msvc":
        return ["/openmp"], []
    source = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.c")
        path.write_text(source)
        command = [*compiler.compiler_so, "-fopenmp", str(path), "-o", str(Path(folder, "probe"))]
        command = [part for part in command if part != "-c"]
        try:
            found = subprocess.run(command, capture_output=True, timeout=60).returncode == 0
        except (OSError, subprocess.SubprocessError):
            found = False
    return (["-fopenmp"], ["-fopenmp"]) if found else ([], [])


class BuildExt(build_ext):
    def build_extensions(self):
        compile_flags, link_flags = openmp_flags(self.compiler)
        if self.compiler.compiler_type == "msvc":
            compile_flags = ["/Od" if DEBUG else "/O2", *compile_flags]
        else:
            # errno and traps of the mathematical functions are never read; everything else of IEEE 754 is kept
            speed = ["-O0", "-g"] if DEBUG else ["-O3", "-fno-math-errno", "-fno-trapping-math"]
            compile_flags = [*speed, *compile_flags]
        print("fastirl: OpenMP", "found" if link_flags or "/openmp" in compile_flags else "not found", file=sys.stderr)
        for extension in self.extensions:
            extension.extra_compile_args = compile_flags
            extension.extra_link_args = link_flags
        super().build_extensions()


HEADERS = {
    "_core": ("_lanes.h", "_lanes_kernels.h"),
    "_planning": ("_sweeps.h", "_sweeps_kernels.h"),
    "_symbolic": (),
    "_rankings": (),
    "_comparisons": ("_comparisons.h", "_comparisons_kernels.h"),
    "_elimination": ("_elimination.h", "_elimination_kernels.h"),
}
extensions = [
    Extension(
        f"fastirl.{name}",
        [f"src/fastirl/{name}.pyx"],
        depends=[f"src/fastirl/{header}" for header in headers],
        include_dirs=[np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    )
    for name, headers in HEADERS.items()
]

setup(
    ext_modules=cythonize(extensions, compiler_directives=DIRECTIVES, nthreads=0),
    cmdclass={"build_ext": BuildExt},
)

"""The native kernels: one shared library, each kernel compiled once per instruction set.

No `-march=native`: the library holds every instruction set's code, and chooses when it is loaded.
Without a compiler the package installs all the same, and the engine says at start that the
reference computes. Everything else is in pyproject.toml.
"""

import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FOLDER = "engine/kernels/cpu"
COMMON_SOURCES = [
    "attention_tasks.cpp",
    "context.cpp",
    "decode_step.cpp",
    "operations.cpp",
    "packing.cpp",
    "run_step.cpp",
    "sampling_rows.cpp",
    "thread_pool.cpp",
]
KERNEL_SOURCES = [
    "attention.cpp",
    "elementwise.cpp",
    "level.cpp",
    "limits.cpp",
    "linear.cpp",
    "sampling.cpp",
    "tiled_linear.cpp",
]
COMPILE_FLAGS = ["-std=c++20", "-O2", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra"]
LINK_FLAGS = ["-pthread", "-s"]
if sys.platform == "linux":
    LINK_FLAGS += ["-static-libstdc++", "-static-libgcc"]  # where it is built is not where it runs
# Vectors wider than a level's registers change how functions of ours would pass them, which no one
# else calls; gcc 12 takes its own intrinsics' undefined inputs for mistakes.
KERNEL_FLAGS = ["-Wno-psabi", "-Wno-ignored-attributes", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
AVX2 = ["-mavx2", "-mfma", "-mf16c", "-ffp-contract=fast"]
AVX512 = [
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mavx512bf16"),
    *("-mfma", "-mf16c", "-ffp-contract=off"),
]
LEVELS = {"portable": ["-ffp-contract=off"]}
X86_LEVELS = {
    "avx2": AVX2,
    "avx512": AVX512,
    "amx": [*AVX512, "-mamx-tile", "-mamx-int8", "-mamx-bf16", "-mavx512fp16"],
}


class BuildKernels(build_ext):
    """Compiles the kernels of every instruction set that the compiler knows into one library."""

    def build_extension(self, ext: Extension) -> None:
        """Compile and link `ext`; raises what setuptools turns into a warning where it is optional."""
        levels = LEVELS | (X86_LEVELS if platform.machine() in ("x86_64", "AMD64") else {})
        with ThreadPoolExecutor() as pool:  # half a minute of one core: levels are compiled at once
            compiled = list(pool.map(self._compile_level, levels.items()))
        objects = [path for paths in compiled for path in paths]
        built = [level for level, paths in zip(levels, compiled, strict=True) if paths]
        defines = [(f"RS_HAS_{level.upper()}", None) for level in built]
        objects += self._compile(COMMON_SOURCES, [], "common", defines)
        target = self.get_ext_fullpath(ext.name)
        self.compiler.link_shared_object(
            objects, target, extra_postargs=LINK_FLAGS, target_lang="c++", build_temp=self.build_temp
        )

    def _compile_level(self, level_and_flags: tuple[str, list[str]]) -> list[str]:
        """Objects of one level; none where the compiler does not know its instructions."""
        level, flags = level_and_flags
        try:
            return self._compile(KERNEL_SOURCES, [*KERNEL_FLAGS, *flags], level, [("RS_LEVEL", level)])
        except CompileError:
            if level in LEVELS:
                raise
            self.warn(f"this compiler cannot build the kernels for {level}")
            return []

    def _compile(
        self, sources: list[str], flags: list[str], level: str, defines: list[tuple[str, str | None]]
    ) -> list[str]:
        paths = [str(Path(FOLDER, source)) for source in sources]
        return self.compiler.compile(
            paths,
            output_dir=str(Path(self.build_temp, level)),
            macros=defines,
            extra_postargs=[*COMPILE_FLAGS, *flags],
            depends=[str(path) for path in Path(FOLDER).glob("*.h")],
        )


setup(
    ext_modules=[
        Extension(
            "engine.kernels.cpu._kernels",
            sources=[str(Path(FOLDER, source)) for source in COMMON_SOURCES + KERNEL_SOURCES],
            depends=[str(path) for path in sorted(Path(FOLDER).glob("*.h"))],
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)

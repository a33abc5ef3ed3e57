"""The shared library of native kernels: where it is, what it can do here, its C interface in ctypes.

The structures mirror `kernels.h` field by field. Nothing here knows tensors.
"""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_int64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from engine.errors import ConfigError

MAX_SEGMENTS = 3


class Segment(Structure):
    """`rs_segment`."""

    _fields_ = (
        ("tiles", c_void_p),
        ("out_size", c_int32),
        ("code_bits", c_int32),
        ("scales", c_int32),
        ("centre", c_int32),
    )


class LinearWeights(Structure):
    """`rs_linear`."""

    _fields_ = (
        ("bias", c_void_p),
        ("in_size", c_int32),
        ("out_size", c_int32),
        ("num_segments", c_int32),
        ("unused", c_int32),
        ("segments", Segment * MAX_SEGMENTS),
    )


class LayerWeights(Structure):
    """`rs_layer`."""

    _fields_ = (
        ("input_norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("qkv", POINTER(LinearWeights)),
        ("output", POINTER(LinearWeights)),
        ("gate_up", POINTER(LinearWeights)),
        ("down", POINTER(LinearWeights)),
        ("window", c_int32),
        ("unused", c_int32),
    )


class ModelWeights(Structure):
    """`rs_model`."""

    _fields_ = (
        ("layers", POINTER(LayerWeights)),
        ("final_norm", c_void_p),
        ("embedding", POINTER(LinearWeights)),
        ("num_layers", c_int32),
        ("num_heads", c_int32),
        ("num_kv_heads", c_int32),
        ("head_size", c_int32),
        ("model_size", c_int32),
        ("ffn_size", c_int32),
        ("norm_eps", c_float),
        ("unused", c_int32),
    )


class GroupPlaces(Structure):
    """`rs_group`."""

    _fields_ = (
        ("slots", c_void_p),
        ("tables", c_void_p),
        ("bases", c_void_p),
        ("table_width", c_int32),
        ("block_size", c_int32),
    )


class BatchPlaces(Structure):
    """`rs_batch`."""

    _fields_ = (
        ("row_starts", c_void_p),
        ("starts", c_void_p),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("groups", POINTER(GroupPlaces)),
        ("num_tokens", c_int32),
        ("num_chunks", c_int32),
    )


class CachePlaces(Structure):
    """`rs_cache`."""

    _fields_ = (("keys", c_void_p), ("values", c_void_p), ("group", c_int32), ("format", c_int32))


class Stage(Structure):
    """`rs_stage`."""

    _fields_ = (
        ("model", POINTER(ModelWeights)),
        ("head", POINTER(LinearWeights)),
        ("caches", POINTER(CachePlaces)),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("num_groups", c_int32),
        ("block_size", c_int32),
    )


class HeadSizes(Structure):
    """`rs_heads`."""

    _fields_ = (
        ("num_heads", c_int32),
        ("num_kv_heads", c_int32),
        ("head_size", c_int32),
        ("window", c_int32),
    )


_CONTEXT = c_void_p
_FLOATS = c_void_p
SIGNATURES: dict[str, tuple[object, Sequence[object]]] = {
    "rs_level_name": (c_char_p, (c_int32,)),
    "rs_level_supported": (c_int32, (c_int32,)),
    "rs_create": (_CONTEXT, (c_int32, c_int32)),
    "rs_destroy": (None, (_CONTEXT,)),
    "rs_segment_bytes": (c_int64, (POINTER(Segment), c_int32)),
    "rs_pack": (c_int32, (POINTER(Segment), c_int32, c_int32, c_void_p, c_int64, c_void_p)),
    "rs_unpack_row": (None, (POINTER(Segment), c_int32, c_int32, _FLOATS)),
    "rs_norm_residual": (
        None,
        (_CONTEXT, _FLOATS, _FLOATS, _FLOATS, c_float, c_int32, c_int32, _FLOATS, _FLOATS),
    ),
    "rs_linear_forward": (None, (_CONTEXT, POINTER(LinearWeights), _FLOATS, c_int32, _FLOATS)),
    "rs_silu_mul": (None, (_CONTEXT, _FLOATS, c_int32, c_int32, _FLOATS)),
    "rs_rotate_and_write": (
        None,
        (_CONTEXT, POINTER(HeadSizes), POINTER(BatchPlaces), POINTER(CachePlaces), _FLOATS),
    ),
    "rs_attend": (
        None,
        (_CONTEXT, POINTER(HeadSizes), POINTER(BatchPlaces), POINTER(CachePlaces), _FLOATS, c_int64, _FLOATS),
    ),
    "rs_embed": (None, (_CONTEXT, POINTER(LinearWeights), c_void_p, c_int32, _FLOATS)),
    "rs_run_step": (None, (_CONTEXT, POINTER(Stage), c_void_p, _FLOATS)),
    "rs_run_step_and_draw": (None, (_CONTEXT, POINTER(Stage), c_void_p, c_char_p, c_void_p)),
    "rs_measure_limits": (None, (_CONTEXT, c_void_p, c_int64, POINTER(c_double))),
}


def library_path() -> Path | None:
    """Where the build has put the library; None where it was not built."""
    paths = (Path(__file__).with_name(f"_kernels{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def load_library(path: Path) -> ctypes.CDLL:
    """The library with its functions' types set. Calls release the interpreter's lock.

    ConfigError for one that was built from other sources than these.
    """
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name, None)
        if function is None:
            raise ConfigError(
                f"{path} is of another version of ringserve: it has no function {name}. Build the kernels again "
                "with pip install -e ."
            )
        function.restype = result
        function.argtypes = arguments
    return library


def supported_levels(library: ctypes.CDLL) -> tuple[str, ...]:
    """Names of the instruction sets that this machine and this build have, ascending in speed."""
    return tuple(name for name in _level_names(library) if library.rs_level_supported(_level(library, name)))


def create_context(library: ctypes.CDLL, num_threads: int, level: str) -> int:
    """Address of a new `rs_context`, which starts its threads; for `rs_destroy` in the end."""
    address: int = library.rs_create(num_threads, _level(library, level))
    return address


def _level(library: ctypes.CDLL, name: str) -> int:
    return _level_names(library).index(name)


def _level_names(library: ctypes.CDLL) -> list[str]:
    names: list[str] = []
    while (name := library.rs_level_name(len(names))) is not None:
        names.append(name.decode())
    return names

"""Reading untrusted files: JSON and npz as plain data of bounded size; nothing in them is called or imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_MOST_ARRAYS = 2**28  # bytes of an npz file's arrays


def parse_json(text: str) -> Any:
    """Parse a JSON text.

    Args:
        text: The text.

    Returns:
        The content.

    Raises:
        ValueError: The text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def refuse_classes(content: Any, named: str) -> None:
    """Check that plain data names no class to be built (``class_path``), at any depth.

    Args:
        content: Mappings, lists and scalars.
        named: Where the data comes from, for the message.

    Raises:
        ValueError: There is a ``class_path``.
    """
    if isinstance(content, dict):
        if "class_path" in content:
            raise ValueError(
                f"{named}: class_path {content['class_path']!r} names what is to be called, which data may not: "
                "leave it out, and pass objects of your own in Python"
            )
        for key, part in content.items():
            refuse_classes(part, f"{named}: {key}")
    elif isinstance(content, (list, tuple)):
        for part in content:
            refuse_classes(part, named)


def check_import(name: str, found_in: str, flag: str) -> None:
    """Check that a name ``module:Name`` in a file refers to a module of an installed distribution.

    The working directory is on Python's path for the user's own modules; without this check, a file could have a module
    imported that lies next to it.

    Args:
        name: The name; without a colon there is nothing to import, and it passes.
        found_in: The file, for the message.
        flag: The command-line option by which the user can name the module.

    Raises:
        ValueError: No installed distribution provides the module.
    """
    module, colon, _ = name.partition(":")
    if not colon or _is_installed(module.partition(".")[0]):
        return
    raise ValueError(
        f"{found_in} names {name!r}, but module {module!r} is of no installed package, and files may not say what is "
        f"imported: name it yourself, {flag} {name}"
    )


def _is_installed(module: str) -> bool:
    """Return whether importing a module would import an installed distribution's, or nothing at all.

    A module in the working directory does not count, except this package itself; neither do modules of the standard library.
    """
    here = os.getcwd()
    # Metadata in the working directory can be forged: look for distributions elsewhere only.
    elsewhere = [path for path in sys.path if path and Path(path).resolve() != Path(here).resolve()]
    try:
        # For a top-level name, this finds the module without executing it.
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return True  # nothing can be imported; the import itself reports that
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    if any(Path(place).resolve().is_relative_to(Path(here).resolve()) for place in places if place):
        return module == __name__.partition(".")[0]
    if module in sys.builtin_module_names or module in sys.stdlib_module_names:
        return False
    return any(module in _modules_of(one) for one in importlib.metadata.distributions(path=elsewhere))


def _modules_of(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    """Yield the names that a distribution installs at the top level."""
    yield from (distribution.read_text("top_level.txt") or "").split()
    for file in distribution.files or ():
        if file.suffix == ".py" and len(file.parts) <= 2:
            yield file.parts[0].removesuffix(".py")


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an npz file.

    Args:
        path: The file.

    Returns:
        The arrays by name.

    Raises:
        ValueError: The file is not an npz file, is too large, holds pickled objects, or an array's header does not match its
            size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # Before `np.load`, which allocates what a header declares.
            for member in archive.infolist():
                _check_member(archive, member)
            if sum(member.file_size for member in archive.infolist()) > _MOST_ARRAYS:
                raise ValueError(f"its arrays take more than {_MOST_ARRAYS:,} bytes")
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        zipfile.BadZipFile,
        MemoryError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise ``ValueError`` if an array holds objects or its header implies another size than the member has."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        promised = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or promised != member.file_size - file.tell():
            raise ValueError(f"{member.filename} promises {shape} of {dtype}, but holds {member.file_size:,} bytes")

"""The tools of the recipe: other plugins, or tools of the host. A capability: `plugin.toml` asks for it (`[needs]`,
`capabilities = ["tools"]`), and the recipe grants it."""

from __future__ import annotations

from collections.abc import Sequence

from . import _backend
from .fault import Fault


def call(tool: str, arguments: Sequence[str]) -> list[str | Fault]:
    """One call per text of JSON in `arguments`: its output, or why it has none.

    Raises a `Fault` when the tool is not there or not granted.
    """
    return _backend.get().call_tool(tool, arguments)

"""Values kept by plugin name, across calls, checkpoints and swaps. Writes land only if the call returns ok."""

from __future__ import annotations

from . import _backend


def get(key: str) -> bytes | None:
    """The value at a key."""
    return _backend.get().kv_get(key)


def set(key: str, value: bytes) -> None:
    """Sets the value at a key. Raises a fault when the plugin's quota is used up."""
    _backend.get().kv_set(key, value)


def delete(key: str) -> None:
    """Removes a key, if it is there."""
    _backend.get().kv_delete(key)


def keys(prefix: str = "") -> list[str]:
    """The keys with that prefix, in order."""
    return _backend.get().kv_keys(prefix)

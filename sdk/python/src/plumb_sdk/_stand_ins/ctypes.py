"""Stands in for `ctypes` in components, where there is no foreign code to call.

The standard library's own cannot be imported there, as it needs a C extension. Libraries that only ask how wide a C integer is, as
sympy does, find that here; whatever else they ask for is an `AttributeError` where they ask, not where they import.
"""

_WIDTHS = {
    "c_bool": 1, "c_byte": 1, "c_ubyte": 1, "c_char": 1, "c_int8": 1, "c_uint8": 1,
    "c_short": 2, "c_ushort": 2, "c_int16": 2, "c_uint16": 2,
    "c_int": 4, "c_uint": 4, "c_long": 4, "c_ulong": 4, "c_size_t": 4, "c_ssize_t": 4, "c_int32": 4, "c_uint32": 4,
    "c_void_p": 4, "c_char_p": 4, "c_float": 4, "c_wchar": 4,
    "c_longlong": 8, "c_ulonglong": 8, "c_int64": 8, "c_uint64": 8, "c_double": 8,
}  # fmt: skip


class _Simple:
    """A C type: its width in bytes on wasm32."""

    width = 0

    def __init__(self, value=0):
        self.value = value


for _name, _width in _WIDTHS.items():
    globals()[_name] = type(_name, (_Simple,), {"width": _width})


def sizeof(kind):
    """Bytes of a type or of a value."""
    return kind.width


def __getattr__(name):
    raise AttributeError(f"`ctypes.{name}`: plugins have no foreign code to call")

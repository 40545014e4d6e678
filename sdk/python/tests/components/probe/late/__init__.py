"""A package that imports a part of itself when it is needed, as sympy does."""


def half() -> float:
    """Half of what its late part has."""
    from .part import ONE

    return ONE / 2

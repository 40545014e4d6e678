"""What all plugins have: a name, a configuration, a description of themselves."""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from . import config as configuration
from .fault import Fault

P = TypeVar("P", bound="Plugin")


@dataclass
class Descriptor:
    """What a plugin says about itself before it is configured."""

    name: str
    version: str
    config_schema: str
    needs_columns: list[str]
    outputs: list[str]
    state_version: int


@dataclass
class NoConfig:
    """The configuration of a plugin that takes none: every key is an error."""


class Plugin:
    """Base of all kinds; subclass one of those.

    The configuration's type is the annotation of `config` in `__init__`, or that of the class attribute `config`: a dataclass
    whose fields have types. Unknown keys and wrong types are faults, and the JSON schema is derived from it.
    """

    kind: ClassVar[str] = ""
    """`reward`, `shaper`, `judge`, `filter` or `tool`."""
    name: ClassVar[str] = ""
    """Its name."""
    version: ClassVar[str] = ""
    """Its semantic version."""
    needs_columns: ClassVar[tuple[str, ...]] = ()
    """Columns without which it cannot work whatever its configuration."""
    outputs: ClassVar[tuple[str, ...]] = ()
    """Names of the parts it may return."""
    state_version: ClassVar[int] = 0
    """Version of what `State.save` writes; 0 without state."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def config_type(cls) -> type:
        """The configuration's dataclass."""
        found = typing.get_type_hints(cls.__init__).get("config", Any) if cls.__init__ is not Plugin.__init__ else Any
        if found is Any:
            found = typing.get_type_hints(cls).get("config", NoConfig)
        if not dataclasses.is_dataclass(found) or not isinstance(found, type):
            raise TypeError(f"the configuration of `{cls.__name__}` must be a dataclass, not `{found}`")
        return found

    @classmethod
    def configure(cls: type[P], text: str) -> P:
        """A plugin from the configuration's JSON.

        Raises a `bad-config` fault for JSON that does not fit, and for values that `__init__` or the dataclass refuses with a
        `ValueError`.
        """
        try:
            value = json.loads(text)
        except ValueError as error:
            raise Fault.bad_config(f"not JSON: {error}") from None
        try:
            return cls(configuration.parse(cls.config_type(), value))
        except ValueError as error:
            raise Fault.bad_config(str(error)) from error

    @classmethod
    def describe(cls) -> Descriptor:
        """What it says about itself."""
        schema = configuration.schema(cls.config_type())
        return Descriptor(
            name=cls.name,
            version=cls.version,
            config_schema=json.dumps(schema, ensure_ascii=False),
            needs_columns=list(cls.needs_columns),
            outputs=list(cls.outputs),
            state_version=cls.state_version,
        )

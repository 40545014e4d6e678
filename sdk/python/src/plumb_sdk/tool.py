"""Tools: what other plugins call through `plumb_sdk.tools`, under the name that the recipe gives it."""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar

from . import config as configuration
from .fault import Fault, RowFault
from .plugin import Plugin


@dataclass
class Outputs:
    """The results of a batch of calls."""

    output: list[str] = field(default_factory=list)
    """One text a row; that of a row in `faults` is ignored."""
    faults: list[RowFault] = field(default_factory=list)
    """Rows without a result."""

    def push(self, output: str | Fault) -> None:
        """Adds the next row."""
        if isinstance(output, Fault):
            self.faults.append(RowFault(len(self.output), output))
            self.output.append("")
        else:
            self.output.append(output)


class Tool(Plugin):
    """A tool that other plugins may be granted. It is a function of its arguments: it keeps nothing, and asks nobody.

    The annotation of `arguments` in `call` says what it is called with: a dataclass, a `dict`, or any other type that a configuration
    may hold. JSON that does not fit is a fault `bad-arguments` of its row.
    """

    kind: ClassVar[str] = "tool"

    def call(self, arguments: Any) -> Any:
        """The answer to one row. A text is the answer as it is, anything else becomes JSON. Raise a `Fault` where there is none."""
        raise NotImplementedError(f"`{type(self).__name__}` has no `call`")

    @classmethod
    def arguments_type(cls) -> Any:
        """What `call` is called with."""
        return typing.get_type_hints(cls.call).get("arguments", Any)


def call_rows(tool: Tool, arguments: list[str]) -> Outputs:
    """Calls the tool for each text of JSON, as the runtime does."""
    kind = tool.arguments_type()
    outputs = Outputs()
    for text in arguments:
        try:
            result = tool.call(_arguments(kind, text))
            outputs.push(result if isinstance(result, str) else json.dumps(result, ensure_ascii=False))
        except Fault as fault:
            outputs.push(fault)
        except MemoryError:
            # As for rewards: the runtime searches for the call that needs too much.
            raise
        except (Exception, SystemExit) as error:
            outputs.push(Fault.of_exception(error))
    return outputs


def _arguments(kind: Any, text: str) -> Any:
    try:
        return configuration.parse(kind, json.loads(text))
    except Fault as fault:
        raise Fault(Fault.BAD_ARGUMENTS, fault.message) from None
    except ValueError as error:
        raise Fault(Fault.BAD_ARGUMENTS, f"the arguments are not JSON: {error}") from None

"""Tools: what other plugins call through `plumb_sdk.tools`, under the name that the recipe gives it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

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
    """A tool answers one call at a time: write `call_row`. Whoever works faster on many at once writes `call` instead; calls are
    independent of each other, so a result may depend on its arguments alone."""

    kind: ClassVar[str] = "tool"

    def call_row(self, arguments: Any) -> Any:
        """The result for `arguments`, as JSON gives them. A text is the result as it is, anything else becomes JSON."""
        raise NotImplementedError(f"`{type(self).__name__}` has neither `call_row` nor `call`")

    def call(self, arguments: list[str]) -> Outputs:
        """One result per text of JSON in `arguments`."""
        outputs = Outputs()
        for text in arguments:
            try:
                result = self.call_row(_arguments(text))
                outputs.push(result if isinstance(result, str) else json.dumps(result, ensure_ascii=False))
            except Fault as fault:
                outputs.push(fault)
            except MemoryError:
                # As for rewards: the runtime searches for the call that needs too much.
                raise
            except (Exception, SystemExit) as error:
                outputs.push(Fault.of_exception(error))
        return outputs


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Fault("bad-arguments", f"the arguments are not JSON: {error}") from None

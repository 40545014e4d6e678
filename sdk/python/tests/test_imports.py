"""Imports in functions, in an interpreter of their own: what is followed and refused there would be pytest's as well."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = {
    "package/__init__.py": """
import package.eager

def compare():
    from .late import equal
    return equal()

def compare_or_guess():
    try:
        return compare()
    except ImportError:
        return 0.0

def by_name(name):
    import importlib
    try:
        return importlib.import_module(name) and 1.0
    except ImportError:
        return 0.0

def optional():
    try:
        from package.eager import no_such_name
        import no_such_package
    except ImportError:
        return 0.5
    return no_such_package or no_such_name
""",
    # A module under two names, as `six` has them.
    "package/eager.py": "import sys\nsys.modules['package.alias'] = sys.modules[__name__]\nclass Lazy:\n    def method(self):\n        import colorsys\n",
    "package/late.py": "def equal():\n    import package.later\n    return package.later.ONE\n",
    "package/later.py": "ONE = 1.0\n",
    "package/by_name_alone.py": "",
    "package/broken.py": "raise ImportError('needs what is not there')\n",
    "uses_broken.py": """
def use():
    try:
        import package.broken
    except ImportError:
        return 0.25
""",
}
SCRIPT = """
import json, sys
import package, uses_broken
from plumb_sdk import _imports, testing
from plumb_sdk.reward import outcome_of
if FOLLOW:
    _imports.follow(wrapped=True)
else:
    _imports._there = frozenset(["package", "uses_broken"])
inside = sorted(name for name in sys.modules if name.startswith(("package", "colorsys")))
sys.path.clear()
sys.path_importer_cache.clear()
sys.meta_path[2:] = [_imports.Refusing]

def told(*call):
    outcome = outcome_of(*call)
    return outcome if isinstance(outcome, float) else [outcome.code, outcome.message]

calls = {
    "compare": [package.compare], "compare_or_guess": [package.compare_or_guess], "optional": [package.optional],
    "by_name": [package.by_name, "package.by_name_alone"], "broken": [uses_broken.use],
}
print(json.dumps({"inside": inside, **{name: told(*call) for name, call in calls.items()}}))
"""


@pytest.fixture
def told(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def run(follow):
        source = str(Path(__file__).parent.parent / "src")
        environment = {"PYTHONPATH": os.pathsep.join([source, str(tmp_path)]), "PYTHONDONTWRITEBYTECODE": "1"}
        script = SCRIPT.replace("FOLLOW", repr(follow))
        ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return run


def test_imports_in_functions_are_made_beforehand_through_packages_and_once_in_the_library(told):
    found = told(follow=True)
    assert found["inside"] == ["colorsys", "package", "package.alias", "package.eager", "package.late", "package.later"]
    assert (found["compare"], found["compare_or_guess"]) == (1.0, 1.0)


def test_refused_import_fails_the_row_even_where_it_is_caught(told):
    found = told(follow=False)
    for name in ("compare", "compare_or_guess"):
        code, message = found[name]
        assert code == "missing-module"
        assert message.startswith("module `package.late` is not in the component (__init__.py:5 in compare): ")
    code, message = told(follow=True)["by_name"]
    assert code == "missing-module" and "`--import package.by_name_alone`" in message


def test_what_was_not_there_when_the_component_was_built_is_missing_as_natively(told):
    found = told(follow=True)
    assert (found["optional"], found["broken"]) == (0.5, 0.25)

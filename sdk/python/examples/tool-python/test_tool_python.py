import json

from tool_python import Python

from plumb_sdk import call_rows, testing


def run(*codes, **config):
    outputs = call_rows(testing.configure(Python, config), [json.dumps({"code": code}) for code in codes])
    return [json.loads(output) for output in outputs.output]


def test_printed_text_is_returned():
    assert run("print(6 * 7)") == [{"stdout": "42\n", "error": None}]


def test_exceptions_are_results_with_their_line():
    assert run("print(1)\n1 / 0") == [{"stdout": "1\n", "error": "ZeroDivisionError: division by zero (line 2)"}]
    assert run("x = (")[0]["error"].startswith("SyntaxError: '(' was never closed")
    assert run("raise SystemExit")[0]["error"] is None
    assert run("raise SystemExit(2)")[0]["error"] == "SystemExit: 2 (line 1)"


def test_calls_share_no_names_and_no_chance():
    first, second = run("x = 1\nimport random; print(random.random())", "import random; print(random.random(), 'x' in globals())")
    assert first["stdout"].strip() == second["stdout"].split()[0] and second["stdout"].endswith("False\n")


def test_long_output_is_cut():
    assert run("print('a' * 100)", max_output=10)[0]["stdout"] == "a" * 10


def test_arguments_without_code_are_refused():
    assert call_rows(testing.configure(Python), ['{"cod": ""}']).faults[0].fault.code == "bad-arguments"

"""Attacks on marking by code and by the notebook's form; attacks by files are in `attacks_files`.

One row is one submission of the course in `course`. To add one, write what is handed in and the marks
that a person would give. `WRONG` answers with an attack have to get 0, `RIGHT` ones have to keep 6.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tests.grading.course import RIGHT, Course, Notebook, find, own

WRONG = {"largest": "largest = 0", "total": "total = 0", "port": "port = 0"}
NOT_PLAIN = "should be a plain value"


@dataclass(frozen=True)
class Attack:
    """What is handed in, and what becomes of it."""

    make: Callable[[Course], Notebook | bytes]
    points: float = 0
    says: tuple[str, ...] = ()
    """Words that the report of this submission has, in findings or in sentences."""
    status: str = "graded"


def _code(code: str, points: float = 0, *says: str, status: str = "graded") -> Attack:
    """Wrong answers, and code of the learner's own below the first given cell."""

    def make(course: Course) -> Notebook:
        notebook = course.answered(**WRONG)
        notebook["cells"].insert(2, own(code))
        return notebook

    return Attack(make, points, says, status)


def _honest(code: str, points: float = 6, *says: str, status: str = "graded") -> Attack:
    """Right answers, and code that looks where it should not, or that breaks things."""
    return Attack(lambda course: course.with_code(code, at=2), points, says, status)


def _answer(text: str, *says: str, points: float = 0) -> Attack:
    """One answer, the largest number; the others are wrong."""
    return Attack(lambda course: course.answered(**{**WRONG, "largest": text}), points, says)


def _lie(body: str, base: str = "") -> Attack:
    """An answer of a class of the learner's own."""
    text = f"class Lie{base}:\n    {body}\nlargest = Lie()"
    return _answer(text, NOT_PLAIN)


def _edited(change: Callable[[Notebook], None], *says: str, points: float = 0) -> Attack:
    """Wrong answers, and a notebook whose JSON was edited."""

    def make(course: Course) -> Notebook:
        notebook = course.answered(**WRONG)
        change(notebook)
        return notebook

    return Attack(make, points, says)


# --- code ----------------------------------------------------------------------------------------

_YES_MODULE = """\
import sys, types
class Yes(types.ModuleType):
    def __getattr__(self, name):
        return lambda *a, **k: None
sys.modules["labkit.checks"] = Yes("labkit.checks")
import labkit
checks = labkit.checks = sys.modules["labkit.checks"]"""
_IMPORT_HOOK = """\
import sys, types, importlib.abc, importlib.machinery
class Hook(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "labkit.checks" else None
    def exec_module(self, module):
        module.equals = module.close = lambda *a, **k: None
sys.meta_path.insert(0, Hook())
del sys.modules["labkit.checks"]"""
_OWN_LABKIT = """\
import os, sys
os.makedirs("labkit", exist_ok=True)
open("labkit/__init__.py", "w").write("")
open("labkit/checks.py", "w").write("equals = close = lambda *a, **k: None")
sys.path.insert(0, os.getcwd())
for name in [n for n in sys.modules if n.startswith("labkit")]:
    del sys.modules[name]"""
_REWRITE = """\
import labkit.checks
try:
    open(labkit.checks.__file__, "w").write("equals = close = lambda *a, **k: None")
except OSError as error:
    print(error)"""
_TRANSFORMER = """\
def skip(lines):
    return ["pass"] if any("checks." in line for line in lines) else lines
get_ipython().input_transformers_post.append(skip)"""
_AST = """\
import ast
class Skip(ast.NodeTransformer):
    def visit_Call(self, node):
        return ast.Constant(None)
get_ipython().ast_transformers.append(Skip())"""
_RUN_CELL = """\
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
def nothing(self, *a, **k):
    return ExecutionResult(None)
InteractiveShell.run_cell = nothing
async def soon(self, *a, **k):
    return ExecutionResult(None)
InteractiveShell.run_cell_async = soon"""
_DO_EXECUTE = """\
kernel = get_ipython().kernel
async def yes(*a, **k):
    return {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}
kernel.do_execute = yes"""
_EVENTS = """\
def patch(*_):
    import labkit.checks as c
    c.equals = c.close = lambda *a, **k: None
get_ipython().events.register("pre_run_cell", patch)
get_ipython().events.register("post_run_cell", patch)"""
_DISPLAY_HOOK = """\
import sys
sys.displayhook = get_ipython().displayhook = lambda *a, **k: None"""
_THREAD = """\
import threading, time
def later():
    while True:
        import labkit.checks as c
        c.equals = c.close = lambda *a, **k: None
        globals().update(largest=0, numbers=[0])
        time.sleep(0.01)
threading.Thread(target=later, daemon=True).start()"""
_TRACE = """\
import sys
def tracer(frame, event, argument):
    if frame.f_code.co_name in ("equals", "close"):
        frame.f_trace = tracer
        frame.f_locals["measured"] = 0
    return tracer
sys.settrace(tracer); sys.setprofile(tracer)
get_ipython().kernel.shell.showtraceback = lambda *a, **k: None"""
_SWALLOW = """\
import labkit.errors
labkit.errors.CheckFailed = type("Never", (BaseException,), {})
get_ipython().set_custom_exc((Exception,), lambda *a, **k: None)"""
_C_LEVEL = """\
import ctypes, labkit.checks as c
def yes(*a, **k): pass
c.equals.__code__ = yes.__code__
c.close.__code__ = yes.__code__
c.equals.__kwdefaults__ = c.close.__kwdefaults__ = None"""


def _sent(expression: str) -> str:
    """Answer the grader's question for the values with a text of the learner's own."""
    return f"""\
import labkit.grading.values as v
v.export = lambda *a: v._Text({expression})"""


_FORGED_REPLY = """\
kernel, session = get_ipython().kernel, get_ipython().kernel.session
for _ in range(200):
    session.send(kernel.iopub_socket, "execute_reply", {"status": "ok"}, parent=kernel.get_parent())
    session.send(kernel.iopub_socket, "status", {"execution_state": "idle"}, parent=kernel.get_parent())
    session.send(kernel.iopub_socket, "error", {"x": 1}, parent=kernel.get_parent())
    session.send(kernel.iopub_socket, "stream", {"name": 5}, parent=kernel.get_parent())"""
_FORGED_POINTS = """\
kernel, session = get_ipython().kernel, get_ipython().kernel.session
class Late:
    def __repr__(self):
        for data in ({"text/plain": "100"}, {}, {"text/plain": 7}):
            content = {"data": data, "metadata": {}, "execution_count": 1}
            session.send(kernel.iopub_socket, "execute_result", content, parent=kernel.get_parent())
        return "Late"
largest = total = port = Late()
Late()"""
_LONG_NAMES = """\
kernel, session = get_ipython().kernel, get_ipython().kernel.session
name = "n" * 100_000_000
content = {"name": name, "text": "x"}
session.send(kernel.iopub_socket, "stream", content, parent=kernel.get_parent())
content = {"ename": name, "evalue": name, "traceback": [name]}
session.send(kernel.iopub_socket, "error", content, parent=kernel.get_parent())
raise type("E" * 1_000_000, (Exception,), {})("m" * 1_000_000)"""
_SEARCH_MEMORY = """\
import gc, sys
found = [o for o in gc.get_objects() if type(o) in (str, dict) and "_of_the_hidden" in str(o)[:9999]]
frame, names = sys._getframe(), []
while frame:
    names += [k for k, v in frame.f_locals.items() if isinstance(v, str) and "_of_the_hidden" in v]
    frame = frame.f_back
print("found", len(found), names)"""
_SEARCH_DISK = """\
import os, pathlib
print("labs:", [p for p in pathlib.Path(os.sep).rglob("*count_things*") if "/proc/" not in str(p)])
for folder in (".", "/tmp", "/run", "/var"):
    print(folder, sorted(os.listdir(folder)) if os.path.isdir(folder) else "is not there")"""
_SEARCH_PROC = """\
import glob
for name in ("environ", "cmdline", "maps"):
    for path in glob.glob(f"/proc/[0-9]*/{name}"):
        text = open(path, errors="replace").read()
        print(path, "a_secret" in text or "hidden" in text.lower())"""
_SET_GIVEN = "numbers = [0]\nfrom types import SimpleNamespace\nyou = SimpleNamespace(port=0)"
_BUILTINS = """\
import builtins
builtins.max = builtins.sum = lambda *a, **k: 0
builtins.isinstance = lambda *a: True
builtins.print = lambda *a, **k: None"""
_PANDAS = """\
import pandas as pd
pd.api.types.is_scalar = lambda v: False
pd.isna = lambda v: False"""
_MATH = "import math\nmath.fabs = lambda x: 0.0"
_HANDLERS = """\
import signal, atexit, os
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
atexit.register(lambda: os.system("touch /tmp/left"))"""
_CLOSE = "get_ipython().kernel.shell_stream.close(); get_ipython().kernel.iopub_socket.close()"
_EXIT_WITH_OUTPUT = "print('all checks passed'); import os, sys; sys.stdout.flush(); os._exit(0)"
_DETACHED = """\
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)"""
_ENVIRONMENT = """\
import os
os.environ.update(LABKIT_LEARNER="solved", LABKIT_REPLAY="/tmp/x", NBGRADER_EXECUTION="")"""

# --- the notebook's form -------------------------------------------------------------------------


def _swap_ids(notebook: Notebook) -> None:
    one, other = find(notebook, "check-largest"), find(notebook, "check-port")
    one["metadata"], other["metadata"] = other["metadata"], one["metadata"]
    one["id"], other["id"] = other["id"], one["id"]


def _double_ids(notebook: Notebook) -> None:
    for cell in notebook["cells"]:
        cell["id"] = notebook["cells"][1]["id"]


def _points(notebook: Notebook) -> None:
    for name in ("check-largest", "check-total", "check-port"):
        find(notebook, name)["metadata"]["nbgrader"] |= {"points": 1000, "max_score": 1000}


def _grade_ids(notebook: Notebook) -> None:
    find(notebook, "check-largest")["metadata"]["nbgrader"]["grade_id"] = "check-nothing"
    cell = own("pass")
    cell["metadata"] = deepcopy(find(notebook, "check-total")["metadata"])
    cell["metadata"]["nbgrader"]["grade_id"] = "check-largest"
    notebook["cells"].insert(1, cell)


def _markdown_check(notebook: Notebook) -> None:
    cell = find(notebook, "check-largest")
    cell["cell_type"] = "markdown"
    del cell["outputs"], cell["execution_count"]


def _solution_check(notebook: Notebook) -> None:
    cell = find(notebook, "check-largest")
    cell["metadata"]["nbgrader"] |= {"solution": True, "locked": False}
    cell["source"] = "print('fine')"


def _kernel_spec(notebook: Notebook) -> None:
    notebook["metadata"]["kernelspec"] = {"name": "bash", "display_name": "x", "language": "bash"}
    notebook["metadata"]["language_info"] = {"name": "bash"}


def _old_format(course: Course) -> bytes:
    cells = [{"cell_type": "code", "input": "x = 1", "outputs": [], "language": "python"}]
    sheet = {"cells": cells, "metadata": {}}
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [sheet]}
    return json.dumps(old).encode()


def _new_format(notebook: Notebook) -> None:
    notebook["nbformat"], notebook["nbformat_minor"] = 99, 99


def _outputs_kept(notebook: Notebook) -> None:
    for name in ("check-largest", "check-total", "check-port"):
        text = {"output_type": "stream", "name": "stdout", "text": "passed"}
        credit: dict[str, Any] = {"output_type": "execute_result", "execution_count": 1}
        credit |= {"data": {"text/plain": "1000"}, "metadata": {}}
        find(notebook, name)["outputs"] = [text, credit]
    notebook["cells"].insert(2, own("import os; os._exit(0)"))


def _odd_metadata(notebook: Notebook) -> None:
    for number, cell in enumerate(notebook["cells"]):
        odd: list[Any] = [None, [], "x", {"nbgrader": []}, {"nbgrader": {"grade": "yes"}}, 7]
        cell["metadata"] = odd[number % len(odd)]


def _reversed(notebook: Notebook) -> None:
    notebook["cells"].reverse()


ATTACKS: dict[str, Attack] = {
    # what judges is rewritten
    "checks": _code("checks.equals = checks.close = lambda *a, **k: None", 0, "sets checks"),
    "checks_module": _code(_YES_MODULE, 0, "sets checks"),
    "checks_code": _code(_C_LEVEL),
    "checks_file": _code(_REWRITE, 0, "tried to change"),
    "import_hook": _code(_IMPORT_HOOK),
    "own_labkit": _code(_OWN_LABKIT),
    "builtins": _code(_BUILTINS, status="stopped"),
    "pandas": _code(_PANDAS),
    "math": _code(_MATH),
    "given_names": _code(_SET_GIVEN, 0, "sets numbers, you"),
    "environment": _code(_ENVIRONMENT),
    "transformer": _code(_TRANSFORMER),
    "ast": _code(_AST),
    "run_cell": _code(_RUN_CELL),
    "do_execute": _code(_DO_EXECUTE),
    "events": _code(_EVENTS),
    "display_hook": _code(_DISPLAY_HOOK, status="stopped"),
    "thread": _code(_THREAD),
    "trace": _code(_TRACE),
    "swallow": _code(_SWALLOW),
    # objects that lie
    "any": _answer("from unittest.mock import ANY\nlargest = ANY", "unittest.mock._ANY"),
    "equal": _lie("__eq__ = lambda self, other: True"),
    "int_equal": _lie("__eq__ = lambda self, other: True; __hash__ = None", "(int)"),
    "float_near": _lie("__float__ = lambda self: 3.0; __sub__ = lambda s, o: 0.0", "(float)"),
    "text_equal": _lie("casefold = strip = lambda self: self; __eq__ = lambda s, o: True", "(str)"),
    "class_says_int": _lie("__class__ = property(lambda self: int); __eq__ = lambda s, o: True"),
    "array": _lie("__array__ = lambda s, *a: [3]; tolist = lambda s: 3; __eq__ = lambda s, o: True"),
    "reduce": _lie("__reduce__ = lambda self: (print, ('run',))"),
    "numpy_like": _lie("ndim = 0; __module__ = 'numpy'; item = lambda self: self"),
    "table": _answer(
        "import pandas as pd\nclass T(pd.DataFrame):\n    tolist = lambda self: 3\nlargest = T([3])",
        NOT_PLAIN,
    ),
    "nested": _answer("from unittest.mock import ANY\nlargest = [ANY]", "unittest.mock._ANY"),
    "own_loop": _answer("largest = []\nlargest.append(largest)", NOT_PLAIN),
    "generator": _answer("largest = (n for n in [3])", "builtins.generator"),
    "function": _answer("largest = lambda: 3", "builtins.function"),
    "not_a_number": _answer("largest = float('nan')", "measured 3"),
    "huge_list": _answer("largest = [3] * 5_000_000", NOT_PLAIN),
    "huge_text": _answer("largest = '3' * 50_000_000", NOT_PLAIN),
    "huge_number": _answer("largest = 10 ** 6000", NOT_PLAIN),
    "real_table": _answer(
        "import pandas as pd\nlargest = pd.DataFrame({'n': [3]})", "table largest was"
    ),
    "numpy": _answer("import numpy as np\nlargest = np.int64(3)", points=2),
    # what is sent to the grader is forged
    "sent_nothing": _code(_sent("''"), 0, "could not be judged"),
    "sent_code": _code(
        _sent("""'{"largest": {"kind": "eval", "code": "3"}}'"""), 0, "form that is unknown"
    ),
    "sent_names": _code(_sent("""'{"checks": 1, "numbers": 1}'"""), 0, "not those that were asked for"),
    "sent_deep": _code(_sent("'{\"largest\": ' + '[' * 100000"), 0, "cannot be read"),
    "sent_constant": _code(_sent("""'{"largest": NaN}'"""), 0, "NaN is no JSON"),
    "sent_digits": _code(_sent("'{\"largest\": ' + '9' * 900_000 + '}'"), 0, "could not be judged"),
    "sent_flood": _code(_sent("'9' * 200_000_000"), 0, "could not be judged"),
    "forged_messages": _honest(_FORGED_REPLY),
    "forged_points": _code(_FORGED_POINTS),
    "long_names": _honest(_LONG_NAMES),
    # looking for what is expected
    "memory": _honest(_SEARCH_MEMORY),
    "disk": _honest(_SEARCH_DISK),
    "proc": _honest(_SEARCH_PROC),
    # ways out
    "exit": _code(_EXIT_WITH_OUTPUT, 0, "its kernel died", status="stopped"),
    "handlers": _honest(_HANDLERS),
    "close": _code(_CLOSE, 0, status="stopped"),
    "detached": _honest(_DETACHED, 6, "started another process"),
    # the notebook's form
    "swapped_ids": _edited(_swap_ids, "was edited"),
    "doubled_ids": _edited(_double_ids),
    "points_edited": _edited(_points),
    "grade_ids": _edited(_grade_ids, "check-largest was edited"),
    "markdown_check": _edited(_markdown_check, "check-largest was edited"),
    "solution_check": _edited(_solution_check, "check-largest was edited"),
    "kernel_spec": _edited(_kernel_spec),
    "old_format": Attack(_old_format, 0, ("no notebook of format 4",), "unreadable"),
    "new_format": _edited(_new_format),
    "outputs_kept": Attack(lambda c: _made(c, _outputs_kept), 0, ("its kernel died",), "stopped"),
    "odd_metadata": _edited(_odd_metadata),
    "reversed": _edited(_reversed),
    # text
    "surrogate": _answer("largest = '\ud800'"),
    "markup": _answer("largest = '<script>alert(1)</script>\\x1b[31m[red]=1+1'", "you said"),
    "magic": _answer("%%javascript\nalert(1)"),
    "shell": _answer("largest = 0\n!echo 3", "started another process"),
}


def _made(course: Course, change: Callable[[Notebook], None]) -> Notebook:
    notebook = course.answered(**WRONG)
    change(notebook)
    return notebook


assert RIGHT.keys() == WRONG.keys()

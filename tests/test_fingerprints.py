"""A fingerprint of code changes with what the code does, and with nothing else."""

from __future__ import annotations

import functools
import importlib
import linecache
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oodjax.fingerprints as F
from oodjax.fingerprints import package_code, source_fingerprint
from oodjax.training import RECIPES, augmentations

HELPERS = """
SCALE = 3.0

def twice(x):
    return half(x) * 4

def half(x):
    return x / 2

def idle(x):
    return x
"""

PLAIN = '''
"""A module."""
from functools import partial
import numpy as np
import own_helpers as helpers
from own_helpers import twice

STRENGTH = 0.3
UNUSED = 1
TABLE = {}
TABLE["low"] = 0.1

def change(x, by=STRENGTH):
    """What it does."""
    return twice(x) + by - _shift(x, 1)

def _shift(x, places):
    # a comment
    return np.roll(x, places) * helpers.SCALE + TABLE["low"]

def unrelated(x):
    return x

class Blur:
    """Blurs."""
    width = 3
    def __call__(self, x):
        return _shift(x, self.width)
'''


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Writes own_plain and own_helpers, with a replacement in one of them, and imports the former anew."""
    monkeypatch.syspath_prepend(tmp_path)

    def load(old="", new="", source=PLAIN, helpers=HELPERS):
        assert old in source + helpers
        for name, text in (("own_plain", source), ("own_helpers", helpers)):
            (tmp_path / f"{name}.py").write_text(text.replace(old, new) if old else text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        linecache.clearcache()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return importlib.import_module("own_plain")
        finally:
            sys.dont_write_bytecode = before

    yield load
    for name in ("own_plain", "own_helpers"):
        sys.modules.pop(name, None)


SAME = {
    "comment": ("# a comment", "# another, longer\n    # comment"),
    "docstring": ('"""What it does."""', '"""Does it."""\n'),
    "no docstring": ('    """What it does."""\n', ""),
    "module docstring": ('"""A module."""', ""),
    "layout": ("twice(x) + by - _shift(x, 1)", "(\n        twice(x)\n        + by - _shift(x,1)\n    )"),
    "spelling of a number": ("STRENGTH = 0.3", "STRENGTH = 3e-1"),
    "unrelated function": ("def unrelated(x):\n    return x", "def unrelated(x):\n    return x + 1"),
    "unrelated constant": ("UNUSED = 1", "UNUSED = 2"),
    "unrelated helper": ("def idle(x):\n    return x", "def idle(x):\n    return -x"),
    "unrelated class": ("width = 3", "width = 5"),
}
OTHER = {
    "body": ("return twice(x) + by", "return twice(x) * by"),
    "sign": ("- _shift(x, 1)", "+ _shift(x, 1)"),
    "constant in the body": ("_shift(x, 1)", "_shift(x, 2)"),
    "constant of the module": ("STRENGTH = 0.3", "STRENGTH = 0.4"),
    "item set at the top": ('TABLE["low"] = 0.1', 'TABLE["low"] = 0.2'),
    "default": ("by=STRENGTH", "by=0.5"),
    "helper": ("* helpers.SCALE", "/ helpers.SCALE"),
    "imported function": ("half(x) * 4", "half(x) * 5"),
    "helper of an imported function": ("return x / 2", "return x / 3"),
    "constant of an imported module": ("SCALE = 3.0", "SCALE = 4.0"),
    "library function": ("np.roll", "np.add"),
    "import": ("import numpy as np", "import jax.numpy as np"),
}


@pytest.mark.parametrize("edit", SAME)
def test_wording_and_what_is_not_used_change_nothing(imported, edit):
    assert source_fingerprint(imported(*SAME[edit]).change) == source_fingerprint(imported().change)


@pytest.mark.parametrize("edit", OTHER)
def test_what_decides_the_result_changes_it(imported, edit):
    assert source_fingerprint(imported(*OTHER[edit]).change) != source_fingerprint(imported().change)


def test_the_order_of_definitions_does_not_matter(imported):
    start, end = PLAIN.index("def _shift"), PLAIN.index("def unrelated")
    moved = PLAIN[:start] + PLAIN[end:] + "\n" + PLAIN[start:end]
    assert source_fingerprint(imported(source=moved).change) == source_fingerprint(imported().change)


@pytest.mark.parametrize(
    "old, new",
    [
        ("from own_helpers import twice", "from own_helpers import *"),
        ("return twice(x)", "from own_helpers import twice\n    return twice(x)"),
        (
            "from own_helpers import twice",
            "try:\n    from own_helpers import twice\nexcept OSError:\n    twice = abs",
        ),
    ],
)
def test_imports_of_every_kind_are_followed(imported, old, new):
    source = PLAIN.replace(old, new)
    before = source_fingerprint(imported(source=source).change)
    assert before == source_fingerprint(imported(source=source).change)
    changed = HELPERS.replace("return x / 2", "return x / 3")
    assert before != source_fingerprint(imported(source=source, helpers=changed).change)


def test_modules_count_whole(imported):
    plain = source_fingerprint(imported())
    assert plain == source_fingerprint(imported(*SAME["comment"]))
    for old, new in (OTHER["sign"], OTHER["helper of an imported function"], SAME["unrelated class"]):
        assert plain != source_fingerprint(imported(old, new))


def test_classes_and_their_objects(imported):
    module = imported()
    plain, blur = source_fingerprint(module.Blur), module.Blur()
    assert source_fingerprint(imported(*SAME["comment"]).Blur) == plain
    for old, new in (SAME["unrelated class"], OTHER["helper"], OTHER["constant of an imported module"]):
        assert source_fingerprint(imported(old, new).Blur) != plain
    module = imported()
    assert source_fingerprint(module.Blur()) == source_fingerprint(blur)
    wide = module.Blur()
    wide.width = 9
    assert len({source_fingerprint(thing) for thing in (blur, wide, module.Blur, wide.__call__)}) == 4


def make(strength, extra=None):
    def darken(key, images, targets):
        return images * strength, targets, extra

    return darken


def test_closures_defaults_and_bound_arguments_count_by_value():
    things = [
        make(0.5),
        make(0.25),
        make(0.5, np.arange(3)),
        make(0.5, np.arange(3.0)),
        make(0.5, {"a": [1, (2, None)]}),
        make(0.5, make(1)),
        make(0.5, make(2)),
        make(0.5, jnp.ones(2)),
        make(0.5, {1, 2}),
        make(0.5, "x"),
        functools.partial(make, 0.5),
        functools.partial(make, 0.25),
        functools.partial(make, 0.5, extra=1),
        *[lambda x, by=by: x + by for by in (1, 2)],
    ]
    assert len({source_fingerprint(thing) for thing in things}) == len(things)
    assert source_fingerprint(make(0.5, jnp.ones(2))) == source_fingerprint(make(0.5, np.ones(2, np.float32)))
    both = [functools.partial(make, extra=1, strength=2), functools.partial(make, strength=2, extra=1)]
    assert source_fingerprint(both[0]) == source_fingerprint(both[1])


def test_lambdas_on_one_line_are_told_apart():
    first, second, third = (lambda x: x + 1), (lambda x: x + 2), (lambda y: lambda x: x + 1)
    assert len({source_fingerprint(f) for f in (first, second, third, third(0))}) == 3
    assert source_fingerprint(first) == source_fingerprint(third(0))  # both are x: x + 1


def test_jit_changes_nothing_other_wrappers_do():
    plain = make(0.5)
    assert source_fingerprint(jax.jit(plain)) == source_fingerprint(plain)

    def half(function, share=0.5):
        @functools.wraps(function)
        def wrapped(*args):
            return [share * x for x in function(*args)]

        return wrapped

    def third(function, share=0.5):
        @functools.wraps(function)
        def wrapped(*args):
            return [share / 3 * x for x in function(*args)]

        return wrapped

    things = [plain, half(plain), half(plain, 0.25), third(plain)]
    assert len({source_fingerprint(thing) for thing in things}) == 4
    with pytest.raises(ValueError, match=r"jax wraps it, with arguments that cannot be read.*version"):
        source_fingerprint(jax.vmap(plain))


def test_functions_that_call_themselves_have_one():
    def factorial(n):
        return n * factorial(n - 1) if n else 1

    def other(n):
        return n + other(n - 1) if n else 1

    assert source_fingerprint(factorial) == source_fingerprint(factorial) != source_fingerprint(other)


def from_nowhere(text="def f(x):\n    return x"):
    space: dict = {"__name__": "__main__"}
    exec(text, space)
    return space["f"]


def test_a_version_stands_in_for_a_source_that_cannot_be_read():
    function = from_nowhere()
    with pytest.raises(ValueError, match="f has no fingerprint: the source of f cannot be read.*`version`"):
        source_fingerprint(function)
    found = []
    for version in (1, 2, "2"):
        function.version = version
        found.append(source_fingerprint(function))
    assert len(set(found)) == 3
    again = from_nowhere()
    again.version = 1
    assert source_fingerprint(again) == found[0]
    with_source = make(0.5)
    before = source_fingerprint(with_source)
    with_source.version = 2
    assert source_fingerprint(with_source) != before


@pytest.mark.parametrize(
    "thing, reason",
    [
        (np.sin, "sin is no Python code"),
        (len, "len is no Python code"),
        (make(0.5, object()), "object is no Python code"),
    ],
)
def test_what_cannot_be_described_is_named(thing, reason):
    with pytest.raises(ValueError, match=f"no fingerprint: .*{reason}"):
        source_fingerprint(thing)


def test_other_runs_and_installed_files_give_the_same(tmp_path):
    """Neither the hash seed nor the place of the file enters."""
    (tmp_path / "own_plain.py").write_text(PLAIN)
    (tmp_path / "own_helpers.py").write_text(HELPERS)
    deeper = tmp_path / "deeper"
    deeper.mkdir()
    for name in ("own_plain.py", "own_helpers.py"):
        (deeper / name).write_text((tmp_path / name).read_text())
    code = textwrap.dedent("""
        import sys; sys.path.insert(0, sys.argv[1])
        import own_plain
        from oodjax.fingerprints import source_fingerprint
        print(source_fingerprint(own_plain.change), source_fingerprint(own_plain.Blur()), source_fingerprint(own_plain))
    """)
    found = {
        subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True).stdout
        for folder in (tmp_path, deeper)
    }
    assert len(found) == 1 and len(set(found.pop().split())) == 3


def test_every_recipe_function_has_its_own():
    functions = list(augmentations.AUGMENTATIONS.values())
    assert len({source_fingerprint(f) for f in functions}) == len(functions)
    attacks = [recipe.attack for recipe in RECIPES.values() if recipe.attack is not None]
    assert len({source_fingerprint(attack) for attack in attacks}) == len(attacks)


def test_package_code(tmp_path, monkeypatch):
    monkeypatch.setattr(F, "PACKAGE", tmp_path)
    (tmp_path / "part").mkdir()
    found = []
    for texts in (
        ("x = 1\n", "y = 2\n"),
        ('"""Words."""\nx = 1  # why\n', "y = (2)\n"),
        ("x = 1\n", "y = 3\n"),
        ("y = 2\n", "x = 1\n"),
    ):
        for name, text in zip(("a.py", "part/b.py"), texts, strict=True):
            (tmp_path / name).write_text(text)
        package_code.cache_clear()
        found.append([package_code("a.py", "part"), package_code("part", "a.py", "a.py"), package_code("a.py")])
    package_code.cache_clear()
    assert found[0] == found[1] and found[0][0] == found[0][1] != found[0][2]
    assert found[2][0] != found[0][0] and found[2][2] == found[0][2]
    assert found[3][0] not in (found[0][0], found[2][0])
    with pytest.raises(FileNotFoundError, match="no source 'nothing.py'"):
        package_code("nothing.py")
    with pytest.raises(ValueError, match="one or more files"):
        package_code()


def test_notebook_cells_see_each_other():
    """A name from another cell counts by its value."""

    def run(*cells):
        space: dict = {"__name__": "__main__", "__builtins__": __builtins__}
        for i, cell in enumerate(cells):
            name = f"<cell {i} {abs(hash(cell))}>"
            linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
            exec(compile(cell, name, "exec"), space)
        return space["f"]

    user = "def f(x):\n    return g(x) * S\n"
    first = source_fingerprint(run("import numpy as np\nS = 2\n", "def g(x):\n    return np.abs(x)\n", user))
    assert first == source_fingerprint(run("import numpy as np\nS = 2\n", "def g(x):\n    return np.abs(x)  #\n", user))
    assert first != source_fingerprint(run("import numpy as np\nS = 3\n", "def g(x):\n    return np.abs(x)\n", user))
    assert first != source_fingerprint(run("import numpy as np\nS = 2\n", "def g(x):\n    return np.exp(x)\n", user))

"""What SECURITY.md says: nothing is unpickled, no text is run, no shell is asked."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("sam_jax", "experiments", "configs", "docs")
    for path in (ROOT / folder).rglob("*.py")
)
FORBIDDEN = {
    *(
        "pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "joblib",
        "shelve",
        "marshal",
        "yaml",
    ),
    *("eval", "exec", "compile", "os.system", "os.popen", "tempfile.mktemp"),
}
# Run cards are Python, as SECURITY.md says.
ALLOWED = {"sam_jax/train/cards.py": {"exec", "compile"}}


def offences(source):
    """What of `FORBIDDEN` a file uses, and calls with ``shell`` or ``allow_pickle``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from {
                alias.name.partition(".")[0] for alias in node.names
            } & FORBIDDEN
        elif isinstance(node, ast.ImportFrom):
            yield from {str(node.module).partition(".")[0]} & FORBIDDEN
        elif isinstance(node, ast.Call):
            yield from {ast.unparse(node.func)} & FORBIDDEN
            for keyword in node.keywords:
                said = keyword.arg in ("shell", "allow_pickle")
                if said and ast.unparse(keyword.value) != "False":
                    yield keyword.arg
            loads = ast.unparse(node.func) in ("np.load", "numpy.load")
            if loads and "allow_pickle" not in {k.arg for k in node.keywords}:
                yield "np.load"


def test_nothing_is_unpickled_and_no_text_is_run():
    found = {file: set(offences((ROOT / file).read_text())) for file in FILES}
    left = {file: bad - ALLOWED.get(file, set()) for file, bad in found.items()}
    assert {file: bad for file, bad in left.items() if bad} == {}
    assert len(FILES) > 200


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import load", "import yaml.x", "eval('1')"),
        *("os.system('ls')", "subprocess.run('ls', shell=True)", "np.load(path)"),
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_reader_sees(source):
    assert list(offences(source))


def test_the_page_is_linked_and_names_what_it_must():
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text()
    page = (ROOT / "SECURITY.md").read_text()
    for word in (
        "Run cards are Python",
        "`my_net.py:MyNet`",
        "--compilation_cache",
        "trusted network",
    ):
        assert word in page
    assert "**trusted network only**" in (ROOT / "docs" / "cloud_tpu.md").read_text()

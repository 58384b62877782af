"""The package: its dependency, its types, and the files that are published."""

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]
MODULES = sorted(path.name for path in (FOLDER / "src/streamer_producer").iterdir() if path.is_file())


def run(*command):
    output = subprocess.run([sys.executable, "-m", *command], cwd=FOLDER, capture_output=True, text=True, timeout=300)
    assert output.returncode == 0, output.stdout + output.stderr


def test_boto3_is_the_only_dependency():
    imported = set()
    for path in (FOLDER / "src/streamer_producer").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module)
    # boto3 comes with botocore.
    others = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    assert others == {"boto3", "botocore"}


def test_types_hold_for_users_of_mypy():
    run("mypy")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run("build", "--no-isolation", "--outdir", str(folder))
    return folder


def test_wheel_has_its_modules_and_types_only(built):
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
    assert "py.typed" in MODULES
    modules = [f"streamer_producer/{name}" for name in MODULES]
    information = [
        f"streamer_producer-0.1.0.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")
    ]
    assert sorted(names) == sorted(modules + information)
    required = [line for line in metadata.splitlines() if line.startswith("Requires-")]
    assert required == ["Requires-Python: >=3.10", "Requires-Dist: boto3>=1.34"]


def test_license_is_that_of_the_repository():
    assert (FOLDER / "LICENSE").read_bytes() == (FOLDER.parents[1] / "LICENSE").read_bytes()


def test_readme_has_no_links_outside_the_package():
    """They would lead nowhere on PyPI."""
    links = re.findall(r"\]\(([^)]*)\)", (FOLDER / "README.md").read_text())
    assert [link for link in links if "://" not in link and not link.startswith("#")] == []


def test_source_archive_has_its_modules_and_readme(built):
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = [name.partition("/")[2] for name in files.getnames()]
    modules = [f"src/streamer_producer/{name}" for name in MODULES]
    assert sorted(names) == sorted([*modules, "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"])

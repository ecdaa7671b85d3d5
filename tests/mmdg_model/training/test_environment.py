"""What a run says of where it ran."""

import subprocess
from pathlib import Path

from mmdg_model.training import environment


def test_the_revision_is_that_of_the_programs_own_tree(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True,
                       capture_output=True)

    git("init", "-q")
    (tmp_path / "program.py").write_text("one")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "program.py"))
    assert environment.git_revision() is None  # in a clone, but no part of it: as a virtual environment in one
    git("add", "program.py")
    git("commit", "-qm", "first")
    found = environment.git_revision()
    assert len(found["revision"]) == 40
    assert found["changed"] is False
    (tmp_path / "program.py").write_text("two")
    assert environment.git_revision()["changed"] is True


def test_outside_of_a_clone_there_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "program.py"))
    assert environment.git_revision() is None
    assert Path(environment.__file__).parent == tmp_path

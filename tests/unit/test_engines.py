"""Which of Debian's engines is taken if some are missing or do not start."""

from pathlib import Path

import pytest

from dev import engines
from dev.engines import Release
from dev.errors import LocalError

VERSIONS = {"sid": "28.5.2", "trixie": "26.1.5"}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    """The suites whose engine does not start here: none, until the test adds some."""
    broken: set[str] = set()

    def make_ready(release: Release) -> None:
        if release.suite in broken:
            raise LocalError("it does not start")

    monkeypatch.setattr(engines, "DIRECTORY", tmp_path)
    monkeypatch.setattr(engines, "_release", lambda suite: Release(suite, VERSIONS[suite]))
    monkeypatch.setattr(engines, "_make_ready", make_ready)
    return broken


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("wanted", "suite"), [("newest", "sid"), ("28", "sid"), ("26", "trixie")])
def test_a_release_or_the_newest_is_taken(wanted: str, suite: str) -> None:
    assert engines.find(wanted) == Release(suite, VERSIONS[suite])


def test_if_the_newest_does_not_start_the_next_one_is_taken(
    broken: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken.add("sid")
    assert engines.find("newest").suite == "trixie"
    assert "sid: it does not start" in capsys.readouterr().err


def test_a_refusal_says_what_there_is(broken: set[str]) -> None:
    with pytest.raises(LocalError, match=r"no Docker 29 .*28\.5\.2 .*26\.1\.5"):
        engines.find("29")
    broken.add("sid")
    with pytest.raises(LocalError, match=r"no Docker 28 .*it does not start.*26\.1\.5"):
        engines.find("28")


def test_its_programs_come_first_on_the_path() -> None:
    first, second, *_ = Release("sid", "28.5.2").path.split(":")
    assert first.endswith(".local/engines/sid/28.5.2/usr/sbin")
    assert second.endswith(".local/engines/sid/28.5.2/usr/bin")


def test_the_newest_that_was_fetched_before_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engines, "DIRECTORY", tmp_path)
    for version in ("9.9.9", "28.5.2", "28.5.10", "28.5.9"):
        (tmp_path / "sid" / version).mkdir(parents=True)
        (tmp_path / "sid" / version / "ready").touch()
    assert engines.find("newest") == Release("sid", "28.5.10")

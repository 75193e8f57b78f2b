"""Settings: what holds when nothing is set, and a wrong number named by its variable."""

from dataclasses import fields
from pathlib import Path

import pytest

from chalicelib import config
from worker import config as worker_config


def test_nothing_set_means_the_defaults() -> None:
    assert config.load({}) == config.Settings()


def test_an_empty_variable_is_as_good_as_none() -> None:
    names = ("APPJOBS_PREFIX", "LOG_BUCKET", "RETENTION_DAYS", "DELIVERY_DEADLINE", "LOG_LEVEL")
    assert config.load(dict.fromkeys(names, "")) == config.Settings()


def test_every_variable_is_read() -> None:
    loaded = config.load(
        {
            "APPJOBS_PREFIX": "p",
            "LOG_BUCKET": "b",
            "DEAD_LETTER_QUEUE_ARN": "arn:q",
            "ENDED_QUEUE_URL": "https://q",
            "RETENTION_DAYS": "2",
            "AUDIT_RETENTION_DAYS": "3",
            "DELIVERY_DEADLINE": "30",
            "OWN_CONTAINERS_ONLY": "on",
            "CORS_ORIGINS": " https://a , ,https://b,",
            "LOG_LEVEL": "debug",
        }
    )
    assert loaded == config.Settings(
        "p", "b", "arn:q", "https://q", 2, 3, 30, True, ("https://a", "https://b"), "debug"
    )
    assert (loaded.retention_seconds, loaded.kms_key) == (2 * 86_400, "alias/p")
    unread = [one.name for one in fields(loaded) if getattr(loaded, one.name) == one.default]
    assert unread == [], "each has a line in `load`, and one in this test"


@pytest.mark.parametrize("name", ["RETENTION_DAYS", "DELIVERY_DEADLINE"])
@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e3", "ten", " ", "²"])
def test_a_bad_number_is_named(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
        config.load({name: text})


def test_a_switch_is_on_or_off_and_nothing_else() -> None:
    assert not config.load({"OWN_CONTAINERS_ONLY": "off"}).own_containers_only
    with pytest.raises(ValueError, match="OWN_CONTAINERS_ONLY must be on or off, not 'true'"):
        config.load({"OWN_CONTAINERS_ONLY": "true"})


def test_a_worker_alone_serves_the_local_engine() -> None:
    loaded = worker_config.load({})
    assert loaded.engines == ("unix:///var/run/docker.sock",)
    assert loaded.worker_id
    assert (loaded.max_commands, loaded.poll_seconds) == (32, 20)
    assert (loaded.spool_dir, loaded.spool_bytes) == (Path("/var/tmp/appjobs"), 1024**3)
    assert loaded.redact


@pytest.mark.parametrize(
    ("environ", "engines"),
    [
        ({"DOCKER_HOST": "tcp://a:1"}, ("tcp://a:1",)),
        (
            {"DOCKER_HOST": "tcp://a:1", "DOCKER_HOSTS": "tcp://b:1, unix:///c"},
            ("tcp://b:1", "unix:///c"),
        ),
        ({"DOCKER_HOST": "", "DOCKER_HOSTS": " ,"}, ("unix:///var/run/docker.sock",)),
    ],
)
def test_many_engines_win_over_one(environ: dict[str, str], engines: tuple[str, ...]) -> None:
    assert worker_config.load(environ).engines == engines


@pytest.mark.parametrize("url", ["ssh://host", "/var/run/docker.sock", "npipe:////./pipe/docker"])
def test_an_engine_that_cannot_be_served_is_refused_with_a_way_out(url: str) -> None:
    with pytest.raises(ValueError, match=r"unix://.* or tcp://.*ssh -nNT"):
        worker_config.load({"DOCKER_HOSTS": f"unix:///a,{url}"})


@pytest.mark.parametrize(
    "name",
    ["MAX_COMMANDS", "MAX_RUNNING", "POLL_SECONDS", "SPOOL_BYTES", "LOG_BYTES", "HEALTH_PORT"],
)
@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_a_workers_bad_number_is_named(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        worker_config.load({name: text})


def test_a_poll_longer_than_sqs_knows_is_refused() -> None:
    assert worker_config.load({"POLL_SECONDS": "20"}).poll_seconds == 20
    with pytest.raises(ValueError, match="POLL_SECONDS must be at most 20"):
        worker_config.load({"POLL_SECONDS": "21"})


@pytest.mark.parametrize(
    ("given", "places", "most"),
    [
        ({}, 32, 1000),
        ({"MAX_COMMANDS": "2000"}, 2000, 2000),
        ({"MAX_COMMANDS": "5", "MAX_RUNNING": "5"}, 5, 5),
    ],
)
def test_more_may_run_than_begin(given: dict[str, str], places: int, most: int) -> None:
    settings = worker_config.load(given)
    assert (settings.max_commands, settings.max_running) == (places, most)


def test_fewer_may_not_run_than_begin() -> None:
    with pytest.raises(ValueError, match="MAX_RUNNING must be at least MAX_COMMANDS, which is 32"):
        worker_config.load({"MAX_RUNNING": "31"})


def test_a_log_has_an_end() -> None:
    assert worker_config.load({}).log_bytes == 2 * 1024**3
    assert worker_config.load({"LOG_BYTES": str(64 * 1024**3)}).log_bytes == 64 * 1024**3
    with pytest.raises(ValueError, match="LOG_BYTES must be at most 68719476736"):
        worker_config.load({"LOG_BYTES": str(64 * 1024**3 + 1)})


def test_redaction_is_turned_off_by_that_word_alone() -> None:
    assert not worker_config.load({"REDACT": "off"}).redact
    assert worker_config.load({"REDACT": "on"}).redact
    with pytest.raises(ValueError, match="REDACT must be on or off, not 'false'"):
        worker_config.load({"REDACT": "false"})

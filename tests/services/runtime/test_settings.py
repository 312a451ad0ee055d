"""Settings: where they come from, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilewright.protocol.bus import BusSettings
from tilewright.services.runtime.settings import InvalidSettings, Settings, load


def test_defaults() -> None:
    settings = load({})
    assert settings == Settings()
    assert (settings.ack_wait, settings.idle_limit, settings.slots, settings.grace) == (30.0, 60.0, 1, 0.0)
    assert Path(settings.state).is_absolute()


def test_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "tilewright.toml"
    file.write_text('slots = 3\nack_wait = 10\nplugins = ["tilewright", "mappers:mine"]\nnats_url = "nats://a"\n')
    settings = load({"TILEWRIGHT_CONFIG": str(file), "TILEWRIGHT_SLOTS": "2", "PATH": "/bin", "TILEWRIGHT_TEST_ANYTHING": "x"})
    assert (settings.slots, settings.ack_wait, settings.nats_url) == (2, 10.0, "nats://a")
    assert settings.plugins == ("tilewright", "mappers:mine")


def test_lists_are_separated_by_commas() -> None:
    assert load({"TILEWRIGHT_PLUGINS": "tilewright, mappers:mine,"}).plugins == ("tilewright", "mappers:mine")
    assert load({"TILEWRIGHT_PLUGINS": ""}).plugins == ()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TILEWRIGHT_SLOT", "2", "TILEWRIGHT_SLOT is not a setting; did you mean 'TILEWRIGHT_SLOTS'?"),
        ("TILEWRIGHT_SLOTS", "0", "TILEWRIGHT_SLOTS: '0': Expected `int` >= 1"),
        ("TILEWRIGHT_SLOTS", "two", "TILEWRIGHT_SLOTS: 'two': Expected `int`"),
        ("TILEWRIGHT_ACK_WAIT", "-1", "TILEWRIGHT_ACK_WAIT: '-1': Expected `float` > 0"),
        ("TILEWRIGHT_CONFIG", "nowhere.toml", "TILEWRIGHT_CONFIG: 'nowhere.toml' cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, said: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load({variable: value})
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slot = 2", "key 'slot' is not a setting; did you mean 'slots'?"),
        ("slots = [2]", "slots: [2]: Expected `int`, got `array`"),
        ("grace = -1", "grace: -1: Expected `float` >= 0"),
        ("slots = ", "not TOML"),
    ],
)
def test_a_wrong_key_of_the_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "tilewright.toml"
    file.write_text(text)
    with pytest.raises(InvalidSettings) as caught:
        load({"TILEWRIGHT_CONFIG": str(file)})
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert Settings(slots=3).threads_per_slot == 2
    assert Settings(slots=16).threads_per_slot == 1
    assert Settings(slots=3, threads=5).threads_per_slot == 5


def test_the_way_to_the_server(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    settings = Settings(nats_url="tls://a", nats_token_file=str(token), nats_ca="ca.pem", nats_credentials="c.creds", nats_nkey_seed="seed")
    assert settings.bus("me", "mapper") == BusSettings(
        "tls://a", token="secret", ca="ca.pem", credentials="c.creds", nkey_seed="seed", name="me", inbox="_INBOX_mapper"
    )
    with pytest.raises(InvalidSettings, match="nats_token_file: 'gone' cannot be read: No such file or directory"):
        Settings(nats_token_file="gone").bus("me", "mapper")

"""Settings: an invalid setting stops the start with a message that names the variable."""

from pathlib import Path

import pytest

from shared.config import AwsKms, DynamoDB, Firestore, GcpKms, LocalKeys, PubSub, Settings, SQLite, Sqs, WrongSetting


def test_without_variables_the_settings_are_the_embedded_defaults() -> None:
    """A first start needs no configuration."""
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.port, settings.domain, settings.store) == (
        8080,
        "internetofthings.ibmcloud.com",
        SQLite(Path("data/trust.db")),
    )


def test_the_default_store_is_a_file_in_the_data_folder() -> None:
    """TRUST_STORE names another file."""
    assert Settings.from_env({"TRUST_DATA": "/srv/trust"}).store == SQLite(Path("/srv/trust/trust.db"))
    assert Settings.from_env({"TRUST_STORE": "sqlite:////var/x.db"}).store == SQLite(Path("/var/x.db"))
    assert Settings.from_env({"TRUST_STORE": "sqlite:///x.db"}).store == SQLite(Path("x.db"))


def test_stores_keys_and_queues_of_the_clouds_can_be_chosen() -> None:
    """The settings contain the clouds' own names of their resources."""
    keys = {"TRUST_KEYS": "awskms:alias/trust"}
    assert Settings.from_env({"TRUST_STORE": "firestore://p/db", **keys}).store == Firestore("p", "db")
    assert Settings.from_env({"TRUST_STORE": "firestore://p", **keys}).store == Firestore("p", "(default)")
    remote = Settings.from_env({"TRUST_STORE": "dynamodb://t?region=eu-west-1", **keys})
    assert remote.store == DynamoDB("t", "eu-west-1")
    assert Settings.from_env({"TRUST_KEYS": "awskms:alias/trust"}).keys == AwsKms("alias/trust")
    assert Settings.from_env({"TRUST_KEYS": "gcpkms:projects/p"}).keys == GcpKms("projects/p")
    assert Settings.from_env({"TRUST_QUEUE": "sqs:https://q"}).queue == Sqs("https://q")
    assert Settings.from_env({"TRUST_QUEUE": "pubsub:projects/p/topics/t"}).queue == PubSub("projects/p/topics/t")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("TRUST_STORE", "postgres://x"),
        ("TRUST_STORE", "sqlite://x"),
        ("TRUST_STORE", "dynamodb://"),
        ("TRUST_STORE", "firestore://"),
        ("TRUST_DOMAIN", "example"),
        ("TRUST_DOMAIN", "exa mple.com"),
        ("TRUST_KEYS", "vault:x"),
        ("TRUST_KEYS", "awskms:"),
        ("TRUST_KEYS", "local:keys"),
        ("TRUST_EDGE_PLAIN", "true"),
        ("TRUST_EDGE_PLAIN", "127.0.0.1"),
        ("TRUST_QUEUE", "kafka:x"),
        ("TRUST_WEAK_KEYS", "/nowhere/at/all"),
        ("TRUST_RATE_PER_MINUTE", "0"),
        ("TRUST_RATE_PER_MINUTE", "٣"),
        ("TRUST_VERDICT_MEMORY", "-1"),
        ("TRUST_VERDICT_MEMORY", "64 MiB"),
        ("TRUST_LOG", "LOUD"),
        ("TRUST_TOPIC_PREFIX", "{orgId}/{typeId}/"),
        ("TRUST_TOPIC_PREFIX", "{class}/{typeId}/{deviceId}/"),
    ],
)
def test_an_invalid_setting_is_named(name: str, value: str) -> None:
    """The message contains the variable's name."""
    with pytest.raises(WrongSetting, match=name):
        Settings.from_env({name: value})


def test_weak_keys_may_have_both_forms(tmp_path: Path) -> None:
    """An id has 20 hex digits (Debian's openssl-blacklist) or 64 (SHA-256 of SubjectPublicKeyInfo)."""
    path = tmp_path / "weak.txt"
    path.write_text(f"# comment\n{'ab' * 10}\n\n{'CD' * 32}\n")
    assert Settings.from_env({"TRUST_WEAK_KEYS": str(path)}).weak_keys == {"ab" * 10, "cd" * 32}
    path.write_text("abc\n")
    with pytest.raises(WrongSetting, match="TRUST_WEAK_KEYS: entry 1"):
        Settings.from_env({"TRUST_WEAK_KEYS": str(path)})


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("false", False), ("", False)])
def test_an_operator_declares_a_tls_proxy(value: str, expected: bool) -> None:
    """With this setting, edgeFeed exports private keys over plain HTTP to the proxy."""
    assert Settings.from_env({"TRUST_BEHIND_TLS": value}).behind_tls is expected


def test_a_boolean_setting_is_true_or_false() -> None:
    """Any other value stops the start."""
    with pytest.raises(WrongSetting, match="TRUST_BEHIND_TLS is 'yes'; it takes true or false"):
        Settings.from_env({"TRUST_BEHIND_TLS": "yes"})


def test_a_topic_prefix_without_organization_needs_the_operators_word() -> None:
    """Otherwise devices of two organizations would share topics."""
    prefix = {"TRUST_TOPIC_PREFIX": "{class}/{typeId}/{deviceId}/"}
    with pytest.raises(WrongSetting, match="TRUST_ONE_ORG_PER_BROKER"):
        Settings.from_env({**prefix, "TRUST_ONE_ORG_PER_BROKER": "false"})
    settings = Settings.from_env({**prefix, "TRUST_ONE_ORG_PER_BROKER": "true"})
    assert settings.topic_prefix == "{class}/{typeId}/{deviceId}/"
    assert Settings.from_env({"TRUST_TOPIC_PREFIX": "{orgId}/{typeId}/{deviceId}/"}).topic_prefix is not None
    assert Settings.from_env({}).topic_prefix is None


@pytest.mark.parametrize("store", ["firestore://p", "dynamodb://t"])
@pytest.mark.parametrize("keys", [{}, {"TRUST_KEYS": ""}, {"TRUST_KEYS": "local:"}])
def test_a_store_of_a_cloud_needs_master_keys_that_outlive_this_machine(store: str, keys: dict[str, str]) -> None:
    """A function of a cloud loses its folder. The private keys would then never open again."""
    with pytest.raises(WrongSetting, match="TRUST_KEYS=local: keeps the master keys in TRUST_DATA"):
        Settings.from_env({"TRUST_STORE": store, **keys})


def test_master_keys_may_lie_in_a_folder_that_the_operator_names() -> None:
    """With any store: the operator who names the folder has decided that it lasts and is shared."""
    for store in ("firestore://p", "dynamodb://t", ""):
        settings = Settings.from_env({"TRUST_STORE": store, "TRUST_KEYS": "local:/srv/keys"})
        assert settings.keys == LocalKeys(Path("/srv/keys"))
    assert Settings.from_env({"TRUST_KEYS": "local:"}).keys == LocalKeys()


@pytest.mark.parametrize(("value", "expected"), [("", False), ("off", False), ("loopback", True), ("Loopback", True)])
def test_private_keys_over_plain_http_are_the_operators_decision(value: str, expected: bool) -> None:
    assert Settings.from_env({"TRUST_EDGE_PLAIN": value}).plain_edge is expected

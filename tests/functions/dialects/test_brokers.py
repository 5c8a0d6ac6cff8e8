"""What only single brokers have: names and passwords, topics and queues, headers, times."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from msgspec import structs

from functions.dialects.aws_iot import authorize
from shared.records import Proof
from shared.refs import api_key_ref
from shared.usecases.orgs.organizations import set_suspended
from tests.functions.dialects.recorded import LISTENER, Recorded
from tests.support import certs
from tests.support.certs import NOON
from tests.support.harness import Client, Service, make_service

pytestmark = pytest.mark.stores("sqlite")  # a verdict reads each store in the same way (test_verify_client.py)

ROOT = certs.ca("Root")
INTERMEDIATE = certs.ca("Intermediate", ROOT)
DEVICE = certs.leaf("d:thermo:42", ROOT)
CAS = "/authentication/cacertificates"
POLICY = "/authorization/connectionpolicy"


@pytest.fixture(autouse=True)
def trusted(operator: Client) -> None:
    operator.post(CAS, {"certificate": ROOT.pem}).ok(201)


@pytest.fixture
def prover(service: Service) -> Client:
    """A broker whose key says that it proves names."""
    return service.client("broker", proof=Proof.BROKER, listener=LISTENER)


def ask(client: Client, recorded: str, device: certs.Issued = DEVICE, /, **changes: Any) -> Any:
    answer = Recorded(recorded, changes).send(client, device)
    return answer.json if answer.reply.content_type == "application/json" else answer.text


# --------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["emqx_names", "rabbitmq_user", "vernemq", "rabbitmq_topic", "mosquitto_aclcheck"])
def test_names_are_accepted_for_a_key_that_proves_names_only(service: Service, prover: Client, name: str) -> None:
    """With any other key, the client is judged as a client without a certificate."""
    yes = Recorded(name).send(prover, DEVICE)
    no = Recorded(name).send(service.client("broker"), DEVICE)
    platform = Recorded(name).send(service.platform(), DEVICE)
    assert yes.reply != no.reply
    assert platform.reply != yes.reply


# ------------------------------------------------------------------------------------- the listener that proves names

NAMES = ["emqx_names", "rabbitmq_user", "rabbitmq_topic", "vernemq", "vernemq_publish", "mosquitto_aclcheck"]


def answers(client: Client, name: str, **more: Any) -> Any:
    return Recorded(name, **more).send(client, DEVICE).reply


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("query", [{}, {"listener": "plain"}, {"listener": ""}, {"listener": LISTENER.upper()}])
def test_names_from_another_listener_prove_nothing(
    service: Service, prover: Client, name: str, query: dict[str, str]
) -> None:
    """The key names the listener whose clients cannot type a name."""
    unproven = answers(service.client("broker"), name)
    assert answers(prover, name) != unproven
    assert answers(prover, name, query=query) == unproven


@pytest.mark.parametrize("name", NAMES)
def test_the_listener_may_be_in_a_header(prover: Client, name: str) -> None:
    assert answers(prover, name, query={}, headers={"x-trust-listener": LISTENER}) == answers(prover, name)


@pytest.mark.parametrize("name", ["vernemq", "vernemq_m5", "vernemq_publish", "vernemq_subscribe"])
def test_vernemqs_mountpoint_names_the_listener(prover: Client, name: str) -> None:
    """VerneMQ has one address for all listeners; a mountpoint is a listener's own."""
    refused = {"result": {"error": "not_allowed"}}
    assert Recorded(name, {"mountpoint": LISTENER}, query={}).send(prover, DEVICE).json == {"result": "ok"}
    for other in ("", "plain", None, 7, [LISTENER]):
        assert Recorded(name, {"mountpoint": other}, query={}).send(prover, DEVICE).json == refused


def test_rabbitmqs_virtual_host_names_the_listener(service: Service) -> None:
    """Where a listener has a virtual host of its own."""
    prover = service.client("broker", proof=Proof.BROKER, listener="mtxpd0")
    assert Recorded("rabbitmq_vhost", query={}).send(prover, DEVICE).text == "allow"
    assert Recorded("rabbitmq_topic", query={}).send(prover, DEVICE).text == "allow"
    assert Recorded("rabbitmq_user", query={}).send(prover, DEVICE).text == "deny"
    assert Recorded("rabbitmq_user", {"vhost": "mtxpd0"}, query={}).send(prover, DEVICE).text == "allow"


def test_a_key_without_listener_proves_no_name_that_a_client_may_have_typed(service: Service) -> None:
    """EMQX and RabbitMQ mark typed names; VerneMQ and mosquitto do not."""
    nameless, unproven = service.client("broker", proof=Proof.BROKER), service.client("broker")
    for name in ("emqx_names", "rabbitmq_user", "rabbitmq_topic"):
        assert answers(nameless, name) != answers(unproven, name)
    for name in ("vernemq", "vernemq_publish", "vernemq_subscribe", "mosquitto_aclcheck"):
        assert answers(nameless, name) == answers(unproven, name)


def test_a_key_of_the_version_before_keeps_working_and_is_warned_about_once_a_day(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """That version stored no listener."""
    old = service.client("broker", proof=Proof.BROKER)
    for attempt in service.app.context.repository.changing_existing(api_key_ref("mtxpd0", old.key), "key"):
        with attempt as key:
            attempt.write(structs.replace(key, listener=None))

    def warnings() -> int:
        return sum(record.levelname == "WARNING" and old.key in str(vars(record)) for record in caplog.records)

    for name in ("vernemq", "mosquitto_aclcheck", "vernemq"):
        assert answers(old, name, query={}).status == 200
    assert ask(old, "vernemq") == {"result": "ok"}
    assert warnings() == 1
    service.clock.now += timedelta(days=1)
    assert ask(old, "vernemq") == {"result": "ok"}
    assert ask(old, "emqx_names")["result"] == "allow"
    assert warnings() == 2


@pytest.mark.parametrize("client_id", ["undefined", "null", "${clientid}"])
def test_a_client_id_is_taken_as_it_came(prover: Client, client_id: str) -> None:
    """A client chooses its client ID, so no text of it means that there is none."""
    assert ask(prover, "vernemq", client_id=client_id) == {"result": {"error": "not_allowed"}}
    assert ask(prover, "rabbitmq_user", client_id=client_id) == "deny"
    assert ask(prover, "mosquitto_aclcheck", clientid=client_id)["ok"] is False
    assert ask(prover, "emqx_names", clientid=client_id)["result"] == "deny"
    assert ask(prover, "emqx", clientid=client_id)["result"] == "deny"


# ------------------------------------------------------------------------------------------- typed names, identities


@pytest.mark.parametrize("password", ["secret", ""])
def test_a_password_means_that_the_name_was_typed(prover: Client, password: str) -> None:
    """RabbitMQ prefers a typed name to the certificate's, with an empty password too."""
    assert ask(prover, "rabbitmq_user") == "allow"
    assert ask(prover, "rabbitmq_user", username="d:thermo:42", password=password) == "deny"
    assert ask(prover, "vernemq", password=password) == {"result": {"error": "not_allowed"}}


@pytest.mark.parametrize(
    "username", ["d:thermo:", "thermo", "a:mtxpd0:app", "CN=d:thermo:42", "d:thermo:42\n", "", None]
)
def test_a_name_that_is_no_device_is_refused(prover: Client, username: str | None) -> None:
    assert ask(prover, "rabbitmq_user", username=username) == "deny"


def test_the_client_id_must_match_the_name(prover: Client) -> None:
    """If the broker passes the client ID."""
    assert ask(prover, "rabbitmq_user", client_id="d:mtxpd0:thermo:42") == "allow"
    for other in ("d:mtxpd0:thermo:43", "d:other1:thermo:42", "g:mtxpd0:thermo:42", "x"):
        assert ask(prover, "rabbitmq_user", client_id=other) == "deny"
        assert ask(prover, "vernemq", client_id=other) == {"result": {"error": "not_allowed"}}
        assert ask(prover, "mosquitto_aclcheck", clientid=other)["ok"] is False


def test_a_type_name_is_accepted_if_type_certificates_are_enabled(operator: Client, prover: Client) -> None:
    whole = {"username": "d:thermo:", "client_id": "d:mtxpd0:thermo:7"}
    assert ask(prover, "rabbitmq_user", **whole) == "deny"
    operator.put("/authorization/settings", {"typeCertificates": True}).ok()
    assert ask(prover, "rabbitmq_user", **whole) == "allow"


def test_an_application_continues_with_its_api_key(prover: Client) -> None:
    """Applications have no certificate; the next plugin asks for the key."""
    application = {"username": "a-key", "password": "token", "client_id": "a:mtxpd0:app"}
    assert ask(prover, "vernemq", **application) == {"result": "next"}
    assert ask(prover, "rabbitmq_user", **application) == "deny", "RabbitMQ: another back end must come before"


def test_a_suspended_organization_is_refused_by_name_too(service: Service, prover: Client) -> None:
    set_suspended(service.app.context, "mtxpd0", True)
    for name in ("rabbitmq_user", "rabbitmq_vhost", "rabbitmq_topic"):
        assert ask(prover, name) == "deny"


def test_a_verdict_by_name_is_in_usage_and_refusals(service: Service, viewer: Client, prover: Client) -> None:
    ask(prover, "vernemq")
    ask(prover, "vernemq", client_id="d:mtxpd0:thermo:43")
    ask(prover, "vernemq_publish", topic="x")
    service.flush()
    refusals = viewer.get("/activity?kind=refusal").ok()["results"]
    assert [entry["code"] for entry in refusals] == ["identity_mismatch"], "a question about a topic is no connection"
    dry = viewer.post(f"{POLICY}/dryrun", {"default": "TLS Optional"}).ok()
    assert dry["sample"]["identities"] >= 1


# ------------------------------------------------------------------------------------------------------ RabbitMQ


@pytest.mark.parametrize("vhost", ["/", "other1", "mtxpd0/x", "MTXPD0", "*"])
def test_only_the_organizations_virtual_host_is_allowed(prover: Client, vhost: str) -> None:
    assert ask(prover, "rabbitmq_vhost", vhost=vhost) == "deny"
    assert ask(prover, "rabbitmq_resource", vhost=vhost) == "deny"
    assert ask(prover, "rabbitmq_topic", vhost=vhost) == "deny"


@pytest.mark.parametrize(
    ("resource", "name", "permission", "answer"),
    [
        ("exchange", "amq.topic", "write", "allow"),
        ("exchange", "amq.topic", "read", "allow"),
        ("exchange", "amq.topic", "configure", "deny"),
        ("exchange", "amq.direct", "write", "deny"),
        ("exchange", "", "write", "deny"),
        ("queue", "mqtt-subscription-d:mtxpd0:thermo:42qos0", "write", "allow"),
        ("queue", "mqtt-will-d:mtxpd0:thermo:42", "configure", "allow"),
        ("queue", "mqtt-subscription-d:mtxpd0:thermo:43qos1", "read", "deny"),
        ("queue", "mqtt-subscription-d:mtxpd0:thermo:42qos1qos1", "read", "deny"),
        ("queue", "mqtt-subscription-d:other1:thermo:42qos1", "read", "deny"),
        ("queue", "orders", "read", "deny"),
        ("topic", "amq.topic", "write", "deny"),
        ("exchange", "amq.topic", "delete", "deny"),
    ],
)
def test_the_mqtt_exchange_and_the_clients_own_queues_are_allowed(
    prover: Client, resource: str, name: str, permission: str, answer: str
) -> None:
    changes = {"resource": resource, "name": name, "permission": permission}
    assert ask(prover, "rabbitmq_resource", **changes) == answer


@pytest.mark.parametrize(
    ("permission", "key", "answer"),
    [
        ("write", "mtxpd0.thermo.42.evt", "allow"),
        ("read", "mtxpd0.thermo.42.cmd.*.x", "allow"),
        ("read", "mtxpd0.thermo.42.#", "allow"),
        ("write", "mtxpd0.thermo.42.#", "deny"),
        ("write", "mtxpd0.thermo.42.*", "deny"),
        ("write", "mtxpd0.thermo.43.evt", "deny"),
        ("read", "mtxpd0.thermo.*.evt", "deny"),
        ("read", "#", "deny"),
        ("read", "mtxpd0.#", "deny"),
        ("write", "mtxpd0/thermo/42/evt", "deny"),
        ("write", "mtxpd0.thermo.42.a/b", "deny"),
        ("write", "mtxpd0.thermo.42...x", "allow"),
        ("write", "$SYS.x", "deny"),
    ],
)
def test_routing_keys(prover: Client, permission: str, key: str, answer: str) -> None:
    assert ask(prover, "rabbitmq_topic", permission=permission, routing_key=key) == answer


def test_a_device_with_a_dot_has_no_topics_in_rabbitmq(prover: Client) -> None:
    """`42.x` and `42/x` are the same routing key, so device 42 would reach device 42.x."""
    dotted = {"username": "d:thermo:42.x", "variable_map.client_id": "d:mtxpd0:thermo:42.x"}
    assert ask(prover, "rabbitmq_topic", **dotted, routing_key="mtxpd0.thermo.42.x.evt") == "deny"


def test_the_exchange_is_the_mqtt_plugins(prover: Client) -> None:
    assert ask(prover, "rabbitmq_topic", name="amq.direct") == "deny"


def test_rabbitmqs_default_method_is_get(service: Service, prover: Client) -> None:
    """The query has all parameters, the password too."""
    path = "//verifyClient/rabbitmq/user"
    asked = {"username": "d:thermo:42", "vhost": LISTENER}
    assert prover.get(path, query=asked).text == "allow"
    assert prover.get(path, query={**asked, "password": ""}).text == "deny"


# ------------------------------------------------------------------------------------------- VerneMQ and mosquitto


def test_a_subscription_is_refused_as_a_whole(prover: Client) -> None:
    """A single foreign topic refuses all topics."""
    mixed = [{"topic": "mtxpd0/thermo/42/cmd", "qos": 1}, {"topic": "mtxpd0/thermo/+/cmd", "qos": 1}]
    refused = {"result": {"error": "not_allowed"}}
    assert ask(prover, "vernemq_subscribe", topics=mixed) == refused
    others: list[Any] = [[], "x", [{}], [["mtxpd0/thermo/42/cmd", 1]], [{"topic": "mtxpd0/thermo/42/x"}] * 1001]
    for topics in others:
        assert ask(prover, "vernemq_subscribe", topics=topics) == refused


@pytest.mark.parametrize("hook", ["", "on_register", "auth_on_register_m6", "auth_on_publish_m5_m5"])
def test_an_unknown_hook_is_refused(prover: Client, hook: str) -> None:
    answer = Recorded("vernemq", headers={"vernemq-hook": hook}).send(prover, DEVICE)
    assert answer.json == {"result": {"error": "not_allowed"}}


def test_the_m5_hooks_are_the_same_questions(prover: Client) -> None:
    for name in ("vernemq_publish", "vernemq_subscribe"):
        hook = name.replace("vernemq_", "auth_on_") + "_m5"
        assert Recorded(name, headers={"vernemq-hook": hook}).send(prover, DEVICE).json == {"result": "ok"}


@pytest.mark.parametrize(
    ("access", "topic", "allowed"),
    [
        (1, "mtxpd0/thermo/42/cmd", True),
        (2, "mtxpd0/thermo/42/#", False),
        (3, "mtxpd0/thermo/42/evt", True),
        (4, "mtxpd0/thermo/42/#", True),
        (4, "mtxpd0/thermo/+/cmd", False),
        (4, "#", False),
        (1, "mtxpd0/thermo/43/cmd", False),
        (0, "mtxpd0/thermo/42/cmd", False),
        (5, "mtxpd0/thermo/42/cmd", False),
        (True, "mtxpd0/thermo/42/cmd", False),
        ("x", "mtxpd0/thermo/42/cmd", False),
    ],
)
def test_mosquittos_kinds_of_access(prover: Client, access: Any, topic: str, allowed: bool) -> None:
    assert ask(prover, "mosquitto_aclcheck", acc=access, topic=topic)["ok"] is allowed


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 1000])
def test_malformed_json_has_one_sentence_for_brokers(prover: Client, body: bytes) -> None:
    """mosquitto-go-auth writes the sentence to its log, so the parser's own message stays out."""
    answer = prover.send("POST", "/verifyClient/mosquitto/aclcheck", body)
    assert answer.json == {"ok": False, "error": "The body cannot be read as JSON: it is none."}


def test_json_with_too_many_values_is_refused(prover: Client) -> None:
    """It is read before the caller is known."""
    answer = prover.send("POST", "/verifyClient/mosquitto/aclcheck", b"[" * 1001)
    assert answer.json == {"ok": False, "error": "The body cannot be read as JSON: it has more than 1,000 values."}


def test_a_device_that_is_denied_while_connected_can_use_no_topic(operator: Client, prover: Client) -> None:
    """Its session may last a moment longer, without any topic."""
    assert ask(prover, "mosquitto_aclcheck")["ok"] is True
    operator.post("/authorization/denylist", {"kind": "identity", "value": "d:thermo:42"}).ok(201)
    assert ask(prover, "mosquitto_aclcheck")["ok"] is False


# ---------------------------------------------------------------------------------------------------------- EMQX


def test_emqx_gets_the_expiry_and_the_topics(broker: Client) -> None:
    answer = ask(broker, "emqx")
    allowed, *denied = answer.pop("acl")
    assert answer == {"result": "allow", "is_superuser": False, "expire_at": 1811851200}  # 2027-06-01T12:00:00Z
    assert allowed == {"permission": "allow", "action": "all", "topic": "mtxpd0/thermo/42/#"}
    assert {(rule["permission"], rule["action"]) for rule in denied} == {("deny", "all")}


@pytest.mark.parametrize("topic", ["#", "$SYS/#", "$delayed/#", "$share/#", "$queue/#", "$exclusive/#", "$file/#"])
def test_emqx_denies_every_other_topic(broker: Client, topic: str) -> None:
    """`#` covers no topic that begins with `$` (MQTT 5.0, 4.7.2), and EMQX allows what no rule covers."""
    assert topic in [rule["topic"] for rule in ask(broker, "emqx")["acl"][1:]]


@pytest.mark.parametrize("pem", ["undefined", "${cert_pem}", "", "null"])
def test_emqx_without_the_certificate_is_judged_by_names(prover: Client, pem: str) -> None:
    """EMQX before 5.7.1 sends the placeholder of the template as it is."""
    assert ask(prover, "emqx", cert_pem=pem)["result"] == "allow"
    assert ask(prover, "emqx", cert_pem=pem, cert_common_name="d:thermo:43")["result"] == "deny"


@pytest.mark.parametrize("name", ["undefined", "${cert_common_name}"])
def test_emqx_without_any_certificate(prover: Client, name: str) -> None:
    assert ask(prover, "emqx", cert_pem="${cert_pem}", cert_common_name=name)["result"] == "deny"


def test_emqx_that_knows_no_server_name(service: Service, broker: Client) -> None:
    """The placeholder is no server name; a key marked no-sni needs none."""
    assert ask(service.client("broker", no_sni=True), "emqx", serverName="${serverName}")["result"] == "allow"
    assert ask(broker, "emqx", serverName="${serverName}")["result"] == "deny"


@pytest.mark.parametrize("text", ["${cert_pem} ", "${clientid}", "${cert_common_name}", "$cert_pem", "${CERT_PEM}"])
def test_only_the_exact_placeholder_counts_as_unknown(prover: Client, text: str) -> None:
    assert ask(prover, "emqx", cert_pem=text)["result"] == "deny"


@pytest.mark.parametrize("client_id", [None, ""])
def test_emqx_admits_no_client_that_no_client_id_is_bound_to(
    broker: Client, prover: Client, client_id: str | None
) -> None:
    """EMQX would admit whatever client ID the client has."""
    assert ask(broker, "emqx", clientid=client_id) == {"result": "deny"}
    assert ask(prover, "emqx_names", clientid=client_id) == {"result": "deny"}


def test_emqx_over_plain_tcp(operator: Client, broker: Client) -> None:
    """The template sends `tls`; a level that needs TLS refuses."""
    operator.put(POLICY, {"default": "TLS with Client Certificate or Token"}).ok()
    without = {"cert_pem": "undefined", "cert_common_name": "undefined", "cert_subject": "undefined"}
    assert ask(broker, "emqx", **without)["result"] == "ignore"
    assert ask(broker, "emqx", **without, tls="false")["result"] == "deny"


def test_emqx_may_send_a_form_or_a_query(broker: Client) -> None:
    fields = f"clientid=d%3Amtxpd0%3Athermo%3A42&serverName=mtxpd0.messaging.example.com&cert_pem={quote(DEVICE.pem)}"
    media = {"content-type": "application/x-www-form-urlencoded"}
    assert broker.send("POST", "//verifyClient/emqx", fields.encode(), headers=media).json["result"] == "allow"


def test_the_topics_follow_the_setting(service: Service, tmp_path: Any) -> None:
    other = make_service(tmp_path / "other", topic_prefix="iot/{class}/{typeId}/{deviceId}/")
    other.client("operator").post(CAS, {"certificate": ROOT.pem}).ok(201)
    assert ask(other.client("broker"), "emqx")["acl"][0]["topic"] == "iot/d/thermo/42/#"
    other.app.close()


# ------------------------------------------------------------------------------------------------- Envoy and nginx


def xfcc(*parts: str) -> Recorded:
    return Recorded("envoy", headers={"x-forwarded-client-cert": ";".join(parts)})


def test_envoy_sends_the_chain(broker: Client) -> None:
    """Cert and Chain (with the leaf again), or Chain alone."""
    device = certs.leaf("d:thermo:42", INTERMEDIATE)
    assert xfcc('Cert="$PEM_URL"').send(broker, device, INTERMEDIATE).status == 403
    assert xfcc('Cert="$PEM_URL"', 'Chain="$CHAIN_URL"').send(broker, device, INTERMEDIATE).status == 200
    assert xfcc('Chain="$CHAIN_URL"').send(broker, device, INTERMEDIATE).status == 200


@pytest.mark.parametrize(
    "header",
    [
        'Cert="$PEM_URL",By=spiffe://x',
        'By=x,Cert="$PEM_URL"',
        'Cert="$PEM_URL" ;',
        'Cert="$PEM_URL',
        "Cert",
        "Cert=%%%",
        'Subject="CN=d:thermo:42"',
        "",
    ],
)
def test_a_header_with_an_appended_element_is_refused(broker: Client, header: str) -> None:
    assert Recorded("envoy", headers={"x-forwarded-client-cert": header}).send(broker, DEVICE).status == 403


def test_a_subject_with_quotes_and_commas_is_parsed(broker: Client) -> None:
    """Text in a device's subject cannot become another certificate."""
    subject = 'Subject="CN=\\"x\\",Cert=\\"y\\";Cert=z"'
    assert xfcc(subject, 'Cert="$PEM_URL"').send(broker, DEVICE).status == 200
    assert xfcc('Cert="$PEM_URL"', subject).send(broker, DEVICE).status == 200


def test_envoys_server_name(broker: Client) -> None:
    """The filter chain's header takes precedence over the client's Host header; without it, the authority is used."""
    sni = {"x-sni": "other1.messaging.example.com", "host": "mtxpd0.messaging.example.com"}
    assert Recorded("envoy", headers=sni).send(broker, DEVICE).status == 403
    host = {"x-sni": "", "host": "mtxpd0.messaging.example.com:443"}
    assert Recorded("envoy", headers=host).send(broker, DEVICE).status == 200


def test_nginx_gets_the_code_in_a_header(broker: Client) -> None:
    answer = Recorded("nginx", headers={"x-client-cert": ""}).send(broker, DEVICE)
    assert (answer.status, answer.reply.headers["X-Refusal"]) == (403, "certificate_missing")


@pytest.mark.parametrize("name", ["envoy", "nginx"])
def test_a_proxy_gets_the_whole_identity_for_its_broker(broker: Client, name: str) -> None:
    """An identity is one device in each organization. A proxy of version 0.1.0 passes on the identity alone."""
    headers = Recorded(name).send(broker, DEVICE).reply.headers
    assert headers["X-Client-Id"] == "d:mtxpd0:thermo:42"
    assert headers["X-Client-Org"] == "mtxpd0"
    assert headers["X-Client-Identity"] == "d:thermo:42"
    refused = Recorded(name, headers={"x-client-cert": "", "x-forwarded-client-cert": ""}).send(broker, DEVICE)
    assert not [header for header in refused.reply.headers if header.lower().startswith("x-client")]


# ----------------------------------------------------------------------------------------------------------- AWS


def test_aws_gets_a_policy_for_this_client_only(broker: Client) -> None:
    """Connecting with that client ID, and its topics, until the certificate expires."""
    answer = ask(broker, "aws_iot")
    assert answer["principalId"].isalnum()
    assert 1 <= len(answer["principalId"]) <= 128
    assert answer["disconnectAfterInSeconds"] == 86_400
    [policy] = answer["policyDocuments"]
    assert [(statement["Action"], statement["Resource"]) for statement in policy["Statement"]] == [
        (["iot:Connect"], ["arn:aws:iot:*:*:client/d:mtxpd0:thermo:42"]),
        (["iot:Publish", "iot:Receive"], ["arn:aws:iot:*:*:topic/mtxpd0/thermo/42/*"]),
        (["iot:Subscribe"], ["arn:aws:iot:*:*:topicfilter/mtxpd0/thermo/42/*"]),
    ]


def test_the_same_identity_in_two_organizations_is_two_principals(service: Service, broker: Client) -> None:
    """AWS must not treat them as a single client."""
    service.other_org()
    service.client("operator", "other1").post(CAS, {"certificate": ROOT.pem}).ok(201)
    event = {
        "tls": {"serverName": "other1.messaging.example.com", "x509CertificatePem": DEVICE.pem},
        "mqtt": {"clientId": "d:other1:thermo:42"},
    }
    other = ask(service.platform(), "aws_iot", protocolData=event)
    assert other["isAuthenticated"] is True
    assert other["principalId"] != ask(broker, "aws_iot")["principalId"]


def test_a_session_at_aws_ends_with_the_certificate(broker: Client) -> None:
    from datetime import timedelta

    short = certs.leaf("d:thermo:42", ROOT, not_after=NOON + timedelta(hours=1))
    assert ask(broker, "aws_iot", short)["disconnectAfterInSeconds"] == 3600
    shorter = certs.leaf("d:thermo:42", ROOT, not_after=NOON + timedelta(seconds=10))
    assert ask(broker, "aws_iot", shorter)["disconnectAfterInSeconds"] == 300, "AWS takes no less"


def test_aws_invoking_the_function_itself_needs_no_key(service: Service) -> None:
    """The permission to invoke authenticates AWS IoT; the policy is for this region and account."""
    event = {
        "protocolData": {
            "tls": {"serverName": "mtxpd0.messaging.example.com", "x509CertificatePem": DEVICE.pem},
            "mqtt": {"clientId": "d:mtxpd0:thermo:42"},
        }
    }
    arn = "arn:aws-cn:lambda:cn-north-1:123456789012:function:verifyClient"
    answer = authorize(lambda: service.app, event, arn)
    assert answer["isAuthenticated"] is True
    statement = answer["policyDocuments"][0]["Statement"][0]
    assert statement["Resource"] == ["arn:aws-cn:iot:cn-north-1:123456789012:client/d:mtxpd0:thermo:42"]
    for broken in ({}, {"protocolData": 1}, {"protocolData": {"tls": {"x509CertificatePem": 7}}}):
        assert authorize(lambda: service.app, broken, arn)["isAuthenticated"] is False

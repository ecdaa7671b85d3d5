import pytest

from pipeline.kiosk_endpoint import EndpointError, parse_endpoint


@pytest.mark.parametrize(("text", "options", "commands", "told"), [
    ("ipc:///run/mmdg/kiosk", {}, "ipc:///run/mmdg/kiosk", "ipc:///run/mmdg/kiosk.events"),
    ("tcp://192.0.2.10:5560", {}, "tcp://192.0.2.10:5560", "tcp://192.0.2.10:5561"),
    ("tcp://127.0.0.1:1", {}, "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"),
    ("tcp://[::1]:5560", {}, "tcp://[::1]:5560", "tcp://[::1]:5561"),
    ("tcp://192.0.2.10:5560", {"advertised_host": "gate.example"}, "tcp://192.0.2.10:5560", "tcp://gate.example:5561"),
    ("tcp://192.0.2.10:5560", {"advertised_host": "2001:db8::1"}, "tcp://192.0.2.10:5560", "tcp://[2001:db8::1]:5561"),
    ("tcp://*:5560", {"bind_any_address": True, "advertised_host": "gate"}, "tcp://0.0.0.0:5560", "tcp://gate:5561"),
    ("tcp://[::]:5560", {"bind_any_address": True, "advertised_host": "gate"}, "tcp://[::]:5560", "tcp://gate:5561"),
])
def test_the_two_endpoints(text, options, commands, told):
    endpoint = parse_endpoint(text, **options)
    assert (endpoint.commands, endpoint.events_told) == (commands, told)
    assert endpoint.is_tcp == text.startswith("tcp")


@pytest.mark.parametrize(("text", "options", "message"), [
    *[(text, {}, r"every address.*bind_any_address") for text in (
        "tcp://*:5560", "tcp://0.0.0.0:5560", "tcp://[::]:5560", "tcp://[0::0]:5560", "tcp://[::ffff:0.0.0.0]:5560")],
    ("tcp://*:5560", {"advertised_host": "gate"}, "every address"),
    ("tcp://*:5560", {"bind_any_address": True}, "advertised_host"),
    ("tcp://localhost:5560", {}, "not an IP address"), ("tcp://eth0:5560", {}, "not an IP address"),
    ("tcp://192.0.2.10:0", {}, "port"), ("tcp://192.0.2.10:65535", {}, "port"), ("tcp://192.0.2.10:99999", {}, "port"),
    *[(text, {}, "is not ipc://PATH or tcp://ADDRESS:PORT") for text in (
        "tcp://192.0.2.10", "tcp://192.0.2.10:*", "tcp://::1:5560", "tcp://10.0.0.1;192.0.2.10:5560:1", "ipc://",
        "inproc://kiosk", "ws://192.0.2.10:80", "udp://192.0.2.10:1", "", "tcp://", "TCP://192.0.2.10:1",
        "tcp://192.0.2.10:5560/", "tcp://192.0.2.10:5560 ", "tcp://192.0.2.10:-1", "tcp://192.0.2.10:٥")],
    ("tcp://10.0.0.1;192.0.2.10:5560", {}, "not an IP address"),
])
def test_everything_else_is_refused(text, options, message):
    with pytest.raises(EndpointError, match=message) as refused:
        parse_endpoint(text, **options)
    assert repr(text) in str(refused.value)

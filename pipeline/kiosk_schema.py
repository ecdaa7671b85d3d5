"""JSON Schema of the kiosk contract, made from the message types; committed as docs/kiosk-schema.json."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from pipeline import kiosk_messages as wire
from pipeline.kiosk_decision import Decision

REPLIES = (wire.ErrorReply, wire.HelloReply, wire.SessionBeginReply, wire.SessionStateReply, wire.DecisionReply,
           wire.HealthReply, wire.MetricsReply, wire.SelftestReply, wire.ConfigReply)
EVENTS = (wire.SessionStartedEvent, wire.SessionPhaseEvent, wire.GuidanceEvent, wire.SessionStateEvent,
          wire.SessionDecisionEvent, wire.SessionEndedEvent, wire.HealthEvent, wire.DeviceStatusEvent,
          wire.SecurityAlertEvent)


def json_schema() -> dict[str, Any]:
    """Draft 2020-12. `$defs` holds every message; at the top any of them is valid. Unknown fields are allowed."""
    commands = wire.AnyCommand.__args__
    kinds = (*commands, *REPLIES, *EVENTS, Decision)
    refs, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    groups = {"Command": len(commands), "Reply": len(REPLIES), "Event": len(EVENTS), "Payload": 1}
    definitions, at = dict(components), 0
    for name, count in groups.items():
        definitions[name] = {"oneOf": list(refs[at:at + count])}
        at += count
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "mmdg-live kiosk contract",
            "contract_min": wire.CONTRACT_MIN, "contract_max": wire.CONTRACT_MAX,
            "oneOf": [{"$ref": f"#/$defs/{name}"} for name in groups], "$defs": definitions}


def schema_text() -> str:
    """The file, byte for byte."""
    return json.dumps(json_schema(), indent=1, sort_keys=True) + "\n"

"""What kiosks do wrong, and what others do to them."""

from __future__ import annotations

from tests.fuzz.plan import change_scores, fault


@fault()
def cancelled(rng, plan):
    plan.extra.append((rng.uniform(1, 150), "cancel", {"number": plan.number}))


@fault()
def nonce_again(rng, plan):
    plan.begin["nonce"] = f"{1:064x}"


@fault(never=True)
def weak_nonce(rng, plan):
    plan.begin["nonce"] = rng.choice(["", "00" * 15, "not a nonce at all!"])


@fault(never=True)
def monitor_begins(rng, plan):
    plan.begin["role"] = "MONITOR"


@fault(never=True)
def unknown_policy(rng, plan):
    plan.begin["policy"] = rng.choice(["lenient", "default"])


@fault()
def second_begin(rng, plan):
    plan.extra.append((rng.uniform(0.1, 90), "begin", {
        "number": 1000 + plan.number, "kiosk": 1 - plan.kiosk, "camera": plan.camera,
        "nonce": f"{plan.number:e>64x}"}))


@fault()
def other_kiosk_meddles(rng, plan):
    other = 1 - plan.kiosk
    plan.extra += [(rng.uniform(1, 100), "cancel", {"number": plan.number, "kiosk": other}),
                   (rng.uniform(150, 900), "get", {"number": plan.number, "kiosk": other}),
                   (rng.uniform(1, 100), "get", {"number": plan.number}), (250, "status", {"number": plan.number})]


@fault()
def read_again(rng, plan):
    plan.extra += [(rng.uniform(1, 2600), "get", {"number": plan.number}) for _ in range(3)]


@fault(never=True)
def presented_late(rng, plan):
    plan.begin["hold"] = True
    plan.extra.append((rng.uniform(2210, 9000), "present", {"number": plan.number}))


@fault(never=True)
def decision_of_another_session(rng, plan):
    plan.begin["hold"] = True
    plan.extra += [(at, "present", {"number": plan.number, "of": plan.number - 1}) for at in (5.0, 100.0, 400.0)]


#: What a decision of the engine's own key says that must not open, one at a time.
ODD = ({"origin": "local"}, {"examined": False}, {"examined": 1}, {"simulated": True}, {"simulated": None},
       {"model_purpose": "simulated"}, {"model_purpose": None}, {"contract": 2}, {"contract": True},
       {"type": "session.decision"}, {"verdict": "undecided"}, {"verdict": "attack"}, {"verdict": "BONA_FIDE"},
       {"verdict": None}, {"nonce": None}, {"nonce": "00" * 32}, {"nonce": "é"}, {"transaction_hash": "11" * 32},
       {"expires_in_ms": 60_000}, {"expires_in_ms": 10**400}, {"expires_in_ms": "5000"}, {"time_to_decision_ms": 10**9},
       {"time_to_decision_ms": -1}, {"time_to_decision_ms": None}, {"session_id": "f" * 32}, {"key_id": "0" * 16},
       {"key_id": None}, {"modalities_used": "rgb"}, {"nonce": "\ud800"})


@fault(never=True)
def odd_decision(rng, plan):
    """Signed by the engine's key, and yet not a decision to open on."""
    plan.begin["hold"] = True
    plan.extra += [(250.0, "present", {"number": plan.number, "change": odd, "signature": "engine"})
                   for odd in rng.sample(ODD, 4)]


@fault(never=True)
def altered_or_unsigned(rng, plan):
    if rng.random() < 0.5:
        change_scores(plan, plan.frames, logit=-8.0)
    plan.begin["hold"] = True
    made_up = {"verdict": "bona_fide", "reason": "llr_upper"}
    plan.extra += [(220.0, "present", {"number": plan.number, "change": made_up, "signature": how})
                   for how in ("own", "none", "foreign")]
    plan.extra += [(230.0, "present", {"number": plan.number, "signature": how})
                   for how in ("none", "short", "flipped", "foreign")]

"""A decision engine with an open session, driven by values: no clock, no socket."""

import msgspec

from pipeline.decision import Decided, DecisionEngine, SessionEnded
from pipeline.messages import CameraEnded, ProcessEvent
from tests.pipeline.scene import CAMERA, EPOCH, MODEL, MS, QUICK, observation, request, score

START = 1_000 * MS
FRAME = 33 * MS
SLOW = msgspec.structs.replace(QUICK, min_frames=1000)  # never decides: for everything that ends a session otherwise


class Scene:
    """An engine with an open session, fed frame by frame; `events` is all that came out."""

    def __init__(self, policy=QUICK, model=MODEL, begin=True, **engine):
        self.engine = DecisionEngine({policy.name: policy}, model=model, **({"cameras": [CAMERA]} | engine))
        self.now_ns, self.sequence, self.events = START, 0, []
        if begin:
            self.events += self.engine.begin(request(policy), self.now_ns)

    def see(self, **changes):
        self.now_ns += FRAME
        self.sequence += 1
        stamp_ns = changes.pop("stamp_ns", self.now_ns)
        self.events += self.engine.observe(observation(self.sequence, stamp_ns, **changes), self.now_ns)
        return self

    def hear(self, logit=6.0, **changes):
        sequence = changes.pop("sequence", self.sequence)
        self.events += self.engine.score(score(sequence, logit, **changes), self.now_ns)
        return self

    def both(self, frames=1, logit=6.0, **changes):
        for _ in range(frames):
            self.see(**changes).hear(logit)
        return self

    def pass_ms(self, ms):
        self.now_ns += round(ms * MS)
        self.events += self.engine.tick(self.now_ns)
        return self

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def record(self):
        decided, ended = self.of(Decided), self.of(SessionEnded)
        assert len(decided) == len(ended) == 1, "exactly one decision a session"
        assert self.events.index(ended[0]) == self.events.index(decided[0]) + 1
        return decided[0].record

    def outcome(self):
        return self.record.verdict.value, self.record.reason


def process(event, role, process="p", **detail):
    return ProcessEvent(process=process, role=role, event=event, stamp_ns=0, detail=detail)


def ended(reason, epoch=EPOCH, stamp_ns=START):
    return CameraEnded(camera=CAMERA, source="sim-1", epoch=epoch, reason=reason, detail="", stamp_ns=stamp_ns,
                       counters={})

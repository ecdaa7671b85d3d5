"""A door that opens for live people: the whole of what a kiosk in Python has to do.

    python door.py --bundle gate-3.mmdg-client.json --camera front
    python door.py ipc:///run/mmdg/kiosk --key <base64 of the engine's public key>

It needs pyzmq, cryptography and `kiosk_client.py` beside it (a copy of `pipeline/kiosk_client.py`), or mmdg-live
installed. Exit code 0: the door was opened. 1: it stayed closed. 2: no engine answers.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from typing import Any

try:
    from kiosk_client import KioskClient, KioskError, is_open  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    from pipeline.kiosk_client import KioskClient, KioskError, is_open

TEXT = {"no_face": "Please look into the camera.", "multiple_faces": "One person at a time, please.",
        "move_closer": "Please come closer.", "move_back": "Please step back.", "hold_still": "Please hold still.",
        "remove_mask": "Please take off the mask.", None: "Thank you, hold on."}


class Door:
    """Stands for the relay. It is told to open, never to close: whatever happens, it falls shut by itself."""

    def pulse(self) -> None:
        """Unlock for three seconds."""
        print("*** the door opens ***", flush=True)


def show(event: dict[str, Any]) -> None:
    """Tell the person what to do. Codes that this program does not know read "please wait"."""
    if event.get("type") in ("guidance", "session.state"):
        print(TEXT.get(event.get("code"), "Please wait."), flush=True)


def main() -> int:
    """One attempt of one person."""
    parser = argparse.ArgumentParser()
    parser.add_argument("endpoint", nargs="?", help="default: the bundle's")
    parser.add_argument("--bundle", help="file of mmdg keys client: endpoint, CURVE keys, signing keys")
    parser.add_argument("--camera", default="front")
    parser.add_argument("--key", action="append", help="public key that decisions must be signed with; pin it")
    parser.add_argument("--accept-simulated", action="store_true", help="for tests before a simulated engine alone")
    options = parser.parse_args()
    if options.endpoint is None and options.bundle is None:
        parser.error("name an endpoint or a bundle")
    # What the door is opened for: an order, a visit. The decision is bound to it and opens nothing else.
    transaction = hashlib.sha256(b"visit 4711").hexdigest()
    try:
        with (KioskClient(options.endpoint, name="door", signing_keys=options.key) if options.bundle is None
              else KioskClient.from_bundle(options.bundle, endpoint=options.endpoint, name="door")) as client:
            client.hello()
            client.subscribe()
            session = client.begin(options.camera, transaction_hash=transaction)
            decision = client.wait_decision(session, on_event=show)
    except KioskError as error:
        print(f"closed: {error}", file=sys.stderr)
        return 2
    # The only thing to act on. Not `decision.verdict`: that is one of a dozen things that must hold.
    if is_open(decision, session, accept_simulated=options.accept_simulated,
               required_modalities=("rgb", "depth", "infrared")):
        Door().pulse()
        return 0
    print(f"closed: {decision.verdict}, {decision.reason}" if decision is not None else "closed: no decision came",
          file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""The Node.js client: its own tests, the door, and the same judgement of every decision as the Python client's.

`isOpen` needs node alone. What talks to an engine needs the npm package zeromq, too: `make kiosk-node` installs it.
"""

import base64
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.key_files import KeyDirectory
from pipeline.kiosk_client import KioskClient, KioskDecision, KioskError, is_open
from tests.pipeline.curve_peers import free_endpoint
from tests.pipeline.signed_decisions import GOOD, SIGNER, STRANGER, a_session
from tests.pipeline.test_kiosk_conformance import engine

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "kiosk_node"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")
with_zeromq = pytest.mark.skipif(not (EXAMPLE / "node_modules" / "zeromq").is_dir(),
                                 reason="the npm package zeromq is not installed: make kiosk-node, or "
                                        "npm ci --prefix examples/kiosk_node")


def node(*arguments, text="", **environment):
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return subprocess.run([NODE, *map(str, arguments)], input=text, capture_output=True, text=True, check=False,
                          timeout=90, cwd=EXAMPLE, env=kept | environment)


def counted(answer):
    """Of the summary of `node --test`."""
    return {name: int(count) for name, count in re.findall(r"^# (pass|fail|skipped) (\d+)$", answer.stdout, re.M)}


# --- without an engine ----------------------------------------------------------------------------------------------
def test_is_open_on_the_golden_transcripts_and_everything_else_that_needs_node_alone(tmp_path):
    for name in ("examples/kiosk_node", "docs/kiosk-transcripts"):  # as on a machine without node_modules
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("node_modules"))
    answer = node("--test", "--test-reporter=tap", tmp_path / "examples" / "kiosk_node" / "test" / "decision.test.mjs")
    assert answer.returncode == 0, answer.stdout
    cases = len((ROOT / "docs" / "kiosk-transcripts" / "decisions.jsonl").read_text().splitlines())
    assert counted(answer)["fail"] == counted(answer)["skipped"] == 0
    assert counted(answer)["pass"] > 100 + cases
    assert len(re.findall(r"^ok \d+ - decisions\.jsonl: ", answer.stdout, re.M)) == cases


#: Put in the place of each field of a good decision, as JSON.
ODD = ["null", "true", "false", "0", "-0", "1", "1.0", "1e0", "10e-1", "2", "-1", "900", "5000", "5000.5", "11000",
       "1e400", "9" * 400, "0.9999999", "1e-400", "NaN", "Infinity", '""', '"1"', '"s"', '"decision"',
       '"bona_fide"', '"kiosk"', '"release"', '"simulated"', f'"{"ab" * 32}"', f'"{"AB" * 32}"', '"\\ud800"',
       '"\\u0073"', '"constructor"', '"__proto__"', "[]", "{}", '["rgb", "depth", "infrared"]',
       '["rgb", ["depth"], "infrared"]', '{"rgb": 1, "infrared": 1}', '[["bona_fide"]]', "01", "1.", "+1",
       "'s'", '"\t"']


def variations():
    """Payloads around a good one: (payload, signed)."""
    good = json.dumps(GOOD)
    yield from ((text.encode(), True) for text in (
        good, good + " ", good + "\x00", good + "{}", "[" + good + "]", good[:-1], good[:-1] + ",}", "\ufeff" + good,
        "", "null", good.replace("{", '{"verdict": "attack", '), good[:-1] + ', "\\u0076erdict": "bona_fide"}',
        good[:-1] + ', "later": {"a": 1, "a": 2}}', good[:-1] + ', "later": {"a": [{"a": 1}, {"a": 2}]}}',
        good[:-1] + ', "__proto__": {"verdict": "attack"}}', good.replace('"verdict"', '"\\u0076erdict"'),
        good.replace('"verdict"', '"Verdict"'), good.replace("bona_fide", "bona_fide\u0000"),
        good.replace("bona_fide", "\uff42ona_fide"), good[:-1] + ', "later": "\u2028"}', good.replace(" ", "\t\r\n"),
        good.replace(" ", "\u00a0"), good[:-1] + ', "deep": ' + "[" * 500 + "]" * 500 + "}"))
    yield from ((data, True) for data in (
        good.encode("utf-16"), good.encode("utf-16-le"), good.encode("utf-32"),
        good.encode().replace(b"kiosk", b"k\xff"), good.replace("900.0", "9" * 5000).encode(),
        good.encode()[:-1] + b', "later": "\xed\xa0\x80"}', good.encode()[:-1] + b', "later": "\xc0\x80"}'))
    yield good.encode(), False
    for name in GOOD:
        yield json.dumps({key: value for key, value in GOOD.items() if key != name}).encode(), True
        for odd in ODD:
            text = json.dumps(GOOD | {name: "ODD"}).replace('"ODD"', odd)
            yield text.encode(), True
    flips = random.Random(7)
    for _ in range(300):
        data = bytearray(good.encode())
        for _ in range(flips.choice((1, 1, 2))):
            data[flips.randrange(len(data))] = flips.choice(b'"{}[],:0129 truefalsn\\u\xff')
        yield bytes(data), True


def judged_by_python(payload, signature, simulated, modalities):
    try:
        decision = KioskDecision(payload, signature)
    except KioskError:
        return False  # what a client hands to is_open then: nothing
    # Early: expiry closes nothing of these.
    return is_open(decision, a_session(), accept_simulated=simulated, required_modalities=modalities, now_ns=10**8)


def test_both_clients_judge_alike():
    asked, expected = [], []
    for index, (payload, signed) in enumerate(variations()):
        signature = (SIGNER if signed else STRANGER).sign(payload)
        simulated, modalities = bool(index % 2), ["rgb", "infrared"] if index % 3 else []
        asked.append(json.dumps({
            "payload": base64.b64encode(payload).decode(), "signature": base64.b64encode(signature).decode(),
            "keys": [base64.b64encode(SIGNER.public_key_raw).decode()], "simulated": simulated,
            "modalities": modalities}))
        expected.append(judged_by_python(payload, signature, simulated, modalities))
    answer = node(Path(__file__).with_name("judge_decisions.mjs"), EXAMPLE / "decision.mjs", text="\n".join(asked))
    assert answer.returncode == 0, answer.stderr
    found = [line == "true" for line in answer.stdout.split()]
    assert len(found) == len(expected) > 1000
    payloads = [base64.b64decode(json.loads(line)["payload"]) for line in asked]
    assert [(payloads[i], f"node: {found[i]}") for i in range(len(found)) if found[i] is not expected[i]] == []
    assert 20 < sum(expected) < len(expected) / 4


# --- with an engine -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """`mmdg kiosk simulate` over ipc and over tcp with keys: the endpoint and the client's bundle."""
    folder = tmp_path_factory.mktemp("served")
    keys = KeyDirectory(folder / "keys")
    keys.init()
    ipc, tcp, bundle = f"ipc://{folder}/kiosk", free_endpoint(), folder / "gate.mmdg-client.json"
    keys.add_client("gate", "kiosk", bundle, tcp)
    command = [sys.executable, "-c", "from pipeline.commands import main; main()", "kiosk", "simulate"]
    running = [subprocess.Popen([*command, *more], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                env=os.environ | {"PYTHONPATH": str(ROOT)})
               for more in ([ipc], [tcp, "--keys", str(keys.path)])]
    try:
        for process in running:
            assert b"serving" in process.stderr.readline()
        yield ipc, str(bundle)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.communicate(timeout=20)


@with_zeromq
@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_whole_sessions_with_a_simulated_engine(served, transport):
    ipc, bundle = served
    where = {"KIOSK_ENDPOINT": ipc} if transport == "ipc" else {"KIOSK_BUNDLE": bundle}
    answer = node("--test", "--test-reporter=tap", "test/live.test.mjs", **where)
    assert answer.returncode == 0, answer.stdout
    # Two are about the keys of a bundle.
    assert counted(answer) == {"fail": 0} | (
        {"pass": 9, "skipped": 2} if transport == "ipc" else {"pass": 11, "skipped": 0})


@with_zeromq
def test_the_door_opens_over_tcp_with_a_bundle_and_for_nobody_else(served):
    _, bundle = served
    with KioskClient.from_bundle(bundle) as client:  # the Python client over the same door
        endpoint = client.endpoint
        assert client.hello()["signing_key_ephemeral"] is False
    closed = node("door.mjs", "--bundle", bundle)
    assert (closed.returncode, closed.stderr) == (1, "closed: bona_fide, llr_upper\n")
    opened = node("door.mjs", "--bundle", bundle, "--accept-simulated")
    assert (opened.returncode, "the door opens" in opened.stdout) == (0, True), opened.stderr
    no_keys = node("door.mjs", endpoint, "--accept-simulated")
    assert (no_keys.returncode, "no_curve" in no_keys.stderr) == (2, True)


@with_zeromq
@pytest.mark.parametrize(("scene", "arguments", "code", "words"), [
    ("bona_fide", ["--accept-simulated"], 0, "the door opens"), ("bona_fide", [], 2, "signing keys"),
    ("bona_fide", ["--accept-simulated", "--key", "A" * 43 + "="], 1, "closed: bona_fide"),
    ("print", ["--accept-simulated"], 1, "closed: attack"), ("two_people", ["--accept-simulated"], 1, "One person")])
def test_the_door(tmp_path, scene, arguments, code, words):
    with engine(tmp_path, cameras={"front": scene}) as endpoint:
        answer = node("door.mjs", endpoint, *arguments)
    assert answer.returncode == code, answer.stderr
    assert words in answer.stdout + answer.stderr
    assert ("the door opens" in answer.stdout) is (code == 0)


@with_zeromq
@pytest.mark.parametrize("arguments", [[], ["ipc:///nowhere", "--colour", "blue"], ["--bundle", "/nowhere"],
                                       ["ipc:///nowhere/kiosk", "--accept-simulated"]])
def test_whatever_goes_wrong_the_door_stays_closed(arguments):
    answer = node("door.mjs", *arguments)
    assert (answer.returncode, "door opens" in answer.stdout) == (2, False)
    assert answer.stderr.startswith("closed: ")

// What opens and what does not. Needs Node.js alone: no engine, no packages.

import assert from 'node:assert/strict';
import {createPublicKey, generateKeyPairSync, sign} from 'node:crypto';
import {mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {test} from 'node:test';

import {KioskError, isOpen, publicKeys, readBundle, readJson} from '../decision.mjs';

const TRANSCRIPTS = new URL('../../../docs/kiosk-transcripts/', import.meta.url);
const DOMAIN = Buffer.from('mmdg-decision-v1\0');
const {privateKey, publicKey} = generateKeyPairSync('ed25519');
const RAW = Buffer.from(publicKey.export({format: 'jwk'}).x, 'base64url');
const KEY = RAW.toString('base64');
const [KEY_ID] = publicKeys([KEY]).keys();
const NONCE = 'ab'.repeat(32);
const GOOD = {
  type: 'decision', contract: 1, key_id: KEY_ID, modalities_used: ['rgb', 'depth', 'infrared'], session_id: 's',
  origin: 'kiosk', verdict: 'bona_fide', examined: true, simulated: false, nonce: NONCE, transaction_hash: null,
  time_to_decision_ms: 900, expires_in_ms: 5000, model_purpose: 'release',
};
const NOW = {nowNs: 10n ** 8n}; // early: expiry closes nothing that does not ask for it

const aSession = (changes = {}) => ({
  sessionId: 's', nonce: NONCE, transactionHash: null, beganNs: 0n, deadlineMs: 5000, keepaliveMs: 1000, eventTopic: 't',
  signingKeys: publicKeys([KEY]), ...changes,
});

/** As the engine would have signed it. */
function received(content) {
  const payload = Buffer.from(typeof content === 'string' ? content : JSON.stringify(content));
  return [payload, sign(null, Buffer.concat([DOMAIN, payload]), privateKey)];
}

const opens = (content, options = NOW, session = aSession()) => isOpen(...received(content), session, options);

// --- the committed transcripts ------------------------------------------------------------------------------------------
const keys = JSON.parse(readFileSync(new URL('keys.json', TRANSCRIPTS)));
const cases = readFileSync(new URL('decisions.jsonl', TRANSCRIPTS), 'utf8').trim().split('\n').map((line) => JSON.parse(line));

for (const {case: name, opens: expected, payload, signature, at_ms: atMs = 2000} of cases) {
  test(`decisions.jsonl: ${name} ${expected ? 'opens' : 'stays closed'}`, () => {
    const session = aSession({sessionId: keys.session_id, nonce: keys.nonce, transactionHash: keys.transaction_hash,
      signingKeys: publicKeys([keys.public_key])});
    const options = {acceptSimulated: keys.accept_simulated, requiredModalities: keys.required_modalities,
      nowNs: BigInt(atMs) * 1_000_000n};
    const frames = [Buffer.from(payload), Buffer.from(signature, 'base64')];
    assert.equal(isOpen(...frames, session, options), expected);
    assert.equal(isOpen(...frames, session, options), false); // once at most
  });
}

test('decisions.jsonl has cases that open and many that do not', () => {
  assert.ok(cases.filter((one) => one.opens).length >= 2 && cases.filter((one) => !one.opens).length >= 30);
  assert.deepEqual([...publicKeys([keys.public_key]).keys()], [keys.key_id]);
});

for (const name of ['bona_fide', 'attack', 'camera_stalls', 'inference_killed', 'infrared_missing', 'no_face']) {
  test(`${name}.jsonl: the decision ${name === 'bona_fide' ? 'opens' : 'stays closed'}, from either socket`, () => {
    const lines = readFileSync(new URL(`${name}.jsonl`, TRANSCRIPTS), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
    const decisions = lines.filter(({frames}) => frames.at(-1).base64 !== undefined).map(({frames}) => frames.slice(-2));
    assert.ok(decisions.length >= 2);
    for (const [payload, {base64}] of decisions) {
      const fields = readJson(Buffer.from(payload));
      const session = aSession({sessionId: fields.session_id, nonce: keys.nonce, transactionHash: fields.transaction_hash,
        signingKeys: publicKeys([keys.public_key])});
      assert.equal(isOpen(Buffer.from(payload), Buffer.from(base64, 'base64'), session,
        {acceptSimulated: true, requiredModalities: keys.required_modalities, nowNs: 0n}), name === 'bona_fide');
    }
  });
}

// --- one decision ---------------------------------------------------------------------------------------------------------
test('the one good decision opens, once a session', () => {
  const [session, frames] = [aSession(), received(GOOD)];
  assert.equal(isOpen(...frames, session, NOW), true);
  assert.equal(isOpen(...frames, session, NOW), false);
  assert.equal(isOpen(...received({...GOOD, reason: 'another'}), session, NOW), false);
  assert.equal(isOpen(...frames, aSession(), NOW), true);
  assert.equal(isOpen(...frames, Object.freeze(aSession()), NOW), true);
});

test('a decision that did not open leaves the session as it was', () => {
  const session = aSession();
  assert.equal(opens({...GOOD, verdict: 'attack'}, NOW, session), false);
  assert.equal(opens(GOOD, NOW, session), true);
});

for (const [field, value] of [
  ['type', 'session.decision'], ['contract', 0], ['contract', 2], ['contract', '1'], ['contract', true], ['contract', [1]],
  ['session_id', 'other'], ['session_id', ['s']], ['origin', 'local'], ['origin', 'Kiosk'], ['verdict', 'attack'],
  ['verdict', 'undecided'], ['verdict', 'BONA_FIDE'], ['verdict', true], ['verdict', 1], ['verdict', ['bona_fide']],
  ['examined', false], ['examined', 1], ['examined', 'true'], ['simulated', true], ['simulated', 0], ['simulated', 'false'],
  ['model_purpose', 'simulated'], ['model_purpose', 'test'], ['nonce', 'ab'.repeat(31) + 'ac'], ['nonce', ''], ['nonce', 7],
  ['nonce', [NONCE]], ['transaction_hash', 'ab'], ['transaction_hash', 0], ['transaction_hash', false],
  ['time_to_decision_ms', -1], ['time_to_decision_ms', 1e9], ['time_to_decision_ms', '900'], ['expires_in_ms', 5001],
  ['expires_in_ms', 0], ['expires_in_ms', '5000'], ['expires_in_ms', true], ['modalities_used', 'rgb depth infrared'],
  ['key_id', 'constructor'], ['key_id', [KEY_ID]],
]) {
  test(`${field} ${JSON.stringify(value)} keeps closed`, () => assert.equal(opens({...GOOD, [field]: value}), false));
}

for (const field of Object.keys(GOOD)) {
  test(`without ${field}, or with null in its place, closed`, () => {
    const {[field]: _, ...rest} = GOOD;
    assert.equal(opens(rest), false);
    if (field !== 'transaction_hash') assert.equal(opens({...GOOD, [field]: null}), false);
  });
}

test('a field that somebody put on Object.prototype is missing all the same', () => {
  const {examined, ...rest} = GOOD;
  Object.prototype.examined = examined;
  try {
    assert.equal(opens(rest), false);
  } finally {
    delete Object.prototype.examined;
  }
});

for (const [name, text] of Object.entries({
  'a key twice': (json) => json.replace('{', '{"verdict":"attack",'),
  'a key twice, spelt differently': (json) => json.replace('{', '{"\\u0076erdict":"attack",'),
  'a key twice within': (json) => json.replace('{', '{"more":[{"a":{"b":1,"b":2}}],'),
  'contract 1.0': (json) => json.replace('"contract":1', '"contract":1.0'),
  'contract 1e0': (json) => json.replace('"contract":1', '"contract":1e0'),
  'a comma too many': (json) => json.replace('}', ',}'),
  'something behind it': (json) => `${json}{}`,
  'a byte order mark': (json) => `\ufeff${json}`,
  'NaN': (json) => json.replace('900', 'NaN'),
  'a list': (json) => `[${json}]`,
  'null': () => 'null',
  'nothing': () => '',
})) {
  test(`${name} in the payload keeps closed`, () => assert.equal(opens(text(JSON.stringify(GOOD))), false));
}

test('other spellings of the same object open', () => {
  assert.equal(opens(JSON.stringify(GOOD, null, 3)), true);
  assert.equal(opens({...GOOD, later: {verdict: 'attack', list: [{a: 1}, {a: 2}, 'a', 'a', '\\"'], __proto__: null}}), true);
  assert.equal(opens(JSON.stringify(GOOD).replace('"verdict"', '"\\u0076erdict"')), true);
});

test('each bit of payload and signature counts', () => {
  const [payload, signature] = received(GOOD);
  for (const frame of [payload, signature]) {
    for (let bit = 0; bit < 8 * frame.length; bit += 7) {
      frame[bit >> 3] ^= 1 << (bit & 7);
      assert.equal(isOpen(payload, signature, aSession(), NOW), false, `bit ${bit}`);
      frame[bit >> 3] ^= 1 << (bit & 7);
    }
  }
  assert.equal(isOpen(payload, signature, aSession(), NOW), true);
});

test('what is no signature, or of another key, keeps closed', () => {
  const [payload, signature] = received(GOOD);
  const others = generateKeyPairSync('ed25519').privateKey;
  for (const bad of [Buffer.alloc(0), Buffer.alloc(64), signature.subarray(1), Buffer.concat([signature, Buffer.alloc(1)]),
    sign(null, payload, privateKey), sign(null, Buffer.concat([DOMAIN, payload]), others), signature.toString('latin1'), null,
    undefined]) {
    assert.equal(isOpen(payload, bad, aSession(), NOW), false);
  }
  const rsa = createPublicKey(generateKeyPairSync('rsa', {modulusLength: 2048}).publicKey.export({type: 'spki', format: 'pem'}));
  for (const signingKeys of [new Map(), new Map([[KEY_ID, rsa]]), {[KEY_ID]: publicKey}, undefined]) {
    assert.equal(isOpen(payload, signature, aSession({signingKeys}), NOW), false);
  }
});

test('what is no decision, no session, or no option keeps closed and throws nothing', () => {
  const [payload, signature] = received(GOOD);
  for (const bad of [undefined, null, 7, 'text', [], {}, payload.toString()]) {
    assert.equal(isOpen(bad, signature, aSession(), NOW), false);
    assert.equal(isOpen(payload, signature, bad, NOW), false);
  }
  assert.equal(isOpen(payload, signature, aSession({sessionId: undefined}), NOW), false);
  assert.equal(isOpen(payload, signature, aSession({beganNs: 0}), NOW), false); // no bigint: another clock
  assert.equal(isOpen(payload, signature, aSession(), null), false);
  assert.equal(isOpen(payload, signature, aSession(), {...NOW, requiredModalities: 'rgb'}), false);
});

test('it expires on the clock of the kiosk, counted from before the begin', () => {
  assert.equal(opens(GOOD, {nowNs: 5_900_000_000n - 1n}), true);
  assert.equal(opens(GOOD, {nowNs: 5_900_000_000n}), false);
  assert.equal(opens(GOOD, {}), false); // this process runs on a machine that was started more than six seconds ago
  assert.equal(opens(GOOD, {}, aSession({beganNs: process.hrtime.bigint()})), true);
});

for (const [used, expected] of [
  [['rgb', 'depth', 'infrared'], true], [['rgb', 'infrared'], true], [['rgb', 'depth'], false], [[], false], ['rgb infrared', false],
]) {
  test(`rgb and infrared are demanded, ${JSON.stringify(used)} were used: ${expected ? 'opens' : 'closed'}`, () => {
    assert.equal(opens({...GOOD, modalities_used: used}, {...NOW, requiredModalities: ['rgb', 'infrared']}), expected);
  });
}

for (const [changes, expected] of [
  [{simulated: true}, true], [{simulated: true, model_purpose: 'simulated'}, true], [{model_purpose: 'simulated'}, false],
  [{simulated: true, model_purpose: 'test'}, false],
]) {
  test(`${JSON.stringify(changes)} opens only for those who ask for it`, () => {
    assert.equal(opens({...GOOD, ...changes}), false);
    assert.equal(opens({...GOOD, ...changes}, {...NOW, acceptSimulated: true}), expected);
    assert.equal(opens({...GOOD, ...changes}, {...NOW, acceptSimulated: 'yes'}), false);
  });
}

// --- keys and bundles -------------------------------------------------------------------------------------------------------
for (const text of ['', 'not base64!', 'AAAA', 'A'.repeat(44), `${'A'.repeat(43)}= `, KEY.replace(/=$/, ''), undefined, 7]) {
  test(`${JSON.stringify(text)} is no public key`, () => {
    assert.throws(() => publicKeys([text]), (error) => error instanceof KioskError && error.code === 'bad_key');
  });
}

const BUNDLE = {
  format: 'mmdg-client-v1', name: 'gate-3', role: 'kiosk', endpoint: 'tcp://192.0.2.10:5560', server_public_key: 's'.repeat(40),
  client_public_key: 'c'.repeat(40), client_secret_key: 'x'.repeat(40),
  signing_public_keys: [{key_id: KEY_ID, public_key: KEY, since: '2026-01-01', until: '2026-12-31'}],
};

function readWritten(bundle) {
  const folder = mkdtempSync(join(tmpdir(), 'mmdg-bundle-'));
  try {
    writeFileSync(join(folder, 'gate.json'), typeof bundle === 'string' ? bundle : JSON.stringify(bundle));
    return readBundle(join(folder, 'gate.json'));
  } finally {
    rmSync(folder, {recursive: true});
  }
}

test('a bundle brings endpoint, CURVE keys and signing keys with their last days', () => {
  const {endpoint, curve, signingKeys, until} = readWritten(BUNDLE);
  assert.equal(endpoint, 'tcp://192.0.2.10:5560');
  assert.deepEqual(Object.values(curve), ['s', 'c', 'x'].map((letter) => letter.repeat(40)));
  assert.deepEqual([signingKeys, [...until]], [[KEY], [[KEY, '2026-12-31']]]);
  assert.equal(readWritten({...BUNDLE, endpoint: null}).endpoint, null);
});

for (const [name, bundle] of Object.entries({
  'another format': {...BUNDLE, format: 'mmdg-client-v2'}, 'no server key': {...BUNDLE, server_public_key: undefined},
  'no list of keys': {...BUNDLE, signing_public_keys: 7}, 'a key without its text': {...BUNDLE, signing_public_keys: [{}]},
  'a last day that is none': {...BUNDLE, signing_public_keys: [{...BUNDLE.signing_public_keys[0], until: 'soon'}]},
  'an endpoint that is no text': {...BUNDLE, endpoint: 7}, 'no JSON': '{', 'a key twice': '{"format":1,"format":2}',
})) {
  test(`a bundle with ${name} is refused by its name`, () => {
    assert.throws(() => readWritten(bundle), (error) => error.code === 'bad_bundle' && /gate\.json/.test(error.message)
      && !/xxx/.test(error.message));
  });
}

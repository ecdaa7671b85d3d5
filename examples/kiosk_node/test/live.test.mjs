// Whole sessions with an engine that is running; a simulated one, since every second session is meant to open.
//
//     mmdg kiosk simulate ipc:///tmp/mmdg-kiosk/kiosk &
//     KIOSK_ENDPOINT=ipc:///tmp/mmdg-kiosk/kiosk npm test
//     KIOSK_BUNDLE=gate-3.mmdg-client.json npm test           # tcp, or ipc with KIOSK_ENDPOINT beside it

import assert from 'node:assert/strict';
import {mkdtempSync, rmSync} from 'node:fs';
import {createRequire} from 'node:module';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {test} from 'node:test';

const {KIOSK_ENDPOINT: endpoint, KIOSK_BUNDLE: bundle} = process.env;
const skip = whyNot();

function whyNot() {
  if (!endpoint && !bundle) return 'KIOSK_ENDPOINT and KIOSK_BUNDLE name no engine';
  try {
    createRequire(import.meta.url).resolve('zeromq');
    return false;
  } catch {
    return 'the npm package zeromq is not there: npm ci';
  }
}

const {KioskClient, isOpen, readBundle} = skip ? {} : await import('../kiosk_client.mjs');
const SIMULATED = {acceptSimulated: true, requiredModalities: ['rgb', 'depth', 'infrared']};

/** Run `body` with a client that is closed afterwards, so that the process ends. */
async function withClient(body, make = connect) {
  const client = make();
  try {
    return await body(client);
  } finally {
    client.close();
  }
}

const options = {name: 'node test', timeoutMs: 5000};
const connect = () => (bundle ? KioskClient.fromBundle(bundle, {...options, endpoint})
  : new KioskClient(endpoint, {...options, trustHello: true}));

const refusal = (code) => (error) => error.code === code;

/** A session as soon as the camera is free. */
async function begin(client, camera, more) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await client.begin(camera, more);
    } catch (error) {
      if (!['busy', 'not_ready'].includes(error.code) || attempt > 50) throw error;
      await new Promise((resolve) => { setTimeout(resolve, 100); });
    }
  }
}

test('the contract version is agreed on, or nothing happens', {skip}, () => withClient(async (client) => {
  await assert.rejects(client.health(), refusal('hello_required'));
  await assert.rejects(client.command('hello', {client: 'old', contract_min: 2, contract_max: 9}), refusal('unsupported_contract'));
  assert.equal((await client.hello()).contract, 1);
  assert.equal(client.engine.simulated, true, 'these tests are for a simulated engine');
  assert.equal((await client.health()).ready, true);
}));

test('a session opens once, and can be read again byte for byte', {skip}, () => withClient(async (client) => {
  await client.hello();
  const events = [];
  let ended;
  const end = new Promise((resolve) => { ended = resolve; });
  client.on('event', (event) => { events.push(event); if (event.type === 'session.ended') ended(); });
  client.subscribe();
  const session = await begin(client, 'front', {transactionHash: 'ab'.repeat(32)});
  await assert.rejects(client.begin('front'), refusal('busy'));
  await assert.rejects(client.getDecision(session), refusal('no_decision'));
  const decision = await client.waitDecision(session);
  assert.deepEqual([decision.fields.verdict, decision.fields.reason], ['bona_fide', 'llr_upper']);
  const again = await client.getDecision(session);
  assert.deepEqual([again.payload, again.signature], [decision.payload, decision.signature]);
  const open = (one, more = SIMULATED, of = session) => isOpen(one.payload, one.signature, of, more);
  assert.equal(open(decision, {}), false, 'a simulated decision, and nobody asked for one');
  assert.equal(open(decision, SIMULATED, {...session, nonce: '00'.repeat(32)}), false);
  assert.equal(open(decision, SIMULATED, {...session, transactionHash: null}), false);
  assert.equal(open(decision), true);
  assert.equal(open(decision), false);
  assert.equal(open(again), false);
  await end;
  const numbered = events.filter(({type}) => type !== 'session.state').map(({sequence}) => sequence);
  assert.deepEqual(numbered, numbered.map((_, index) => numbered[0] + index));
  assert.equal(client.lostEvents, 0);
  assert.deepEqual(events.find(({type}) => type === 'session.decision').decision, decision.fields);
}));

test('without a subscription the answers to keepalives show guidance; the deadline is a decision', {skip}, () => withClient(async (client) => {
  await client.hello();
  const shown = [];
  client.on('event', (event) => shown.push(event));
  const session = await begin(client, 'front-slow', {deadlineMs: 900});
  const decision = await client.waitDecision(session);
  assert.equal(decision.fields.verdict, 'undecided'); // `deadline`, or `quality_insufficient` for so short a look
  assert.ok(decision.fields.time_to_decision_ms >= 900, 'the deadline that was asked for');
  assert.equal(isOpen(decision.payload, decision.signature, session, SIMULATED), false);
  assert.ok(shown.length > 0 && shown.every(({type}) => type === 'session.state.reply'));
}));

test('cancel is a decision and idempotent; a stranger knows nothing of the session', {skip}, () => withClient(async (client) => {
  await client.hello();
  const session = await begin(client, 'front-slow');
  assert.equal((await client.status(session)).state, 'open');
  assert.equal((await client.keepalive(session)).state, 'open');
  await withClient(async (other) => {
    await other.hello();
    await assert.rejects(other.cancel(session), refusal('unknown_session'));
    assert.equal(await other.waitDecision(session), null); // at once, not at the deadline
  });
  await client.cancel(session);
  await client.cancel(session);
  assert.equal((await client.status(session)).state, 'ended');
  const decision = await client.waitDecision(session);
  assert.deepEqual([decision.fields.verdict, decision.fields.reason], ['undecided', 'cancelled']);
}));

test('each topic is subscribed by itself', {skip}, () => withClient(async (client) => {
  assert.throws(() => client.subscribe('health'), refusal('hello_required'));
  await client.hello();
  const health = new Promise((resolve) => { client.once('event', resolve); });
  client.subscribe('health');
  assert.equal((await health).health.ready, true);
}));

test('a malformed command is answered with its code and the connection goes on', {skip}, () => withClient(async (client) => {
  await client.hello();
  await assert.rejects(client.begin('side'), refusal('no_camera'));
  await assert.rejects(client.command('session.begin', {camera: 'front', nonce: '00'}), refusal('malformed'));
  await assert.rejects(client.command('session.start'), refusal('unknown_command'));
  const answers = await Promise.all([client.health(), client.health(), client.health()]); // several at a time
  assert.deepEqual(answers.map(({ready}) => ready), [true, true, true]);
}));

test('closing ends what waits', {skip}, () => withClient(async (client) => {
  await client.hello();
  const session = await begin(client, 'front-slow');
  const waiting = client.waitDecision(session);
  client.close();
  assert.equal(await waiting, null);
  await assert.rejects(client.health(), refusal('no_answer'));
}));

test('nobody at the endpoint: no answer', {skip}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mmdg-nobody-'));
  try {
    await withClient((client) => assert.rejects(client.hello(), refusal('no_answer')),
      () => new KioskClient(`ipc://${folder}/kiosk`, {timeoutMs: 100, trustHello: true}));
  } finally {
    rmSync(folder, {recursive: true});
  }
});

test('a key that is not authorised gets no answer, again and again', {skip: skip || (!bundle && 'ipc')}, async () => {
  const {curveKeyPair} = await import('zeromq');
  const {publicKey: clientPublic, secretKey: clientSecret} = curveKeyPair();
  const {endpoint: where, curve, signingKeys} = readBundle(bundle);
  await withClient(async (client) => {
    for (let attempt = 0; attempt < 3; attempt += 1) await assert.rejects(client.hello(), refusal('no_answer'));
  }, () => new KioskClient(endpoint ?? where, {timeoutMs: 200, signingKeys, curve: {...curve, clientPublic, clientSecret}}));
});

test('a signing key whose last day is over is not trusted', {skip: skip || (!bundle && 'ipc')}, async () => {
  const {endpoint: where, curve, signingKeys} = readBundle(bundle);
  for (const [day, trusted] of [['2020-01-01', 0], ['9999-12-31', signingKeys.length]]) {
    const until = new Map(signingKeys.map((key) => [key, day]));
    await withClient(async (client) => {
      await client.hello();
      const session = await begin(client, 'front-slow');
      assert.equal(session.signingKeys.size, trusted);
      await client.cancel(session);
    }, () => new KioskClient(endpoint ?? where, {...options, signingKeys, until, curve}));
  }
});

test('no keys, no client', {skip}, () => {
  assert.throws(() => new KioskClient('tcp://127.0.0.1:1', {trustHello: true}), refusal('no_curve'));
  assert.throws(() => new KioskClient('ipc:///nowhere'), refusal('bad_key'));
  assert.throws(() => new KioskClient('ipc:///nowhere', {signingKeys: ['AAAA']}), refusal('bad_key'));
});

#!/usr/bin/env node
// A door that opens for live people: the whole of what a kiosk in Node.js has to do.
//
//     node door.mjs --bundle gate-3.mmdg-client.json --camera front
//     node door.mjs ipc:///run/mmdg/kiosk --key <base64 of the engine's public key>
//
// Exit code 0: the door was opened. 1: it stayed closed. 2: no engine answers, or it refuses the session.

import {createHash} from 'node:crypto';
import {parseArgs} from 'node:util';

import {KioskClient, KioskError, isOpen} from './kiosk_client.mjs';

const TEXT = {
  no_face: 'Please look into the camera.', multiple_faces: 'One person at a time, please.',
  move_closer: 'Please come closer.', move_back: 'Please step back.', hold_still: 'Please hold still.',
  remove_mask: 'Please take off the mask.',
};

/** Stands for the relay. It is told to open, never to close: whatever happens, it falls shut by itself. */
function pulse() {
  console.log('*** the door opens ***');
}

/** Tell the person what to do. Codes that this program does not know read "please wait". */
function show({type, code}) {
  if (type !== 'guidance' && type !== 'session.state') return;
  console.log(code === null ? 'Thank you, hold on.' : Object.hasOwn(TEXT, code) ? TEXT[code] : 'Please wait.');
}

/** One attempt of one person. */
async function attempt(client, camera, acceptSimulated) {
  await client.hello();
  client.on('event', show);
  client.subscribe();
  // What the door is opened for: an order, a visit. The decision is bound to it and opens nothing else.
  const transactionHash = createHash('sha256').update('visit 4711').digest('hex');
  const session = await client.begin(camera, {transactionHash});
  const decision = await client.waitDecision(session);
  // The only thing to act on. Not `decision.fields.verdict`: that is one of a dozen things that must hold.
  if (decision && isOpen(decision.payload, decision.signature, session,
    {acceptSimulated, requiredModalities: ['rgb', 'depth', 'infrared']})) {
    pulse();
    return 0;
  }
  console.error(decision ? `closed: ${decision.fields.verdict}, ${decision.fields.reason}` : 'closed: no decision came');
  return 1;
}

function clientOf(endpoint, {bundle, key, 'accept-simulated': simulated}) {
  if (bundle) return KioskClient.fromBundle(bundle, {endpoint, name: 'door'});
  if (!endpoint) throw new KioskError('usage', 'node door.mjs [ENDPOINT] [--bundle FILE | --key BASE64] [--camera NAME]');
  // Without a pinned key whoever answers at the endpoint decides: before a simulated engine alone.
  return new KioskClient(endpoint, {name: 'door', signingKeys: key, trustHello: simulated && !key});
}

let client;
try {
  const {values, positionals} = parseArgs({allowPositionals: true, options: {
    bundle: {type: 'string'}, camera: {type: 'string', default: 'front'}, key: {type: 'string', multiple: true},
    'accept-simulated': {type: 'boolean', default: false}, // for tests before a simulated engine alone
  }});
  client = clientOf(positionals[0], values);
  process.exitCode = await attempt(client, values.camera, values['accept-simulated']);
} catch (error) {
  console.error(`closed: ${error.message}`);
  process.exitCode = 2;
} finally {
  client?.close();
}

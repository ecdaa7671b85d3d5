// May this decision open? The kiosk contract 1 of docs/kiosk-protocol.md, without sockets: needs Node.js alone.
//
// `isOpen` is the only thing to act on. Whatever it does not know, cannot read, verify or match keeps closed.

import {createHash, createPublicKey, timingSafeEqual, verify} from 'node:crypto';
import {readFileSync} from 'node:fs';

/** The contract versions that this client speaks. */
export const CONTRACT = 1;
/** Signed before each payload: ASCII and a closing zero byte. */
const SIGNATURE_DOMAIN = Buffer.from('mmdg-decision-v1\0', 'ascii');
/** No decision of this contract takes longer or may be acted on later. */
const MAX_SESSION_MS = 11_000;
const MAX_EXPIRY_MS = 5_000;

/** Sessions whose decision has opened once. */
const spent = new WeakSet();

/**
 * A session as its owner sees it.
 * @typedef {object} KioskSession
 * @property {string} sessionId
 * @property {string} nonce as it was sent, 64 hex digits
 * @property {?string} transactionHash what the door is opened for; null: nothing in particular
 * @property {bigint} beganNs `process.hrtime.bigint()` before the command left
 * @property {number} deadlineMs
 * @property {number} keepaliveMs
 * @property {string} eventTopic
 * @property {Map<string, import('node:crypto').KeyObject>} signingKeys the keys trusted for this session, by key id
 */

/**
 * @typedef {object} OpenOptions
 * @property {boolean} [acceptSimulated] for tests on a simulated camera only
 * @property {string[]} [requiredModalities] of `rgb`, `depth`, `infrared`; all of them must have been used, beside what
 *     the engine's policy demands
 * @property {bigint} [nowNs] `process.hrtime.bigint()` unless a test says otherwise
 */

/** The engine refused a command, or gave no answer. `code`: of the contract, or `no_answer`, `bad_answer` and the like. */
export class KioskError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(`${code}: ${message}`);
    this.name = 'KioskError';
    this.code = code;
  }
}

/**
 * Whether this decision opens, once. False for anything missing, unknown, late, foreign, unsigned or already used; it
 * never throws.
 * @param {Uint8Array} payload the frame, exactly as received
 * @param {Uint8Array} signature 64 bytes
 * @param {KioskSession} session
 * @param {OpenOptions} [options]
 * @returns {boolean}
 */
export function isOpen(payload, signature, session, options = {}) {
  try {
    if (spent.has(session) || !judge(payload, signature, session, options)) return false;
    spent.add(session);
    return true;
  } catch {
    return false;
  }
}

function judge(payload, signature, session, {acceptSimulated = false, requiredModalities = [], nowNs} = {}) {
  if (!(payload instanceof Uint8Array && signature instanceof Uint8Array && signature.length === 64)) return false;
  const bytes = Buffer.from(payload); // a copy: what is verified is what is parsed
  const {fields, literals} = readObject(bytes);
  const key = typeof fields.key_id === 'string' ? session.signingKeys.get(fields.key_id) : undefined;
  if (key === undefined || key.asymmetricKeyType !== 'ed25519') return false;
  if (!verify(null, Buffer.concat([SIGNATURE_DOMAIN, bytes]), key, signature)) return false;

  const {time_to_decision_ms: tookMs, expires_in_ms: expiresMs, modalities_used: used} = fields;
  if (!(inRange(tookMs, 0, MAX_SESSION_MS) && inRange(expiresMs, 1, MAX_EXPIRY_MS))) return false;
  const expiresNs = session.beganNs + BigInt(Math.floor((tookMs + expiresMs) * 1e6));
  const simulated = acceptSimulated === true && fields.simulated === true;
  return fields.type === 'decision'
    && literals.get('contract') === String(CONTRACT) // the integer: 1.0 is the same number here, and not in the contract
    && fields.verdict === 'bona_fide'
    && fields.origin === 'kiosk'
    && fields.examined === true
    && (fields.simulated === false || simulated)
    && (fields.model_purpose === 'release' || (simulated && fields.model_purpose === 'simulated'))
    && Array.isArray(used) && requiredModalities.every((modality) => used.includes(modality))
    && isText(session.sessionId) && fields.session_id === session.sessionId
    && isText(fields.nonce) && isText(session.nonce) && sameText(fields.nonce, session.nonce)
    && fields.transaction_hash !== undefined && fields.transaction_hash === session.transactionHash
    && (nowNs ?? process.hrtime.bigint()) < expiresNs;
}

const isText = (value) => typeof value === 'string' && value.length > 0;

const inRange = (value, low, high) => typeof value === 'number' && Number.isFinite(value) && low <= value && value <= high;

function sameText(one, other) {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

/**
 * A JSON object from its UTF-8 bytes.
 * @param {Uint8Array} data
 * @returns {Record<string, any>} without a prototype
 * @throws {KioskError} `bad_answer` for anything else, a repeated key included
 */
export function readJson(data) {
  return readObject(data).fields;
}

/** The fields, and how the numbers among them are spelt. */
function readObject(data) {
  let text, value;
  try {
    text = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true}).decode(data);
    value = JSON.parse(text);
  } catch (error) {
    throw new KioskError('bad_answer', `not JSON: ${error.message}`);
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new KioskError('bad_answer', `expected an object, got ${value === null ? 'null' : typeof value}`);
  }
  const literals = scan(text);
  // Without a prototype: a missing field is missing, whatever a library has put on Object.prototype.
  return {fields: Object.assign(Object.create(null), value), literals};
}

/**
 * Refuse repeated keys, which `JSON.parse` lets pass (the last one wins). `text` is known to be JSON.
 * @returns {Map<string, string>} how the outermost object spells its numbers
 */
function scan(text) {
  const token = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|-?\d[\d.eE+-]*|true|false|null/gs;
  const literals = new Map();
  /** @type {({keys: Set<string>, key: ?string} | null)[]} an array is null */
  const stack = [];
  for (const [word] of text.matchAll(token)) {
    const inside = stack.at(-1);
    if (word === '{' || word === '[') {
      stack.push(word === '{' ? {keys: new Set(), key: null} : null);
    } else if (word === '}' || word === ']') {
      stack.pop();
    } else if (word === ',') {
      if (inside) inside.key = null;
    } else if (word[0] === '"' && inside && inside.key === null) {
      const key = JSON.parse(word); // "\u0076erdict" is "verdict"
      if (inside.keys.has(key)) throw new KioskError('bad_answer', 'not JSON: a key is repeated');
      inside.keys.add(key);
      inside.key = key;
    } else if (stack.length === 1 && inside && /^[-\d]/.test(word)) {
      literals.set(inside.key, word);
    }
  }
  return literals;
}

/**
 * Public keys under their ids: the first 16 hex digits of the SHA-256 of the 32 raw bytes.
 * @param {Iterable<string>} texts base64 of the raw bytes
 * @returns {Map<string, import('node:crypto').KeyObject>}
 * @throws {KioskError} `bad_key`
 */
export function publicKeys(texts) {
  return new Map(Array.from(texts, (text) => {
    const raw = typeof text === 'string' ? Buffer.from(text, 'base64') : Buffer.alloc(0);
    if (raw.length !== 32 || raw.toString('base64') !== text) { // Buffer.from skips what is no base64
      throw new KioskError('bad_key', `${JSON.stringify(text)} is not the base64 of 32 bytes, an Ed25519 public key`);
    }
    const key = createPublicKey({key: {kty: 'OKP', crv: 'Ed25519', x: raw.toString('base64url')}, format: 'jwk'});
    return [createHash('sha256').update(raw).digest('hex').slice(0, 16), key];
  }));
}

/**
 * A client bundle, the file that `mmdg keys client` writes.
 * @param {string} path
 * @returns {{endpoint: ?string, signingKeys: string[], until: Map<string, string>,
 *     curve: {serverPublic: string, clientPublic: string, clientSecret: string}}} signingKeys: base64; until: the last day
 *     (UTC) of those that end
 * @throws {KioskError} `bad_bundle`: it cannot be read or lacks something
 */
export function readBundle(path) {
  try {
    const bundle = readJson(readFileSync(path));
    if (bundle.format !== 'mmdg-client-v1') throw new Error(`format ${JSON.stringify(bundle.format)}`);
    const text = (name) => {
      if (!isText(bundle[name])) throw new Error(`${name} is missing`);
      return bundle[name];
    };
    const keys = bundle.signing_public_keys;
    if (!Array.isArray(keys)) throw new Error('signing_public_keys is no list');
    const until = new Map();
    for (const key of keys) {
      if (key.until === null || key.until === undefined) continue;
      if (!/^\d{4}-\d\d-\d\d$/.test(key.until)) throw new Error(`until ${JSON.stringify(key.until)} is no day`);
      until.set(key.public_key, key.until);
    }
    const signingKeys = keys.map((key) => key.public_key);
    publicKeys(signingKeys);
    return {
      endpoint: bundle.endpoint === null ? null : text('endpoint'), signingKeys, until,
      curve: {serverPublic: text('server_public_key'), clientPublic: text('client_public_key'),
        clientSecret: text('client_secret_key')},
    };
  } catch (error) {
    throw new KioskError('bad_bundle', `${path}: ${error.message}`);
  }
}

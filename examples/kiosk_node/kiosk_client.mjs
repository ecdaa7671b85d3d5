// A client of the mmdg-live kiosk contract, version 1. Needs `decision.mjs` beside it and the npm package `zeromq`.
//
//     const client = KioskClient.fromBundle('gate-3.mmdg-client.json');
//     try {
//       await client.hello();
//       const session = await client.begin('front');
//       const decision = await client.waitDecision(session);
//       if (decision && isOpen(decision.payload, decision.signature, session)) { … }
//     } finally {
//       client.close();
//     }

import {EventEmitter} from 'node:events';
import {randomBytes} from 'node:crypto';
import * as zmq from 'zeromq';

import {CONTRACT, KioskError, isOpen, publicKeys, readBundle, readJson} from './decision.mjs';

export {CONTRACT, KioskError, isOpen, publicKeys, readBundle, readJson};

const MAX_MESSAGE_BYTES = 64 * 1024;
const MAX_DEADLINE_MS = 10_000;
/** Between the engine's deadline and giving up on an answer. */
const GRACE_MS = 2_000;
/** Pushed decisions that nobody has asked for yet. */
const MAX_KEPT_DECISIONS = 16;
/** Answers to a keepalive that mean that the engine knows nothing of the session, after a restart for instance. */
const SESSION_GONE = new Set(['unknown_session', 'hello_required']);

/** @typedef {import('./decision.mjs').KioskSession} KioskSession */

/**
 * For tcp endpoints: the engine's public key and this client's own pair, each 40 characters of Z85.
 * @typedef {{serverPublic: string, clientPublic: string, clientSecret: string}} CurveKeys
 */

/**
 * The exact bytes, and the JSON object in the payload: to show and to log. Act on `isOpen` alone.
 * @typedef {{payload: Buffer, signature: Buffer, fields: Record<string, any>}} KioskDecision
 */

/**
 * @typedef {object} ClientOptions
 * @property {string} [name] shown in the engine's logs
 * @property {number} [timeoutMs] for one answer
 * @property {string[]} [signingKeys] base64 of the public keys that this kiosk was installed with: decisions of any other
 *     key open nothing
 * @property {boolean} [trustHello] believe the keys that `hello` tells, which is for tests and for a first look, since
 *     whoever answers at the endpoint then decides
 * @property {CurveKeys} [curve]
 * @property {Map<string, string>} [until] last day (UTC) of a signing key, by its base64
 */

/**
 * One connection. Keepalives are sent inside `waitDecision`. Emits `event` with each published event (a decision's fields
 * stand under `decision`); without a subscription with the answers to keepalives, which tell phase and guidance, too.
 */
export class KioskClient extends EventEmitter {
  /** What the engine said of itself in `hello.reply`. @type {?Record<string, any>} */
  engine = null;
  /** Gaps in the sequences of events. */
  lostEvents = 0;
  #endpoint; #name; #timeoutMs; #pinned; #until; #curve; #commands;
  /** @type {?zmq.Subscriber} */ #events = null;
  #requests = 0;
  /** request → its waiting command. @type {Map<string, {resolve: Function, reject: Function}>} */
  #waiting = new Map();
  /** session id → payload and signature, pushed. @type {Map<string, Buffer[]>} */
  #decisions = new Map();
  /** session id → wakes `waitDecision`. @type {Map<string, Function>} */
  #awaited = new Map();
  /** topic → sequence of its last event. @type {Map<string, number>} */
  #sequences = new Map();
  #sending = Promise.resolve();

  /**
   * @param {string} endpoint of the engine's command socket: `ipc://…`, or `tcp://…` with `curve`
   * @param {ClientOptions} [options]
   * @throws {KioskError} `no_curve`, `bad_key`
   */
  constructor(endpoint, {name = 'kiosk', timeoutMs = 2000, signingKeys, trustHello = false, curve, until} = {}) {
    super();
    if (!curve && !endpoint.startsWith('ipc://')) {
      throw new KioskError('no_curve', `${endpoint}: between hosts only with CURVE keys`);
    }
    if (!signingKeys && !trustHello) {
      throw new KioskError('bad_key', 'name the signing keys that this kiosk was installed with (signingKeys), or, in a '
        + 'test, trustHello');
    }
    this.#endpoint = endpoint;
    this.#name = name;
    this.#timeoutMs = timeoutMs;
    this.#pinned = signingKeys ? [...signingKeys] : null;
    this.#until = until ?? new Map();
    publicKeys(this.#pinned ?? []);
    this.#curve = curve ?? null;
    this.#commands = this.#open(zmq.Dealer, endpoint, {sendTimeout: timeoutMs});
    this.#listen(this.#commands, (frames) => this.#hear(frames));
  }

  /**
   * A client with the keys of a file of `mmdg keys client`: CURVE for tcp, pinned signing keys.
   * @param {string} path
   * @param {{endpoint?: string, name?: string, timeoutMs?: number}} [options] endpoint: instead of the bundle's
   * @throws {KioskError} `bad_bundle`, the file cannot be read or lacks something
   */
  static fromBundle(path, {endpoint, ...options} = {}) {
    const {endpoint: named, ...keys} = readBundle(path);
    const where = endpoint ?? named;
    if (where === null) throw new KioskError('bad_bundle', `${path}: it names no endpoint: give one`);
    if (!where.startsWith('tcp://')) delete keys.curve;
    return new KioskClient(where, {...options, ...keys});
  }

  #open(Kind, endpoint, options) {
    const {serverPublic, clientPublic, clientSecret} = this.#curve ?? {};
    const socket = new Kind({
      linger: 0, maxMessageSize: MAX_MESSAGE_BYTES, ...options,
      ...(this.#curve && {curveServerKey: serverPublic, curvePublicKey: clientPublic, curveSecretKey: clientSecret}),
    });
    try {
      socket.connect(endpoint);
    } catch (error) {
      socket.close();
      throw new KioskError('no_answer', `${endpoint}: ${error.message}`);
    }
    return socket;
  }

  /** One reader for each socket, until it is closed. */
  async #listen(socket, take) {
    try {
      for await (const frames of socket) take(frames);
    } catch (error) {
      if (!socket.closed) this.#fail(new KioskError('no_answer', `${this.#endpoint}: ${error.message}`));
    }
  }

  #fail(error) {
    for (const {reject} of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  #hear([data, ...more]) {
    let envelope;
    try {
      envelope = readJson(data);
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (envelope.type === 'session.decision' && more.length === 2) {
      const id = String(envelope.session_id);
      if (!this.#decisions.has(id)) this.#decisions.set(id, more);
      if (this.#decisions.size > MAX_KEPT_DECISIONS) this.#decisions.delete(this.#decisions.keys().next().value);
      this.#awaited.get(id)?.();
      return;
    }
    const waiting = this.#waiting.get(envelope.request); // none: of a command that was given up on
    if (!waiting) return;
    this.#waiting.delete(envelope.request);
    if (envelope.type === 'error') waiting.reject(new KioskError(String(envelope.code), String(envelope.message)));
    else waiting.resolve({envelope, more});
  }

  #hearEvent([topic, data, ...more]) {
    let event;
    try {
      event = {...readJson(data), ...(more.length === 2 && {decision: readJson(more[0])})};
    } catch {
      return; // shows nothing, decides nothing
    }
    const key = topic.toString();
    if (Number.isSafeInteger(event.sequence)) {
      const last = this.#sequences.get(key);
      if (last !== undefined && event.type !== 'session.state') {
        this.lostEvents += Math.max(0, event.sequence - last - 1);
      }
      this.#sequences.set(key, event.sequence);
    }
    this.#tell(event);
  }

  /** A listener that throws is told of in the next tick; it does not end the reading. */
  #tell(event) {
    try {
      this.emit('event', event);
    } catch (error) {
      process.nextTick(() => { throw error; });
    }
  }

  /** Drop the connection; an open session is then abandoned after two missed keepalives. */
  close() {
    this.#fail(new KioskError('no_answer', 'the client was closed'));
    for (const wake of this.#awaited.values()) wake();
    this.#commands.close();
    this.#events?.close();
  }

  // --- commands -----------------------------------------------------------------------------------------------------
  /**
   * Send one command and wait for its reply: the envelope and the frames after it.
   * @param {string} type @param {object} [fields]
   * @returns {Promise<{envelope: Record<string, any>, more: Buffer[]}>}
   * @throws {KioskError} an error reply, no answer in time, or an answer that cannot be read
   */
  async command(type, fields = {}) {
    if (this.#commands.closed) throw new KioskError('no_answer', 'the client was closed');
    const request = String(++this.#requests);
    let timer;
    const answer = new Promise((resolve, reject) => {
      this.#waiting.set(request, {resolve, reject});
      timer = setTimeout(() => reject(new KioskError('no_answer', `${this.#endpoint} did not answer ${type} within `
        + `${this.#timeoutMs} ms: it is not served, or this client is not admitted to it`)), this.#timeoutMs);
    });
    // One at a time: a socket of zeromq.js takes no second send beside the first. One that fails, since the engine has
    // not let us in, leaves its command without an answer; one that was given up on meanwhile is not sent any more.
    this.#sending = this.#sending.then(() => this.#waiting.has(request)
      && this.#commands.send(JSON.stringify({type, contract: CONTRACT, request, ...fields}))).catch(() => {});
    try {
      return await answer;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(request);
    }
  }

  /**
   * Introduce ourselves; must come first.
   * @returns {Promise<Record<string, any>>} what the engine says of itself
   * @throws {KioskError} `unsupported_contract`: no version that both speak
   */
  async hello() {
    const {envelope} = await this.command('hello', {client: this.#name, contract_min: CONTRACT, contract_max: CONTRACT});
    if (envelope.contract !== CONTRACT) {
      throw new KioskError('unsupported_contract', `the engine speaks contract ${envelope.contract}, this client ${CONTRACT}`);
    }
    this.engine = envelope;
    return envelope;
  }

  /**
   * Open a session with a fresh nonce.
   * @param {string} camera
   * @param {{policy?: string, deadlineMs?: ?number, transactionHash?: ?string}} [options] transactionHash: hex or base64 of
   *     at least 16 bytes; the decision is bound to it
   * @returns {Promise<KioskSession>}
   * @throws {KioskError} `busy`, `no_camera`, `not_ready` …
   */
  async begin(camera, {policy = 'default', deadlineMs = null, transactionHash = null} = {}) {
    const nonce = randomBytes(32).toString('hex');
    const beganNs = process.hrtime.bigint();
    const {envelope: reply} = await this.command('session.begin',
      {camera, nonce, policy, deadline_ms: deadlineMs, transaction_hash: transactionHash});
    const milliseconds = (value) => Number.isSafeInteger(value) && value > 0 && value <= MAX_DEADLINE_MS;
    if (typeof reply.session_id !== 'string' || typeof reply.event_topic !== 'string'
        || !milliseconds(reply.deadline_ms) || !milliseconds(reply.keepalive_ms)) {
      throw new KioskError('bad_answer', `session.begin was answered ${JSON.stringify(reply)}`);
    }
    return Object.freeze({
      sessionId: reply.session_id, nonce, transactionHash, beganNs, deadlineMs: reply.deadline_ms,
      keepaliveMs: reply.keepalive_ms, eventTopic: reply.event_topic, signingKeys: this.#trusted(),
    });
  }

  #trusted() {
    const today = new Date().toISOString().slice(0, 10);
    return publicKeys(this.#pinned?.filter((key) => (this.#until.get(key) ?? today) >= today)
      ?? this.engine.signing_keys.map((key) => key.public_key));
  }

  /** Show life. @param {KioskSession} session @returns {Promise<Record<string, any>>} as `status` */
  async keepalive(session) {
    return (await this.command('session.keepalive', {session_id: session.sessionId})).envelope;
  }

  /** End a session; its decision will be `undecided`. @param {KioskSession} session */
  async cancel(session) {
    return (await this.command('session.cancel', {session_id: session.sessionId})).envelope;
  }

  /** `state` (`open`, `ended`), `phase` and guidance (`code`). @param {KioskSession} session */
  async status(session) {
    return (await this.command('session.status', {session_id: session.sessionId})).envelope;
  }

  /** The state of the engine: ready or not, model, cameras, lost processes. @returns {Promise<Record<string, any>>} */
  async health() {
    return (await this.command('health.get')).envelope.health;
  }

  /**
   * Read a decision again, byte for byte.
   * @param {KioskSession} session
   * @returns {Promise<KioskDecision>}
   * @throws {KioskError} `no_decision`, `decision_expired` …
   */
  async getDecision(session) {
    const {more} = await this.command('decision.get', {session_id: session.sessionId});
    return decisionOf(more);
  }

  // --- events -------------------------------------------------------------------------------------------------------
  /**
   * Emit `event` for what is published. After `hello`. It takes effect in its own time; the engine then tells how open
   * sessions stand (`session.state`).
   * @param {string} [topic] `health`, `device`, `security`, '' for all; default: all sessions of this client
   */
  subscribe(topic = this.engine?.event_topic) {
    if (!this.engine) throw new KioskError('hello_required', 'say hello before subscribing');
    if (!this.#events) {
      const endpoint = String(this.engine.events_endpoint);
      const [scheme] = this.#endpoint.split('://');
      if (!endpoint.startsWith(`${scheme}://`)) {
        throw new KioskError('bad_answer', `commands go over ${scheme}, the engine names ${endpoint} for events`);
      }
      this.#events = this.#open(zmq.Subscriber, endpoint);
      this.#listen(this.#events, (frames) => this.#hearEvent(frames));
    }
    this.#events.subscribe(topic);
  }

  /** @param {string} [topic] as it was subscribed */
  unsubscribe(topic = this.engine?.event_topic) {
    this.#events?.unsubscribe(topic);
  }

  // --- a session ----------------------------------------------------------------------------------------------------
  /**
   * Wait until the session is decided, showing life meanwhile. Null when no decision came: keep closed.
   * @param {KioskSession} session
   * @returns {Promise<?KioskDecision>}
   */
  async waitDecision(session) {
    const id = session.sessionId;
    const endNs = session.beganNs + BigInt(session.deadlineMs + GRACE_MS) * 1_000_000n;
    const leftMs = Math.max(0, Number((endNs - process.hrtime.bigint()) / 1_000_000n));
    const showLife = () => {
      this.keepalive(session).then((state) => { if (!this.#events) this.#tell(state); }, (error) => {
        if (SESSION_GONE.has(error.code)) this.#awaited.get(id)?.();
      });
    };
    let timers = [];
    if (!this.#decisions.has(id)) {
      await new Promise((resolve) => {
        this.#awaited.set(id, resolve);
        timers = [setInterval(showLife, session.keepaliveMs / 2), setTimeout(resolve, leftMs)];
        showLife();
      });
      timers.forEach(clearTimeout); // of intervals, too
      this.#awaited.delete(id);
    }
    const frames = this.#decisions.get(id);
    this.#decisions.delete(id);
    try {
      return frames ? decisionOf(frames) : await this.getDecision(session);
    } catch {
      return null;
    }
  }
}

/** @returns {KioskDecision} */
function decisionOf(frames) {
  if (frames.length !== 2) {
    throw new KioskError('bad_answer', `a decision is a payload and a signature, got ${frames.length} frames`);
  }
  const [payload, signature] = frames;
  return Object.freeze({payload, signature, fields: readJson(payload)});
}

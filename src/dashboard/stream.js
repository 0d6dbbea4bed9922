// The stream: one EventSource, and what state it is in.
//
// The browser comes back by itself after most cuts, with the last id it saw. It gives up for good
// on any status but 200, and hears nothing where a connection died without a word: then the page
// opens another, from the last id that it saw itself. Checkpoints, ids without an event, only the
// browser sees: wherever it comes back by itself, it is left to do so.
//
// That the server answers does not show that the stream is alive: a balancer or a firewall may have
// lost that one connection. So after minutes without an event the page opens another stream beside
// it, from the same position, and goes on with whichever speaks first.

import { Batches } from './batches.js';

const TYPES = ['DetectedIssue', 'MeasureReport', 'Composition', 'Patient'];
const PATH = 'fhir/$export?_type=' + TYPES.join(',');

/** What a server asks an EventSource to wait, unless it is set otherwise. */
const RETRY = 3000;
const LONGEST = 30_000;
/** Longer than a server keeps silent between two keep-alives, unless it is set otherwise. */
const SILENCE = 20_000;
const PATIENCE = 5000;
/** So much silence is doubted though the server answers, each page's a little differently. */
const RENEWAL = 120_000 * (0.75 + Math.random() / 2);
/** Rates are those of this long. */
const WINDOW = 10_000;

export class Stream {
  /** connecting, loading, resuming, live, behind, waiting, unsure, silent or refused. */
  phase = 'connecting';
  /** When the phase began. */
  since = Date.now();
  /** The last id, and when it came. */
  position = '';
  heard = 0;
  /** When the server last began a stream. */
  opened = 0;
  /** Events in all, and of resources since the history began. */
  events = 0;
  loaded = 0;
  caughtUpAt = 0;
  /** When the next try is due; 0 while the browser or the page tries. */
  due = 0;
  /** What the server said of the end, or of a reset. */
  why = '';
  /** Whether a history is loading because the position was lost. */
  isAgain = false;
  cuts = 0;
  /** After so many ms without a word the page asks whether the server is there. */
  silence = SILENCE;
  /** After so many ms without an event the stream is made sure of. */
  renewal = RENEWAL;
  #source = null;
  /** The stream beside it, while it is made sure of; and when that was done last. */
  #other = null;
  #doubted = 0;
  #batches = new Batches();
  #tries = 0;
  #retry = RETRY;
  #cutAt = 0;
  /** When the try that is under way began, or the next one is to. */
  #tried = 0;
  #timer = 0;
  #asking = false;
  /** When the server last said that it is there, apart from events. */
  #answered = 0;
  /** The phase before nothing was heard. */
  #before = '';
  #rates = [];
  #lags = [];
  #handler;

  /** `handler` has put(resource), remove(type, id), level(), reset(), turn(). */
  constructor(handler) {
    this.#handler = handler;
    setInterval(() => this.#watch(), 1000);
    addEventListener('offline', () => this.#ask());
    addEventListener('online', () => (this.phase === 'refused' ? this.open() : this.#ask()));
    // A page that was put away and is shown again has lost its connection without a word.
    addEventListener('pageshow', event => event.persisted && this.open());
  }

  /** Opens it, at the last position if there is one. */
  open() {
    clearTimeout(this.#timer);
    this.#letGo();
    this.#source?.close();
    this.#source = this.#connect();
    this.due = 0;
    this.#cutAt = 0;
    this.#tried = Date.now();
    // While it tries again and again, that is what the page says.
    if (this.phase !== 'waiting' && this.phase !== 'refused') this.#turn('connecting');
  }

  /** A stream from the position on, which counts once it is the page's. */
  #connect() {
    const source = new EventSource(this.#path);
    const batches = this.#batches;
    const on = (name, then) => source.addEventListener(name, event => {
      if (source === this.#other) this.#goOver(name);
      if (source !== this.#source) return;
      this.#count(event);
      batches.add(then, event.data);
    });
    // Each of these holds from then on, so it waits for the events before it.
    const later = (then, given) => {
      if (source === this.#source) batches.add(() => source === this.#source && then(given));
    };
    source.onopen = () => later(() => this.#opened());
    source.onerror = () => {
      if (source === this.#other) this.#letGo();
      else later(given => this.#cut(given), source.readyState);
    };
    for (const type of TYPES) on(type, data => this.#put(data));
    on('deleted', data => this.#deleted(data));
    on('caught-up', () => this.#level());
    on('fell-behind', () => this.#turn('behind'));
    on('reset', data => this.#reset(data));
    on('OperationOutcome', data => { this.why = diagnostics(data); });
    return source;
  }

  /** What is asked: from the last position, if there is one. */
  get #path() {
    return PATH + (this.position && '&lastEventId=' + encodeURIComponent(this.position));
  }

  /** Events a second, lately. */
  rate(now = Date.now()) {
    this.#rates = this.#rates.filter(([second]) => second * 1000 > now - WINDOW);
    const span = Math.min(WINDOW, Math.max(1000, now - (this.#rates[0]?.[0] ?? 0) * 1000));
    return this.#rates.reduce((sum, [, count]) => sum + count, 0) / (span / 1000);
  }

  /** Half of the last changes came within this many ms of being written; null before the first. */
  get lag() {
    const sorted = [...this.#lags].sort((a, b) => a - b);
    return sorted.length === 0 ? null : sorted[sorted.length >> 1];
  }

  get isLive() {
    return this.phase === 'live';
  }

  get #isSilent() {
    return this.phase === 'unsure' || this.phase === 'silent';
  }

  #count(event) {
    const now = Date.now();
    this.events += 1;
    // What says why there is no stream has no id, and a fresh EventSource none from before. A reset
    // takes it back.
    if (event.lastEventId || event.type === 'reset') this.position = event.lastEventId;
    this.heard = now;
    this.#letGo();
    // What was taken for silence was none.
    if (this.#isSilent) this.#turn(this.#before);
    const second = Math.floor(now / 1000);
    const last = this.#rates.at(-1);
    if (last?.[0] === second) last[1] += 1;
    else this.#rates.push([second, 1]);
    if (this.#rates.length > 60) this.#rates.shift();
  }

  #put(data) {
    const resource = JSON.parse(data);
    if (this.phase === 'live') {
      const lag = Date.now() - Date.parse(resource.meta?.lastUpdated ?? '');
      if (lag >= 0) this.#lags.push(lag);
      if (this.#lags.length > 50) this.#lags.shift();
    } else {
      this.loaded += 1;
    }
    this.#handler.put(resource);
  }

  #deleted(data) {
    for (const { request } of JSON.parse(data).entry ?? []) {
      const [type, id] = (request?.url ?? '').split('/');
      this.#handler.remove(type, id);
    }
  }

  #opened() {
    this.#tries = 0;
    this.opened = Date.now();
    this.due = 0;
    this.why = '';
    if (this.caughtUpAt && !this.isAgain) this.#turn('resuming');
    else this.#turn('loading');
  }

  #level() {
    this.caughtUpAt = Date.now();
    this.#rates = [];
    this.why = '';
    this.#turn('live');
    this.#handler.level();
    this.isAgain = false;
  }

  #reset(data) {
    this.why = diagnostics(data);
    this.#startOver();
    this.#turn('loading');
  }

  #startOver() {
    this.isAgain = this.caughtUpAt > 0;
    this.loaded = 0;
    this.#handler.reset();
  }

  #cut(readyState) {
    this.#letGo();
    if (this.phase === 'live' || this.phase === 'loading' || this.phase === 'resuming') this.cuts += 1;
    if (readyState === EventSource.CLOSED) return this.#refused();
    // The second failure tells how long the browser waits, which the page can't read.
    const now = Date.now();
    if (this.phase === 'waiting' && this.#cutAt) this.#retry = Math.min(LONGEST, Math.max(100, now - this.#cutAt));
    this.#cutAt = now;
    this.#tried = this.due = now + this.#retry;
    this.#turn('waiting');
  }

  /** The browser has given up. */
  async #refused() {
    this.#turn('refused');
    this.#again();
    const source = this.#source;
    const { why, isOfPosition } = await refusal(this.#path);
    if (source !== this.#source) return;
    this.why = why;
    // What the server can't read now it never will: without it there is a stream again.
    if (isOfPosition) {
      this.position = '';
      this.#startOver();
    }
    this.#handler.turn();
  }

  #again() {
    const wait = Math.min(LONGEST, RETRY * 2 ** this.#tries++) * (0.75 + Math.random() / 2);
    this.#tried = this.due = Date.now() + wait;
    this.#timer = setTimeout(() => this.open(), wait);
  }

  /** Whether a connection is being made. Of a try that was due long ago nobody else says that it hangs. */
  get #isConnecting() {
    if (this.#source?.readyState === EventSource.OPEN) return false;
    return this.phase === 'connecting' || Date.now() - this.#tried > this.silence;
  }

  /** No event says that a connection is dead: after a silence, ask the server for a word. */
  #watch() {
    const quiet = Date.now() - Math.max(this.heard, this.since, this.#answered);
    const isOpen = this.#source?.readyState === EventSource.OPEN;
    if (this.#isSilent || ((isOpen || this.#isConnecting) && quiet > this.silence)) this.#ask();
  }

  async #ask() {
    if (this.#asking) return;
    this.#asking = true;
    const source = this.#source;
    const asked = Date.now();
    const answer = await livez();
    this.#asking = false;
    if (answer === 'there') this.#answered = Date.now();
    // What has come meanwhile, by this stream or as another one, says more.
    if (source !== this.#source || this.heard > asked) return;
    const isOpen = source.readyState === EventSource.OPEN;
    if (answer !== 'there') {
      if (!isOpen) return;
      if (!this.#isSilent) this.#before = this.phase;
      this.#turn(answer === 'late' ? 'unsure' : 'silent');
    } else if (this.#isSilent || this.#isConnecting) {
      this.open();
    } else if (isOpen) {
      this.#makeSure();
    }
  }

  /** The server answers, but the stream may be dead: after long silence another is opened beside it. */
  #makeSure() {
    // One that has said nothing since the last answer waits for its turn, as the first one may.
    this.#letGo();
    const now = Date.now();
    if (now - Math.max(this.heard, this.opened, this.#doubted) < this.renewal) return;
    this.#doubted = now;
    this.#other = this.#connect();
  }

  /** The other stream has spoken first: what it says follows upon what the page has. */
  #goOver(name) {
    if (name === 'OperationOutcome') return this.#letGo();
    this.#source.close();
    const source = this.#source = this.#other;
    this.#other = null;
    // What comes before it is level was missed.
    if (name !== 'caught-up') this.#batches.add(() => source === this.#source && this.#opened());
  }

  #letGo() {
    this.#other?.close();
    this.#other = null;
  }

  #turn(phase) {
    if (this.phase !== phase) this.since = Date.now();
    this.phase = phase;
    this.#handler.turn();
  }
}

/**
 * Whether the server is there: `there`; `none`, where a connection fails; or `late`, where there is
 * no answer in time, be it that the network swallows all or that the browser has no connection left.
 */
async function livez() {
  try {
    await fetch('livez', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
    return 'there';
  } catch (error) {
    return error.name === 'TimeoutError' ? 'late' : 'none';
  }
}

/** Why the server gives no stream, '' where it would now; and whether the position is the reason. */
async function refusal(path) {
  const done = new AbortController();
  try {
    const headers = { accept: 'text/event-stream' };
    const answer = await fetch(path, { headers, cache: 'no-store', signal: done.signal });
    if (answer.ok) return { why: '', isOfPosition: false };
    const data = await answer.text();
    return {
      why: diagnostics(data) || `the answer was ${answer.status}`,
      isOfPosition: answer.status === 400 && /^last-?event-?id$/i.test(firstIssue(data).expression?.[0] ?? ''),
    };
  } catch {
    return { why: 'there is no answer', isOfPosition: false };
  } finally {
    done.abort();
  }
}

/** What an OperationOutcome says. */
function diagnostics(data) {
  return String(firstIssue(data).diagnostics ?? '');
}

function firstIssue(data) {
  try {
    return JSON.parse(data).issue?.[0] ?? {};
  } catch {
    return {};
  }
}

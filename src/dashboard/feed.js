// The last changes: what changed, from what to what, the newest first.

import { nameOf } from './model.js';
import { $, h } from './dom.js';
import { date, statusWord, time } from './words.js';
import { STATUSES } from './facts.js';

const MOST = 200;
/** A burst shows its last ones: nobody reads a thousand lines that fly by. */
const AT_ONCE = 30;

export class Feed {
  #waiting = [];
  #missed = 0;
  #onOpen;

  constructor(onOpen) {
    this.#onOpen = onOpen;
  }

  add(change, at) {
    const last = this.#waiting.at(-1);
    if (last?.changes && isOneMove(last.changes, change)) {
      last.changes.push(change);
      // The gap before the score.
      last.changes.sort((a, b) => (a.kind < b.kind ? -1 : 1));
      return;
    }
    this.#waiting.push({ changes: [change], name: nameThen(change), at });
    if (this.#waiting.length > AT_ONCE) {
      this.#waiting.shift();
      this.#missed += 1;
    }
  }

  /** A line about the stream itself. */
  note(text, at) {
    this.#waiting.push({ text, at });
  }

  show() {
    if (this.#waiting.length === 0) return;
    const lines = this.#waiting.map(entry => this.#line(entry));
    if (this.#missed > 0) {
      lines.unshift(h('li', { class: 'note' }, `… and ${this.#missed} changes before, too fast to show`));
    }
    this.#waiting = [];
    this.#missed = 0;
    const feed = $('feed-lines');
    feed.prepend(...lines.reverse());
    while (feed.children.length > MOST) feed.lastElementChild.remove();
    $('no-changes').hidden = true;
  }

  #line({ changes, name, text, at }) {
    const stamp = h('time', { datetime: new Date(at).toISOString() }, time(at));
    if (!changes) return h('li', { class: 'note' }, stamp, h('span', {}, text));
    const [{ row }] = changes;
    const who = h('button', { type: 'button' }, name);
    who.onclick = () => this.#onOpen(row, who);
    const [first, ...others] = changes.map(told);
    const line = h('div', { class: 'change' }, who, first.become);
    const about = h('div', { class: 'change' }, h('span', { class: 'what' }, first.what), ...others.map(other => other.become));
    return h('li', {}, stamp, h('div', {}, line, about));
  }
}

/** How the patient was called when it happened: they may be gone by now. */
const nameThen = ({ kind, row, from }) => (kind === 'patient' && from?.name) || nameOf(row);

/** Whether a change belongs to the one before: a gap and the score of its report. */
function isOneMove(changes, { kind, row, measure }) {
  const [first] = changes;
  return changes.length === 1 && first.row === row && first.measure === measure && first.kind !== kind && kind !== 'patient' && first.kind !== 'patient';
}

const chip = end => h('span', { class: 'chip ' + STATUSES[end.status] }, statusWord(end));
const said = text => h('b', {}, text || 'nothing');
const become = (...parts) => h('span', { class: 'become' }, ...parts);

/** A change in words: `what` it is about, and what has `become` of it. */
export function told({ kind, measure, from, to }) {
  if (kind === 'gap') {
    const what = measure.title;
    if (!from) return { what, become: become('new: ', chip(to)) };
    if (!to) return { what, become: become(chip(from), ' → ', said('removed')) };
    if (from.status === to.status && from.code === to.code) return { what, become: become(chip(to), ' as before') };
    return { what, become: become(chip(from), ' → ', chip(to)) };
  }
  if (kind === 'report') {
    const score = report => said(report.score === null ? `numerator ${report.numerator ?? '–'}` : `${report.score}`);
    return { what: measure.title, become: become('score ', score(from), ' → ', score(to)) };
  }
  if (!from) return { what: 'Patient', become: become(said('new')) };
  if (!to) return { what: 'Patient', become: become(said('deleted')) };
  const fields = [['name', 'Name', text => text], ['birth', 'Birth date', date], ['gender', 'Sex', text => text], ['number', 'Number', text => text]];
  const changed = fields.filter(([field]) => from[field] !== to[field]);
  if (changed.length === 0) return { what: 'Patient', become: become('written again') };
  const what = changed.map(([, label]) => label).join(', ');
  const each = changed.map(([field, , show]) => [said(show(from[field])), ' → ', said(show(to[field]))]);
  const told = become(...each.flatMap((parts, at) => (at === 0 ? parts : ['; ', ...parts])));
  told.classList.add('long');
  return { what, become: told };
}

// One patient: who, each gap with its report, what changed while the page was open.

import { nameOf } from './model.js';
import { STATUSES } from './facts.js';
import { $, h, say } from './dom.js';
import { age, date, number, statusWord, time, when } from './words.js';
import { told } from './feed.js';

const NARROW = matchMedia('(max-width: 719px)');
/** So many changes are kept of each patient who had any. */
const PAST = 12;
/** So many gaps and compositions are listed: all gaps that name no patient are of one. */
const MOST = 200;

export class Detail {
  /** The patient's key; null while closed. */
  key = null;
  #past = new Map();
  #shown = '';
  #opener = null;
  #onClose;

  constructor(onClose) {
    this.#onClose = onClose;
    $('detail-close').onclick = () => this.close();
    $('detail').addEventListener('keydown', event => event.key === 'Escape' && this.close());
    NARROW.addEventListener('change', () => this.#cover());
  }

  remember(change, at) {
    const { key } = change.row;
    const past = this.#past.get(key) ?? [];
    past.unshift({ change, at });
    past.length = Math.min(past.length, PAST);
    this.#past.delete(key);
    this.#past.set(key, past);
    if (this.#past.size > 500) this.#past.delete(this.#past.keys().next().value);
  }

  open(key, model, opener) {
    this.key = key;
    this.#opener = opener;
    this.#shown = '';
    $('detail').hidden = false;
    document.body.classList.add('has-detail');
    this.#cover();
    this.show(model);
    $('detail').scrollTop = 0;
    $('detail-name').focus({ preventScroll: true });
  }

  close() {
    const { key } = this;
    this.key = null;
    $('detail').hidden = true;
    document.body.classList.remove('has-detail');
    this.#cover();
    this.#onClose(key, this.#opener);
  }

  /** Shows what is so now, if it differs from what is shown. */
  show(model) {
    if (this.key === null) return;
    const row = model.rows.get(this.key);
    const past = this.#past.get(this.key) ?? [];
    const gaps = first(row?.gaps).sort((a, b) => (a.measure.title + a.id < b.measure.title + b.id ? -1 : 1));
    const more = (row?.gaps.size ?? 0) - gaps.length;
    const compositions = first(row?.compositions);
    const mark = JSON.stringify([
      row?.facts, row?.gone, past[0]?.at, past.length, more,
      gaps.map(gap => [gap.id, gap.version, gap.status, gap.measure.key, model.reportOf(gap)]),
      compositions.map(({ id, version, title, date: dated }) => [id, version, title, dated]),
    ]);
    if (mark === this.#shown) return;
    this.#shown = mark;
    say($('detail-name'), row ? nameOf(row) : 'Not there any more');
    $('detail-facts').replaceChildren(...facts(row, this.key));
    $('detail-gaps').replaceChildren(...gaps.map(gap => gapItem(gap, model.reportOf(gap))));
    $('detail-no-gaps').hidden = gaps.length > 0;
    $('detail-more-gaps').hidden = more === 0;
    say($('detail-more-gaps'), `… and ${number(more)} more`);
    $('detail-compositions').replaceChildren(...compositions.map(compositionItem));
    $('detail-compositions-part').hidden = compositions.length === 0;
    const line = ({ change, at }) => {
      const { what, become } = told(change);
      return h('li', {}, h('time', {}, time(at)), h('div', { class: 'change' }, h('span', { class: 'what' }, what), become));
    };
    $('detail-past').replaceChildren(...past.map(line));
    $('detail-past-part').hidden = past.length === 0;
  }

  /** On a phone the detail covers the page: what lies under it can't be reached. */
  #cover() {
    const covers = this.key !== null && NARROW.matches;
    $('page').inert = covers;
    document.body.classList.toggle('covered', covers);
  }
}

/** The first of a set that may be large, or missing. */
function first(set) {
  const some = [];
  for (const one of set ?? []) {
    if (some.push(one) === MOST) break;
  }
  return some;
}

function facts(row, key) {
  const known = row?.facts;
  const pairs = known
    ? [['Number', known.number], ['Born', known.birth && [date(known.birth), years(known.birth)].filter(Boolean).join(', ')], ['Sex', known.gender]]
    : [['Patient', row?.gone ? 'deleted' : key === '' ? 'the issue names none' : 'not sent']];
  const list = pairs.filter(([, value]) => value).flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]);
  if (key) list.push(h('dt', {}, 'Id'), h('dd', {}, known ? raw('Patient', key) : h('code', {}, key)));
  return list;
}

function years(birth) {
  const whole = age(birth, Date.now());
  return whole && `${whole} years`;
}

function gapItem(gap, report) {
  const score = report && (report.score !== null ? `score ${report.score}` : report.numerator !== null ? `numerator ${report.numerator}` : '');
  const period = report && [report.start, report.end].filter(Boolean).map(date).join(' – ');
  const notes = [
    gap.identified && `identified ${date(gap.identified)}`,
    gap.changed && `changed ${when(gap.changed)}`,
    period && `period ${period}`, score,
    !report && (gap.reports.length > 0 ? 'its MeasureReport has not come' : 'cites no MeasureReport'),
  ].filter(Boolean);
  const links = [raw('DetectedIssue', gap.id)];
  if (report) links.push(' ', raw('MeasureReport', report.id));
  return h('li', {},
    h('p', { class: 'gap-head' }, h('strong', {}, gap.measure.title), h('span', { class: 'chip ' + STATUSES[gap.status] }, statusWord(gap))),
    h('p', { class: 'minor' }, notes.join(' · ')), h('p', { class: 'minor' }, ...links));
}

function compositionItem(composition) {
  const when = composition.date && ` · ${date(composition.date)}`;
  return h('li', {}, composition.title || 'Composition', when, ' ', raw('Composition', composition.id));
}

/** A link to the resource itself. */
function raw(type, id) {
  const href = `fhir/${type}/${encodeURIComponent(id)}`;
  return h('a', { href, target: '_blank', rel: 'noopener' }, `${type}/${id}`);
}

// The list of patients: only the rows in view are elements, whatever the length of the list.

import { STATUSES } from './facts.js';
import { nameOf } from './model.js';
import { $, attribute, h, say } from './dom.js';
import { Order } from './order.js';
import { age, date, number, when } from './words.js';

const STILL = matchMedia('(prefers-reduced-motion: reduce)');
/** Rows beyond the view, above and below. */
const MARGIN = 6;

export class Patients {
  sort = { by: 0, down: true };
  status = null;
  words = '';
  /** The patient whose detail is open, by key. */
  open = null;
  /** Whether the model is: while its history loads, rows find their places whoever is at them. */
  isWhole = false;
  #order = new Order();
  #rows = [];
  #model = null;
  #pool = [];
  #height = 36;
  /** The row that the keyboard is at; and the one that Tab reaches, the first in view where that is not. */
  #at = 0;
  #tab = 0;
  /** Whether somebody is at the list; and whether its order has been shown since it is whole. */
  #isHeld = false;
  #isSettled = false;
  #measure = null;
  #onOpen;
  #scroller = $('patient-scroller');

  constructor(onOpen) {
    this.#onOpen = onOpen;
    this.#scroller.addEventListener('scroll', () => this.#paint(), { passive: true });
    this.#scroller.addEventListener('keydown', event => this.#key(event));
    new ResizeObserver(() => { this.#measureRow(); this.#paint(); }).observe(this.#scroller);
    // Rows must not jump from under the pointer or the keyboard.
    const hold = is => {
      this.#isHeld = is;
      this.#showHeld();
      if (!is) this.refresh();
    };
    this.#scroller.addEventListener('pointerenter', event => hold(event.pointerType === 'mouse'));
    this.#scroller.addEventListener('pointerleave', () => hold(this.#scroller.contains(document.activeElement)));
    this.#scroller.addEventListener('focusin', event => {
      const slot = this.#pool.find(one => one.element.contains(event.target));
      if (slot) this.#at = slot.at;
      hold(true);
    });
    // From row to row the focus stays in the list.
    const isIn = element => this.#scroller.contains(element) || this.#scroller.matches(':hover');
    this.#scroller.addEventListener('focusout', event => hold(isIn(event.relatedTarget)));
    for (const button of document.querySelectorAll('#patient-head button')) {
      button.onclick = () => this.#sortBy(button.dataset.by);
    }
    $('search').addEventListener('input', event => { this.words = event.target.value; this.refresh(true); });
    $('status').addEventListener('change', event => {
      this.status = event.target.value === '' ? null : Number(event.target.value);
      this.refresh(true);
    });
    this.#showSort();
  }

  /** Shows a model from now on: another one after a reset. */
  take(model) {
    this.#order = new Order();
    model.moved = new Set(model.rows.values());
    this.#model = model;
    this.isWhole = false;
    this.#isSettled = false;
    this.refresh(true);
  }

  choose(measure) {
    this.#measure = measure;
    this.refresh(true);
  }

  /** Puts the list in order again, unless somebody is at it. Returns whether more is left to do. */
  refresh(isAsked = false) {
    const model = this.#model;
    const isLeft = this.#order.update(model);
    if (isAsked || !this.#keeps) {
      const filter = { words: this.words, measure: this.#measure, status: this.status };
      this.#rows = this.#order.select(filter, this.sort);
      if (isAsked) this.#at = 0;
    }
    this.#isSettled ||= this.isWhole && !isLeft;
    this.#showHeld();
    if (isAsked) this.#scroller.scrollTop = 0;
    $('patient-space').style.height = this.#rows.length * this.#height + 'px';
    attribute($('patient-grid'), 'aria-rowcount', this.#rows.length + 1);
    const isAll = this.#rows.length === model.concerned;
    say($('patient-count'), isAll ? number(model.concerned) : `${number(this.#rows.length)} of ${number(model.concerned)}`);
    $('no-patients').hidden = this.#rows.length > 0;
    say($('no-patients'), model.concerned === 0 ? 'No care gap has come yet.' : 'Nobody matches.');
    this.#paint();
    return isLeft;
  }

  get #keeps() {
    return this.#isHeld && this.#isSettled;
  }

  #showHeld() {
    $('held').hidden = !this.#keeps;
  }

  /** Gives a patient's row the focus, wherever it stands by now; one in view where they have none. */
  focus(key) {
    const at = this.#rows.findIndex(row => row.key === key);
    if (at >= 0) this.#goTo(at);
    else this.#focusAt(this.#tab);
  }

  #focusAt(at) {
    const slot = this.#pool.find(one => one.at === at && !one.element.hidden);
    (slot?.button ?? $('search')).focus({ preventScroll: true });
  }

  #sortBy(by) {
    const column = by === 'name' || by === 'birth' || by === 'changed' ? by : Number(by);
    const isSame = this.sort.by === column;
    this.sort = { by: column, down: isSame ? !this.sort.down : column !== 'name' && column !== 'birth' };
    this.#showSort();
    this.refresh(true);
  }

  #showSort() {
    for (const button of document.querySelectorAll('#patient-head button')) {
      const is = button.dataset.by === String(this.sort.by);
      const cell = button.parentElement;
      if (is) cell.setAttribute('aria-sort', this.sort.down ? 'descending' : 'ascending');
      else cell.removeAttribute('aria-sort');
    }
  }

  #measureRow() {
    const height = parseFloat(getComputedStyle(this.#scroller).getPropertyValue('--row'));
    if (height > 0) this.#height = height;
    $('patient-space').style.height = this.#rows.length * this.#height + 'px';
  }

  #paint() {
    const { scrollTop, clientHeight } = this.#scroller;
    const first = Math.max(0, Math.floor(scrollTop / this.#height) - MARGIN);
    const last = Math.min(this.#rows.length, Math.ceil((scrollTop + clientHeight) / this.#height) + MARGIN);
    const count = Math.max(0, last - first);
    const isInView = this.#at >= first && this.#at < last;
    this.#tab = isInView ? this.#at : Math.min(Math.ceil(scrollTop / this.#height), last - 1);
    while (this.#pool.length < count) this.#pool.push(this.#element());
    // A row keeps its element while it is in view, so that focus and reading stay where they are.
    const size = this.#pool.length;
    const used = new Set();
    for (let at = first; at < last; at++) {
      const slot = this.#pool[at % size];
      used.add(slot);
      this.#fill(slot, at, this.#rows[at]);
    }
    for (const slot of this.#pool) {
      if (used.has(slot)) continue;
      slot.at = -1;
      slot.element.hidden = true;
    }
  }

  #element() {
    const button = h('button', { type: 'button', tabindex: '-1' });
    const id = h('span', { class: 'minor' });
    const name = h('span', { role: 'gridcell', class: 'name' }, button, id);
    const birth = h('span', { role: 'gridcell', class: 'birth' });
    const cells = STATUSES.map(one => h('span', { role: 'gridcell', class: 'count ' + one }));
    const changed = h('span', { role: 'gridcell', class: 'changed' });
    const element = h('div', { role: 'row', class: 'row' }, name, birth, ...cells, changed);
    const slot = { element, button, id, birth, cells, changed, flashes: [], at: -1, row: null };
    element.onclick = () => { this.#at = slot.at; this.#onOpen(slot.row, slot.at); };
    $('patient-space').append(element);
    return slot;
  }

  #fill(slot, at, row) {
    const { element, button } = slot;
    const isOther = slot.row !== row;
    slot.at = at;
    slot.row = row;
    element.hidden = false;
    element.style.transform = `translateY(${at * this.#height}px)`;
    attribute(element, 'aria-rowindex', at + 2);
    attribute(element, 'aria-selected', row.key === this.open);
    attribute(button, 'tabindex', at === this.#tab ? 0 : -1);
    say(button, nameOf(row));
    button.classList.toggle('unknown', !row.facts);
    const known = row.facts?.number || row.key;
    say(slot.id, row.gone ? 'deleted' : known === button.textContent ? '' : known);
    const facts = row.facts;
    say(slot.birth, facts?.birth ? [date(facts.birth), age(facts.birth, Date.now())].filter(Boolean).join(' · ') : '–');
    row.counts.forEach((count, status) => {
      const cell = slot.cells[status];
      const text = number(count);
      if (isOther) slot.flashes[status]?.cancel();
      else if (cell.textContent !== text) slot.flashes[status] = flash(cell);
      say(cell, text);
      cell.classList.toggle('none', count === 0);
    });
    say(slot.changed, row.changed ? when(row.changed) : '–');
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.#scroller.clientHeight / this.#height) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    if (this.#rows.length === 0) return;
    const last = this.#rows.length - 1;
    this.#goTo(Math.min(last, Math.max(0, this.#at + moves[event.key])));
  }

  /** Moves into view what is not, and the focus there. */
  #goTo(at) {
    this.#at = at;
    const top = at * this.#height;
    const { scrollTop, clientHeight } = this.#scroller;
    if (top < scrollTop) this.#scroller.scrollTop = top;
    if (top + this.#height > scrollTop + clientHeight) this.#scroller.scrollTop = top + this.#height - clientHeight;
    this.#paint();
    this.#focusAt(at);
  }
}

/** Marks for a moment what has changed. */
function flash(cell) {
  if (STILL.matches) return null;
  return cell.animate([{ backgroundColor: 'var(--mark)' }, { backgroundColor: 'transparent' }], 1800);
}

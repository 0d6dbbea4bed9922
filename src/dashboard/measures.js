// The gaps by measure: a table whose rows choose what the list of patients shows.

import { STATUSES } from './facts.js';
import { closedShare } from './model.js';
import { $, attribute, h, say } from './dom.js';
import { STATUS_WORDS, number } from './words.js';

/** So many are shown, those with the most gaps: where each gap has a text of its own, each is a measure. */
const MOST = 200;

export class Measures {
  /** The measure that is chosen, by its key; null for all. */
  chosen = null;
  #rows = new Map();
  #onChoose;

  constructor(onChoose) {
    this.#onChoose = onChoose;
  }

  show(model) {
    if (this.chosen !== null && !model.measures.has(this.chosen)) this.choose(null);
    let measures = [...model.measures.values()];
    const more = Math.max(0, measures.length - MOST);
    if (more > 0) {
      measures = measures.sort((a, b) => b.size - a.size).slice(0, MOST);
      const chosen = model.measures.get(this.chosen);
      if (chosen && !measures.includes(chosen)) measures[MOST - 1] = chosen;
    }
    measures.sort((a, b) => (a.title + a.key < b.title + b.key ? -1 : 1));
    const body = $('measure-rows');
    const shown = new Set(measures.map(measure => measure.key));
    for (const [key, row] of this.#rows) {
      if (!shown.has(key)) {
        row.element.remove();
        this.#rows.delete(key);
      }
    }
    measures.forEach((measure, at) => {
      const row = this.#row(measure);
      this.#fill(row, measure);
      if (body.children[at] !== row.element) body.insertBefore(row.element, body.children[at] ?? null);
    });
    $('no-measures').hidden = measures.length > 0;
    $('more-measures').hidden = more === 0;
    say($('more-measures'), `… and ${number(more)} more, with no more gaps each`);
  }

  choose(key) {
    this.chosen = key;
    for (const [other, row] of this.#rows) attribute(row.button, 'aria-pressed', other === key);
    this.#onChoose();
  }

  #row(measure) {
    let row = this.#rows.get(measure.key);
    if (row) return row;
    const button = h('button', { type: 'button', 'aria-pressed': this.chosen === measure.key }, measure.title);
    button.onclick = () => this.choose(this.chosen === measure.key ? null : measure.key);
    const short = h('span', { class: 'minor' });
    const bar = h('span', { class: 'bar', 'aria-hidden': 'true' });
    const parts = STATUSES.map(name => bar.appendChild(h('span', { class: 'fill ' + name })));
    const share = h('td', { class: 'share' });
    const cells = STATUSES.map(name => h('td', { class: 'count ' + name }));
    const element = h('tr', {}, h('th', { scope: 'row' }, button, short, bar), ...cells, share);
    row = { element, button, short, parts, cells, share };
    this.#rows.set(measure.key, row);
    return row;
  }

  #fill({ button, short, parts, cells, share }, measure) {
    say(button, measure.title);
    say(short, measure.short && measure.short !== measure.title ? measure.short : '');
    measure.counts.forEach((count, status) => {
      say(cells[status], number(count));
      cells[status].classList.toggle('none', count === 0);
      parts[status].style.flexGrow = count;
      parts[status].hidden = count === 0;
      parts[status].title = `${number(count)} ${STATUS_WORDS[status]}`;
    });
    const closed = closedShare(measure.counts);
    say(share, closed === null ? '–' : Math.round(closed * 100) + ' %');
  }
}

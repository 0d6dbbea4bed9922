// The top of the page: the stream's state in words, its figures, and the gaps in all.

import { NOT_APPLICABLE, OTHER, STATUSES } from './facts.js';
import { $, attribute, say } from './dom.js';
import { lag, number, rate, state, time } from './words.js';

let announced = '';

export function showState(stream, now) {
  const [word, detail] = state(stream, now, navigator.onLine);
  attribute($('state'), 'data-phase', stream.phase);
  say($('state-word'), word);
  say($('state-detail'), detail);
  // A screen reader hears each new state once, not every second of it.
  if (word !== announced) say($('announced'), `${word}: ${detail}`);
  announced = word;
  say($('rate'), rate(stream.rate(now)));
  say($('lag'), lag(stream.lag));
  say($('events'), number(stream.events));
  say($('position'), stream.position || 'none yet');
  attribute($('position'), 'title', `last id, heard ${time(stream.heard)}`);
}

export function showTotals(model) {
  STATUSES.forEach((name, status) => say($('total-' + name), number(model.totals[status])));
  // What is seldom has no place while there is none of it.
  for (const status of [NOT_APPLICABLE, OTHER]) {
    const has = model.totals[status] > 0;
    $('total-' + STATUSES[status]).parentElement.hidden = !has;
    document.body.classList.toggle('has-' + STATUSES[status], has);
  }
  document.title = `${number(model.totals[0])} open · care gaps · fhirtail`;
}

// The page: the stream fills the model, and at each turn what has changed is shown.

import { CLOSED, OPEN } from './facts.js';
import { Chart } from './chart.js';
import { Detail } from './detail.js';
import { Feed } from './feed.js';
import { Measures } from './measures.js';
import { Model } from './model.js';
import { Patients } from './patients.js';
import { Stream } from './stream.js';
import { Trend } from './trend.js';
import { $ } from './dom.js';
import { showState, showTotals } from './header.js';

/** At most so often the page shows what has come. */
const TURN = 200;
const TURN_WHILE_LOADING = 600;

/** What is shown. */
export let model = new Model();
/** What the stream fills: another one from a reset until the copy is whole again. */
let filling = model;
let isDirty = true;
let timer = 0;

export const trend = new Trend();
const chart = new Chart();
const detail = new Detail((key, opener) => {
  patients.open = null;
  patients.refresh();
  // A line of the feed may have made room for newer ones.
  if (opener?.isConnected) opener.focus();
  else patients.focus(key);
});
const feed = new Feed((row, opener) => openDetail(row, opener));
const patients = new Patients(row => openDetail(row));
const measures = new Measures(() => patients.choose(measures.chosen));

export const stream = new Stream({
  put: resource => changed(filling.put(resource)),
  remove: (type, id) => changed(filling.remove(type, id)),
  level,
  reset: () => { filling = new Model(); },
  turn: () => { trend.hears(Date.now(), !isCut()); feedState(); show(); },
});

/** Whether the page is known to hear nothing. */
const isCut = () => ['waiting', 'refused', 'silent'].includes(stream.phase)
  || (stream.phase === 'connecting' && stream.caughtUpAt > 0);

/** What came is a change only to a copy that was whole: before, it is the history. */
function changed(change) {
  isDirty ||= filling === model;
  if (change && stream.caughtUpAt && filling === model) {
    const now = Date.now();
    feed.add(change, now);
    detail.remember(change, now);
  }
  soon();
}

function level() {
  if (filling !== model) {
    model = filling;
    patients.take(model);
    feed.note('Started over: this is the server\u2019s state now', Date.now());
  }
  patients.isWhole = true;
  isDirty = true;
  // The first point of the chart is the first whole state.
  trend.record(Date.now(), model.totals[OPEN], model.totals[CLOSED]);
  show();
}

let told = '';
/** Cuts and returns stand in the feed, between the changes that they divide. */
function feedState() {
  const { phase } = stream;
  const text = phase === 'live' && told === 'lost' && !stream.isAgain ? 'Connected again: nothing missed'
    : isCut() ? 'Connection lost' : '';
  const next = text && phase !== 'live' ? 'lost' : phase === 'live' ? 'live' : told;
  if (text && stream.caughtUpAt && next !== told) feed.note(text, Date.now());
  told = next;
}

/** `opener` has the focus back when the detail closes; without one, the patient's row has. */
function openDetail(row, opener = null) {
  patients.open = row.key;
  detail.open(row.key, model, opener);
  patients.refresh();
}

function soon() {
  timer ||= setTimeout(show, stream?.isLive ? TURN : TURN_WHILE_LOADING);
}

function show() {
  clearTimeout(timer);
  timer = 0;
  const now = Date.now();
  showState(stream, now);
  if (isDirty) {
    showTotals(model);
    measures.show(model);
    isDirty = patients.refresh();
    detail.show(model);
    if (stream.caughtUpAt) trend.record(now, model.totals[OPEN], model.totals[CLOSED]);
    chart.draw(trend, now);
  }
  feed.show();
  if (isDirty) soon();
}

patients.take(model);
setInterval(() => {
  showState(stream, Date.now());
  if (!document.hidden) chart.draw(trend, Date.now());
}, 1000);
$('window').addEventListener('change', () => chart.draw(trend, Date.now()));
stream.open();

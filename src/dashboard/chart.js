// The chart: open and closed gaps over time, a panel each with a scale of its own, since a few
// gaps more or less are lost on a common one. Drawn by hand as SVG.

import { $, attribute, h, say, svg } from './dom.js';
import { number, span, time } from './words.js';

const LEFT = 4;
const RIGHT = 48;
const TOP = 8;
const BOTTOM = 18;

class Panel {
  #box;
  #svg;
  #series;
  #name;

  constructor(box, series, name) {
    this.#box = box;
    this.#series = series;
    this.#name = name;
    this.#svg = svg('svg', { role: 'img', class: name, 'aria-label': `${name} gaps over time: nothing yet` });
    this.now = h('strong', { class: 'now ' + name });
    this.delta = h('span', { class: 'minor' });
    box.append(h('p', { class: 'panel-head' }, h('span', {}, name + ' '), this.now, ' ', this.delta), this.#svg);
  }

  draw(trend, from, now, opened) {
    const width = Math.max(120, this.#box.clientWidth);
    const height = Math.max(60, this.#svg.clientHeight);
    const steps = trend.since(from, this.#series);
    if (steps.length === 0) return;
    const values = steps.map(step => step[1]);
    const [low, high] = scale(Math.min(...values), Math.max(...values));
    const x = at => LEFT + ((at - from) / (now - from)) * (width - LEFT - RIGHT);
    const y = value => TOP + (1 - (value - low) / (high - low)) * (height - TOP - BOTTOM);
    const last = values.at(-1);
    const floor = height - BOTTOM;

    attribute(this.#svg, 'viewBox', `0 0 ${width} ${height}`);
    const blind = trend.blind.filter(([, to]) => !to || to > from).map(([start, to]) => {
      const left = x(Math.max(start, from));
      return svg('rect', { class: 'blind', x: left, y: TOP, width: Math.max(1, x(to || now) - left), height: floor - TOP });
    });
    const grid = [low, high].flatMap(value => [
      svg('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svg('text', { class: 'tick', x: width - RIGHT + 6, y: y(value) + 4 }, number(value)),
    ]);
    const ends = [
      svg('text', { class: 'tick', x: LEFT, y: height - 4 }, time(from)),
      svg('text', { class: 'tick', x: width - RIGHT, y: height - 4, 'text-anchor': 'end' }, 'now'),
    ];
    const line = steps.map(([at, value], index) => (index === 0 ? `M${x(at)} ${y(value)}` : `H${x(at)}V${y(value)}`)).join('') + `H${x(now)}`;
    this.#svg.replaceChildren(
      ...blind, ...grid, ...ends,
      svg('path', { class: 'line', d: line }),
      svg('circle', { class: 'head', cx: x(now), cy: y(last), r: 3 }),
    );
    const moved = last - values[0];
    const sign = moved > 0 ? '+' : moved < 0 ? '−' : '±';
    const since = span(now - Math.max(from, opened));
    say(this.now, number(last));
    say(this.delta, `${sign}${number(Math.abs(moved))} in ${since}`);
    attribute(this.#svg, 'aria-label', `${this.#name} gaps: ${number(last)} now, ${number(values[0])} at the start of the last ${since}`);
  }
}

export class Chart {
  #panels = [new Panel($('chart-open'), 1, 'open'), new Panel($('chart-closed'), 2, 'closed')];

  /** Draws what the trend has since it began, or of the chosen time. */
  draw(trend, now) {
    const opened = trend.points[0]?.[0];
    $('no-trend').hidden = opened !== undefined;
    for (const id of ['chart-open', 'chart-closed']) $(id).hidden = opened === undefined;
    if (opened === undefined) return;
    const minutes = Number($('window').value);
    const from = minutes ? now - minutes * 60_000 : Math.min(opened, now - 60_000);
    for (const panel of this.#panels) panel.draw(trend, from, now, opened);
  }
}

/** Ends of a scale that hold all values, never flat, with round numbers. */
function scale(low, high) {
  const room = Math.max(high - low, 4);
  const step = 10 ** Math.floor(Math.log10(room));
  const tick = room / step > 5 ? step * 2 : step;
  const bottom = Math.max(0, Math.floor((low - room * 0.1) / tick) * tick);
  return [bottom, Math.max(bottom + tick, Math.ceil((high + room * 0.1) / tick) * tick)];
}

// The patients in order: by name always kept, any other order made from it in one pass. Pure.
//
// Sorting 100,000 names at once would hold up the page. So only those that came are sorted, and
// merged into those that are in order already.

import { nameOf } from './model.js';

const ASCII = /^[\x00-\x7f]*$/;
/** So many rows are put in their place at a time: the others wait for the next. */
const AT_ONCE = 2500;

/** How a name is compared and searched: no case, no accents. */
export function fold(text) {
  if (ASCII.test(text)) return text.toLowerCase();
  return text.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase();
}

const before = (a, b) => (a.fold < b.fold ? -1 : a.fold > b.fold ? 1 : a.row.key < b.row.key ? -1 : 1);

export class Order {
  /** `{row, fold, text}`, in the order of `fold`. */
  #sorted = [];

  /** Takes what moved in a model since the last time. Returns whether more is left. */
  update(model) {
    if (model.moved.size === 0) return false;
    let moved = model.moved;
    model.moved = new Set();
    if (moved.size > AT_ONCE) {
      const all = [...moved];
      moved = new Set(all.slice(0, AT_ONCE));
      model.moved = new Set(all.slice(AT_ONCE));
    }
    const came = [];
    for (const row of moved) {
      if (model.rows.get(row.key) !== row) continue;
      const name = fold(nameOf(row));
      came.push({ row, fold: name, text: `${name} ${fold(row.key)} ${fold(row.facts?.number ?? '')}` });
    }
    came.sort(before);
    const stayed = this.#sorted.filter(entry => !moved.has(entry.row));
    this.#sorted = merged(stayed, came);
    return model.moved.size > 0;
  }

  /**
   * Rows that have gaps, pass the filter and hold all words, in the order of a column.
   * `filter`: {words, measure: key or null, status: index or null}; `sort`: {by, down}.
   */
  select({ words, measure, status }, { by, down }) {
    const wanted = fold(words).split(/\s+/).filter(Boolean);
    const rows = [];
    for (const { row, text } of this.#sorted) {
      if (row.gaps.size === 0) continue;
      if (!wanted.every(word => text.includes(word))) continue;
      if ((measure !== null || status !== null) && !hasGap(row, measure, status)) continue;
      rows.push(row);
    }
    if (by === 'name') return down ? rows.reverse() : rows;
    return byNumber(rows, NUMBERS[by] ?? (row => row.counts[by]), down);
  }
}

/** Whose birth is not known is after all whose is: in days. */
const UNKNOWN = 1e8;

/** Orders that are no count: by the second, by the day. */
const NUMBERS = {
  changed: row => Math.floor(row.changed / 1000),
  birth: row => {
    const at = Date.parse(row.facts?.birth ?? '');
    return Number.isNaN(at) ? UNKNOWN : Math.floor(at / 86_400_000);
  },
};

function hasGap(row, measure, status) {
  for (const gap of row.gaps) {
    if ((measure === null || gap.measure.key === measure) && (status === null || gap.status === status)) return true;
  }
  return false;
}

/** More rows than there will ever be. */
const PLACES = 2 ** 20;

/**
 * Rows that are equal stay in the order of their names. Number and place are sorted as one number:
 * many times as fast as objects by a function.
 */
function byNumber(rows, number, down) {
  const keys = new Float64Array(rows.length);
  rows.forEach((row, at) => { keys[at] = (down ? -number(row) : number(row)) * PLACES + at; });
  keys.sort();
  return Array.from(keys, key => rows[key - Math.floor(key / PLACES) * PLACES]);
}

function merged(left, right) {
  if (right.length === 0) return left;
  const all = new Array(left.length + right.length);
  let l = 0;
  let r = 0;
  for (let at = 0; at < all.length; at++) {
    all[at] = r === right.length || (l < left.length && before(left[l], right[r]) < 0) ? left[l++] : right[r++];
  }
  return all;
}

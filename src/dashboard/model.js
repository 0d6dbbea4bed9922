// The page's copy of what the stream has told: gaps, reports, compositions and patients, and the
// counts over them, kept as each event comes. Pure: no DOM, no clock, no network.
//
// Events come in any order: a gap may come before its report, its patient, or without either.

import { CLOSED, STATUSES, compositionOf, gapOf, patientOf, reportOf, shortName } from './facts.js';

const none = () => new Array(STATUSES.length).fill(0);

export class Model {
  /** By id. A gap holds its `row` and its `measure`, and these their counts. */
  gaps = new Map();
  reports = new Map();
  compositions = new Map();
  /** By the patient's id, or by whatever a gap calls them; '' holds the gaps of nobody. */
  rows = new Map();
  /** By canonical; before a gap's report has come, by the gap's own text. */
  measures = new Map();
  totals = none();
  /** Versions that came a second time: a stream that keeps its promise leaves this at 0. */
  repeats = 0;
  /** How many patients have a gap. */
  concerned = 0;
  /** Rows that came, went or changed their name since somebody took these. */
  moved = new Set();
  /** By a report's id: the gaps that wait for it, or follow it. */
  #gapsOfReport = new Map();
  /** By a gap's id: the sections that claim it. The last one counts. */
  #claims = new Map();

  /** Takes a resource. Returns what changed, or null. */
  put(resource) {
    switch (resource?.resourceType) {
      case 'DetectedIssue': return this.#putGap(resource);
      case 'MeasureReport': return this.#putReport(resource);
      case 'Composition': return this.#putComposition(resource);
      case 'Patient': return this.#putPatient(resource);
      default: return null;
    }
  }

  /** Takes a deletion. Returns what changed, or null. */
  remove(type, id) {
    switch (type) {
      case 'DetectedIssue': return this.#dropGap(id);
      case 'MeasureReport': return this.#dropReport(id);
      case 'Composition': return this.#dropComposition(id);
      case 'Patient': return this.#dropPatient(id);
      default: return null;
    }
  }

  /** How many resources it holds. */
  get size() {
    let patients = 0;
    for (const row of this.rows.values()) patients += row.facts ? 1 : 0;
    return this.gaps.size + this.reports.size + this.compositions.size + patients;
  }

  #isRepeat(old, facts) {
    const same = old !== undefined && old !== null && facts.version !== '' && old.version === facts.version;
    this.repeats += same ? 1 : 0;
    return same;
  }

  // Gaps

  #putGap(resource) {
    const gap = gapOf(resource);
    const old = this.gaps.get(resource.id);
    if (!gap) return old ? this.#dropGap(resource.id) : null;
    if (this.#isRepeat(old, gap)) return null;
    if (old) this.#release(old);
    this.gaps.set(gap.id, gap);
    for (const report of this.#named(gap)) this.#await(report, gap);
    this.#home(gap);
    if (old) this.#settle(old);
    return {
      kind: 'gap', row: gap.row, measure: gap.measure, gap,
      from: old ? { status: old.status, code: old.code } : null, to: { status: gap.status, code: gap.code },
    };
  }

  #dropGap(id) {
    const gap = this.gaps.get(id);
    if (!gap) return null;
    const { row, measure } = gap;
    this.#release(gap);
    this.gaps.delete(id);
    this.#settle(gap);
    return { kind: 'gap', row, measure, gap, from: { status: gap.status, code: gap.code }, to: null };
  }

  /** Takes a gap out of all that counts it. */
  #release(gap) {
    for (const report of this.#named(gap)) this.#forget(gap, report);
    this.#leave(gap);
  }

  #forget(gap, report) {
    const gaps = this.#gapsOfReport.get(report) ?? [];
    const at = gaps.indexOf(gap);
    if (at < 0) return;
    // One report may be that of all gaps: none of them is moved for one that goes.
    gaps[at] = gaps.at(-1);
    gaps.pop();
    if (gaps.length === 0) this.#gapsOfReport.delete(report);
  }

  /** A gap waits for a report once, so nobody looks whether it does already. */
  #await(report, gap) {
    const gaps = this.#gapsOfReport.get(report);
    if (gaps) gaps.push(gap);
    else this.#gapsOfReport.set(report, [gap]);
  }

  /** The reports that a gap belongs to, each once: those it names, then a composition's section. */
  #named(gap) {
    const report = this.#sectionOf(gap)?.report;
    return report && !gap.reports.includes(report) ? [...gap.reports, report] : gap.reports;
  }

  #leave(gap) {
    const { row, measure } = gap;
    this.totals[gap.status] -= 1;
    measure.counts[gap.status] -= 1;
    measure.size -= 1;
    row.counts[gap.status] -= 1;
    row.gaps.delete(gap);
    if (row.gaps.size === 0) this.concerned -= 1;
  }

  /** Drops what a gap has left empty behind it. */
  #settle({ row, measure }) {
    if (measure.size === 0 && this.measures.get(measure.key) === measure) {
      this.measures.delete(measure.key);
    }
    this.#keepOrDrop(row);
  }

  /** Counts a gap where it belongs now. */
  #home(gap) {
    const row = this.#row(gap.patient);
    if (!row.facts && !row.display && gap.display) {
      row.display = gap.display;
      this.moved.add(row);
    }
    if (row.gaps.size === 0) this.concerned += 1;
    row.gaps.add(gap);
    row.counts[gap.status] += 1;
    if (gap.changed > row.changed) row.changed = gap.changed;
    const measure = this.#measureOf(gap);
    measure.counts[gap.status] += 1;
    measure.size += 1;
    this.totals[gap.status] += 1;
    gap.row = row;
    gap.measure = measure;
  }

  #rehome(gap) {
    const before = { row: gap.row, measure: gap.measure };
    this.#leave(gap);
    this.#home(gap);
    this.#settle(before);
  }

  /** The report of a gap that is there: as the gap says, or a composition's section. */
  reportOf(gap) {
    for (const id of this.#named(gap)) {
      const report = this.reports.get(id);
      if (report) return report;
    }
    return null;
  }

  #measureOf(gap) {
    const canonical = this.reportOf(gap)?.measure ?? '';
    const title = gap.title || this.#sectionOf(gap)?.title || '';
    const key = canonical || (title && 'text:' + title);
    let measure = this.measures.get(key);
    if (!measure) {
      const short = shortName(canonical);
      measure = { key, title: title || short || 'Measure not known', short, counts: none(), size: 0 };
      this.measures.set(key, measure);
    }
    return measure;
  }

  // Reports and compositions

  #putReport(resource) {
    const report = reportOf(resource);
    const old = this.reports.get(report.id);
    if (this.#isRepeat(old, report)) return null;
    this.reports.set(report.id, report);
    const waiters = [...(this.#gapsOfReport.get(report.id) ?? [])];
    if (old?.measure !== report.measure) waiters.forEach(gap => this.#rehome(gap));
    const [gap] = waiters;
    const same = !old || (old.score === report.score && old.numerator === report.numerator);
    if (same || !gap) return null;
    return { kind: 'report', row: gap.row, measure: gap.measure, from: old, to: report };
  }

  #dropReport(id) {
    if (this.reports.delete(id)) {
      [...(this.#gapsOfReport.get(id) ?? [])].forEach(gap => this.#rehome(gap));
    }
    return null;
  }

  #putComposition(resource) {
    const composition = compositionOf(resource);
    const old = this.compositions.get(composition.id);
    if (this.#isRepeat(old, composition)) return null;
    if (old) this.#dropComposition(old.id);
    this.compositions.set(composition.id, composition);
    for (const section of composition.sections) {
      for (const id of section.gaps) this.#claim(id, section);
    }
    const row = composition.patient && this.#row(composition.patient);
    if (row) (row.compositions ??= new Set()).add(composition);
    return null;
  }

  #dropComposition(id) {
    const composition = this.compositions.get(id);
    if (!composition) return null;
    this.compositions.delete(id);
    for (const section of composition.sections) {
      for (const id of section.gaps) this.#unclaim(id, section);
    }
    const row = this.rows.get(composition.patient);
    if (row) {
      row.compositions?.delete(composition);
      this.#keepOrDrop(row);
    }
    return null;
  }

  #sectionOf(gap) {
    return this.#claims.get(gap.id)?.at(-1);
  }

  #claim(id, section) {
    const claims = this.#claims.get(id) ?? [];
    const at = claims.findLastIndex(other => !isLater(other, section)) + 1;
    this.#setClaims(id, claims.toSpliced(at, 0, section));
  }

  #unclaim(id, section) {
    this.#setClaims(id, (this.#claims.get(id) ?? []).filter(other => other !== section));
  }

  #setClaims(id, claims) {
    const gap = this.gaps.get(id);
    const moves = gap && this.#sectionOf(gap) !== claims.at(-1);
    if (moves) this.#named(gap).forEach(report => this.#forget(gap, report));
    if (claims.length > 0) this.#claims.set(id, claims);
    else this.#claims.delete(id);
    if (!moves) return;
    this.#named(gap).forEach(report => this.#await(report, gap));
    this.#rehome(gap);
  }

  // Patients

  #row(key) {
    let row = this.rows.get(key);
    if (!row) {
      row = {
        key, facts: null, display: '', gone: false, counts: none(), gaps: new Set(),
        compositions: null, changed: 0,
      };
      this.rows.set(key, row);
      this.moved.add(row);
    }
    return row;
  }

  #keepOrDrop(row) {
    if (row.facts || row.gaps.size > 0 || row.compositions?.size > 0) return;
    if (this.rows.get(row.key) !== row) return;
    this.rows.delete(row.key);
    this.moved.add(row);
  }

  #putPatient(resource) {
    const facts = patientOf(resource);
    const row = this.#row(facts.id);
    const old = row.facts;
    if (this.#isRepeat(old, facts)) return null;
    row.facts = facts;
    row.gone = false;
    if (old?.name !== facts.name) this.moved.add(row);
    if (facts.changed > row.changed) row.changed = facts.changed;
    return { kind: 'patient', row, from: old, to: facts };
  }

  #dropPatient(id) {
    const row = this.rows.get(id);
    if (!row?.facts) return null;
    const from = row.facts;
    row.facts = null;
    row.gone = true;
    row.display = '';
    this.moved.add(row);
    this.#keepOrDrop(row);
    return { kind: 'patient', row, from, to: null };
  }
}

/** Which of two sections is of the later composition: an order of their own, whichever came first. */
function isLater(a, b) {
  return a.dated === b.dated ? a.of > b.of : a.dated > b.dated;
}

/** The share of gaps that are closed, of those that apply; null where there are none. */
export function closedShare(counts) {
  const [open, prospective, closed] = counts;
  const all = open + prospective + closed;
  return all === 0 ? null : counts[CLOSED] / all;
}

/** How people call a patient: their name, or what is known instead. */
export function nameOf(row) {
  if (row.key === '' && !row.facts) return 'No patient named';
  return row.facts?.name || row.display || row.key;
}

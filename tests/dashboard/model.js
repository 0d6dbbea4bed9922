// The model by itself: whatever the order in which versions come, what is left is the same.
// Returns the seeds at which it was not.
const [{ Model }, { gapOf }] = await Promise.all([import('/dashboard/model.js'), import('/dashboard/facts.js')]);

const random = seed => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};

/** All that can be seen of a model, in one order. */
function digest(model) {
  const sorted = list => list.sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  return JSON.stringify({
    totals: model.totals, concerned: model.concerned, size: model.size,
    gaps: sorted([...model.gaps.values()].map(gap => [gap.id, gap.version, gap.status, gap.row.key, gap.measure.key, model.reportOf(gap)?.id])),
    rows: sorted([...model.rows.values()].map(row => [row.key, row.facts?.name, row.counts, row.gaps.size, row.compositions?.size ?? 0])),
    measures: sorted([...model.measures.values()].map(one => [one.key, one.counts, one.size])),
  });
}

const DATES = [undefined, 'lately', '2026', '2026-01-01', '2026-04-01', '2026-04-01T01:00:00+02:00'];
const STATUS = ['open-gap', 'closed-gap', 'prospective-gap', 'not-applicable', 'weird', null];

function resource(next, type, n, version) {
  const of = (name, count) => `${name}/${Math.floor(next() * count)}`;
  const meta = { versionId: String(version) };
  const id = String(n);
  const oddly = next() < 0.15;
  switch (type) {
    case 'Patient': return { resourceType: type, id, meta, name: [{ family: 'F' + Math.floor(next() * 9) }] };
    case 'MeasureReport': return { resourceType: type, id, meta, measure: oddly ? undefined : 'http://x/' + of('Measure', 3) };
    case 'Composition': return {
      resourceType: type, id, meta, subject: { reference: of('Patient', 5) },
      date: DATES[Math.floor(next() * DATES.length)],
      section: Array.from({ length: 1 + Math.floor(next() * 2) }, (_, at) => ({
        title: `S${id}.${at}`, focus: { reference: of('MeasureReport', 6) },
        entry: Array.from({ length: Math.floor(next() * 4) }, () => ({ reference: of('DetectedIssue', 8) })),
      })),
    };
    default: {
      const code = STATUS[Math.floor(next() * STATUS.length)];
      const family = next() < 0.5 ? 'us/davinci-deqm' : 'uv/deqm';
      return {
        resourceType: type, id, meta, status: next() < 0.1 ? 'entered-in-error' : 'final',
        code: { coding: [{ code: next() < 0.1 ? 'DRG' : 'CAREGAP' }] },
        modifierExtension: code ? [{ url: `http://hl7.org/fhir/${family}/StructureDefinition/extension-gapStatus`, valueCodeableConcept: { coding: [{ code }] } }] : 7,
        patient: oddly ? undefined : { reference: of('Patient', 5) },
        evidence: next() < 0.3 ? undefined : [{ detail: [{ reference: of('MeasureReport', 6) }] }],
      };
    }
  }
}

const TYPES = { Patient: 5, MeasureReport: 6, Composition: 8, DetectedIssue: 8 };
const failed = [];
for (let seed = 1; seed <= 3000; seed++) {
  const next = random(seed);
  const model = new Model();
  const latest = new Map();
  const versions = new Map();
  for (let step = 0; step < 60; step++) {
    const names = Object.keys(TYPES);
    const type = names[Math.floor(next() * names.length)];
    const n = Math.floor(next() * TYPES[type]);
    const name = `${type}/${n}`;
    if (next() < 0.25) {
      model.remove(type, String(n));
      latest.delete(name);
    } else {
      versions.set(name, (versions.get(name) ?? 0) + 1);
      const made = resource(next, type, n, versions.get(name));
      model.put(made);
      if (type !== 'DetectedIssue' || gapOf(made)) latest.set(name, made);
      else latest.delete(name);
    }
  }
  const fresh = new Model();
  const left = [...latest.values()];
  for (let at = left.length - 1; at > 0; at--) {
    const other = Math.floor(next() * (at + 1));
    [left[at], left[other]] = [left[other], left[at]];
  }
  left.forEach(one => fresh.put(one));
  if (digest(model) !== digest(fresh)) failed.push([seed, digest(model), digest(fresh)]);
}
return failed.slice(0, 2);

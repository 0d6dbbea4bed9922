// What the page keeps of a resource: a few facts, from any JSON, however odd. Pure.
//
// Care gaps are DetectedIssues as the Da Vinci guide "Data Exchange for Quality Measures" (DEQM)
// has them. How a gap stands is a modifierExtension, whose canonical has moved once.

/** How a gap can stand; a gap's `status` is an index into this. */
export const STATUSES = ['open', 'prospective', 'closed', 'notApplicable', 'other'];
export const [OPEN, PROSPECTIVE, CLOSED, NOT_APPLICABLE, OTHER] = STATUSES.keys();

const CODES = new Map([
  ['open-gap', OPEN], ['prospective-gap', PROSPECTIVE], ['closed-gap', CLOSED],
  ['not-applicable', NOT_APPLICABLE],
]);
const GAP_STATUS = new Set([
  'http://hl7.org/fhir/us/davinci-deqm/StructureDefinition/extension-gapStatus',
  'http://hl7.org/fhir/uv/deqm/StructureDefinition/extension-gapStatus',
]);

const list = value => (Array.isArray(value) ? value.filter(one => one && typeof one === 'object') : []);
const text = value => (typeof value === 'string' ? value : '');
const texts = value => (Array.isArray(value) ? value.filter(one => typeof one === 'string') : []);
const codings = concept => list(concept?.coding);

const version = resource => text(resource.meta?.versionId);
const changed = resource => Date.parse(text(resource.meta?.lastUpdated)) || 0;

/** What 100,000 resources say alike is kept once. */
const alike = new Map();
function shared(value) {
  const one = text(value);
  const kept = alike.get(one);
  if (kept !== undefined) return kept;
  if (alike.size < 10_000) alike.set(one, one);
  return one;
}

const ID = /^[A-Za-z0-9.-]{1,64}$/;

/** The id within a literal reference to a type, relative, absolute or versioned; else ''. */
export function idOf(reference, type) {
  const parts = text(reference).split('/');
  if (parts.at(-2) === '_history') parts.length -= 2;
  return parts.at(-2) === type && ID.test(parts.at(-1)) ? parts.at(-1) : '';
}

/** Whom a Reference means: the id of a Patient, or whatever names one; '' for nobody. */
function whom(reference) {
  const { reference: literal, display, identifier } = reference ?? {};
  return idOf(literal, 'Patient') || text(literal) || text(identifier?.value) || text(display);
}

/** A DetectedIssue that is a care gap; null for any other. */
export function gapOf(issue) {
  const extension = list(issue.modifierExtension).find(one => GAP_STATUS.has(one.url));
  const isGap = extension || codings(issue.code).some(coding => coding.code === 'CAREGAP');
  if (!isGap || issue.status === 'entered-in-error') return null;
  const codes = codings(extension?.valueCodeableConcept).map(coding => text(coding.code));
  const known = codes.find(code => CODES.has(code));
  const details = list(issue.evidence).flatMap(evidence => list(evidence.detail));
  return {
    id: text(issue.id),
    version: version(issue),
    changed: changed(issue),
    /** Set by the model: the patient's row, and the measure that counts it. */
    row: null,
    measure: null,
    status: known === undefined ? OTHER : CODES.get(known),
    code: shared(known ?? codes.find(Boolean) ?? extension?.valueCodeableConcept?.text),
    patient: whom(issue.patient),
    display: text(issue.patient?.display),
    title: shared(issue.code?.text),
    /** Each once. */
    reports: [...new Set(details.map(detail => idOf(detail.reference, 'MeasureReport')).filter(Boolean))],
    identified: text(issue.identifiedDateTime) || text(issue.identifiedPeriod?.start),
  };
}

/** A MeasureReport. */
export function reportOf(report) {
  const group = list(report.group)[0] ?? {};
  const score = group.measureScore?.value;
  const numerator = list(group.population)
    .find(one => codings(one.code).some(coding => coding.code === 'numerator'))?.count;
  return {
    id: text(report.id),
    version: version(report),
    measure: shared(report.measure),
    start: shared(report.period?.start),
    end: shared(report.period?.end),
    score: typeof score === 'number' ? score : null,
    numerator: typeof numerator === 'number' ? numerator : null,
  };
}

/** A Composition: a gaps-in-care report, whose sections say which gap belongs to which report. */
export function compositionOf(composition) {
  const sections = list(composition.section).map(section => ({
    /** Which composition it is of, and of when that is. */
    of: text(composition.id),
    dated: Date.parse(text(composition.date)) || 0,
    report: idOf(section.focus?.reference, 'MeasureReport'),
    title: text(section.title),
    /** Each once. */
    gaps: [...new Set(list(section.entry).map(entry => idOf(entry.reference, 'DetectedIssue')).filter(Boolean))],
  }));
  return {
    id: text(composition.id),
    version: version(composition),
    title: text(composition.title),
    date: text(composition.date),
    patient: composition.subject ? whom(composition.subject) : '',
    sections: sections.filter(section => section.gaps.length > 0),
  };
}

/** A Patient. */
export function patientOf(patient) {
  const names = list(patient.name);
  const name = names.find(one => one.use === 'official') ?? names[0] ?? {};
  const given = texts(name.given).join(' ');
  return {
    id: text(patient.id),
    version: version(patient),
    changed: changed(patient),
    name: [text(name.family), given].filter(Boolean).join(', ') || text(name.text),
    birth: text(patient.birthDate),
    gender: shared(patient.gender),
    number: text(list(patient.identifier)[0]?.value),
  };
}

/** The last part of a canonical, without its version: how people call a measure. */
export function shortName(canonical) {
  return canonical.split('|')[0].split('/').filter(Boolean).at(-1) ?? '';
}

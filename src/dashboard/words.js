// What the page says, from what is so. Pure.

const whole = new Intl.NumberFormat('en');
const clock = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const day = new Intl.DateTimeFormat('en', { year: 'numeric', month: 'short', day: 'numeric' });

export const number = value => whole.format(value);
export const time = at => (at ? clock.format(at) : '–');

/** 'open-gap' as people say it. */
export const STATUS_WORDS = ['open', 'prospective', 'closed', 'not applicable', 'other'];

/** A FHIR date or instant as a day; as it is where it is none. */
export function date(text) {
  const at = Date.parse(text.length === 10 ? text + 'T00:00' : text);
  return text.length >= 10 && at ? day.format(at) : text;
}

/** Lately by the clock, before that by the day. */
export function when(at) {
  return Date.now() - at < 43_200_000 ? time(at) : date(new Date(at).toISOString());
}

export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return seconds + ' s';
  if (seconds < 3600) return Math.floor(seconds / 60) + ' min';
  if (seconds < 86_400) return Math.floor(seconds / 3600) + ' h';
  return Math.floor(seconds / 86_400) + ' d';
}

export function rate(perSecond) {
  return perSecond >= 10 || perSecond === 0 ? number(Math.round(perSecond)) : perSecond.toFixed(1);
}

export function lag(ms) {
  if (ms === null) return '–';
  return ms < 1000 ? Math.round(ms) + ' ms' : ms < 10_000 ? (ms / 1000).toFixed(1) + ' s' : span(ms);
}

/** Whole years since a birth date; '' where it is no full date. */
export function age(birth, now) {
  const [year, month, dayOf] = birth.split('-').map(Number);
  const today = new Date(now);
  if (!year || !month || !dayOf) return '';
  const hasPassed = today.getMonth() + 1 > month || (today.getMonth() + 1 === month && today.getDate() >= dayOf);
  return String(today.getFullYear() - year - (hasPassed ? 0 : 1));
}

/** A stream opens within so many ms, or something is wrong. */
const UNUSUAL = 5000;
const CROWDED = 'Without HTTP/2 a browser has six connections to a server: other tabs with this page may hold them';

/** The stream's state: one or two words, and a sentence. */
export function state(stream, now, isOnline = true) {
  const asOf = stream.caughtUpAt ? `what you see is as of ${time(stream.heard)}` : '';
  const join = (...parts) => parts.filter(Boolean).join('; ');
  const soFar = `${number(stream.loaded)} so far, ${rate(stream.rate(now))} a second`;
  const next = stream.due > now ? `trying again in ${Math.ceil((stream.due - now) / 1000)} s` : 'trying again now';
  const from = stream.position ? ` from position ${short(stream.position)}` : '';
  const why = stream.why.replace(/\.$/, '');
  const network = isOnline ? '' : 'this device has no network';
  const quiet = `for ${span(now - (stream.heard || stream.opened))}`;
  switch (stream.phase) {
    case 'loading':
      return stream.isAgain
        ? ['Starting over', join(why, `loading again: ${soFar}`, 'until then you see the last state')]
        : ['Loading history', soFar];
    case 'live':
      return ['Live', `caught up at ${time(stream.caughtUpAt)}; last event ${span(now - stream.heard)} ago`];
    case 'resuming': return ['Catching up', 'connected again; taking what was missed'];
    case 'behind': return ['Fell behind', `the stream is ahead of this page; catching up at ${rate(stream.rate(now))} a second`];
    case 'waiting': return ['Reconnecting', join(network, why, next + from, asOf)];
    case 'refused': return ['No stream', join(why || 'the server gives no stream', next + from, asOf)];
    case 'unsure': return ['Nothing heard', join(quiet, network, 'no answer when asked; asking again', asOf) + '. ' + CROWDED];
    case 'silent': return ['No answer', join(network, 'nothing heard ' + quiet, 'asking every few seconds', asOf)];
    default: return ['Connecting', now - stream.since < UNUSUAL ? join('asking the server for its stream', asOf) : 'no answer yet. ' + CROWDED];
  }
}

/** A position, by its ends: the middle of a long one is of no help to anybody. */
function short(position) {
  return position.length <= 30 ? position : `${position.slice(0, 12)}…${position.slice(-14)}`;
}

/** How a status is called: the known ones by their word, an unknown one by its code. */
export function statusWord({ status, code }) {
  return status < STATUS_WORDS.length - 1 ? STATUS_WORDS[status] : code || 'no status';
}

// Open and closed gaps over time, as steps: a point where either changed. Pure.

/** So many points are kept; beyond, the older half is thinned. */
const MOST = 4000;
/** So many times of hearing nothing are kept; beyond, the shortest is let go of. */
const MOST_BLIND = 300;

export class Trend {
  /** [at, open, closed], by time. */
  points = [];
  /** [from, to] while the page heard nothing; `to` is 0 while it still does not. */
  blind = [];

  record(at, open, closed) {
    const last = this.points.at(-1);
    if (last && last[1] === open && last[2] === closed) return;
    // What changes within a quarter of a second is one step, which stays where it began.
    if (this.points.length > 1 && at - last[0] < 250) {
      last[1] = open;
      last[2] = closed;
      return;
    }
    this.points.push([at, open, closed]);
    if (this.points.length > MOST) {
      const half = MOST >> 1;
      this.points = this.points.filter((_, index) => index > half || index % 2 === 0);
    }
  }

  /** Says whether the page hears. */
  hears(at, does) {
    const last = this.blind.at(-1);
    if (!does && (!last || last[1])) this.blind.push([at, 0]);
    if (does && last && !last[1]) last[1] = at;
    if (this.blind.length <= MOST_BLIND) return;
    const lengths = this.blind.map(([from, to]) => (to || Infinity) - from);
    this.blind.splice(lengths.indexOf(Math.min(...lengths)), 1);
  }

  /** The steps of a series (1 open, 2 closed) from a time on, the value at its start first. */
  since(from, series) {
    let first = this.points.findIndex(([at]) => at > from);
    if (first < 0) first = this.points.length;
    const before = this.points[first - 1];
    const steps = this.points.slice(first).map(point => [point[0], point[series]]);
    return before ? [[Math.max(from, before[0]), before[series]], ...steps] : steps;
  }
}

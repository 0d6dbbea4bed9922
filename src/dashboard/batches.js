// Work in batches: what comes faster than it can be done waits, in order, and the page stays
// awake in between. An EventSource hands over thousands of events in one task.

/** A batch ends after so many ms; a long queue gets more, so that it does not grow without end. */
const SHORT = 10;
const LONG = 40;
const MANY = 5000;
/** The clock is asked each so many steps. */
const STEPS = 16;

export class Batches {
  #queue = [];
  #next = 0;
  #isAwaited = false;
  #channel = new MessageChannel();

  constructor() {
    // A message comes without the delays of a timer, and lets the page draw in between.
    this.#channel.port1.onmessage = () => this.#work();
  }

  /** Does `work(argument)` after all that was added before. */
  add(work, argument) {
    this.#queue.push(work, argument);
    this.#await();
  }

  #await() {
    if (this.#isAwaited) return;
    this.#isAwaited = true;
    this.#channel.port2.postMessage(0);
  }

  #work() {
    this.#isAwaited = false;
    const waiting = (this.#queue.length - this.#next) / 2;
    const end = performance.now() + (waiting > MANY ? LONG : SHORT);
    for (let step = 1; this.#next < this.#queue.length; step++) {
      const work = this.#queue[this.#next];
      const argument = this.#queue[this.#next + 1];
      this.#next += 2;
      try {
        work(argument);
      } catch (error) {
        // One event that can't be read must not hold up those behind it.
        reportError(error);
      }
      if (step % STEPS === 0 && performance.now() > end) break;
    }
    if (this.#next < this.#queue.length) {
      // What is done is let go of now and then: moving the rest each time would cost more.
      if (this.#next > 2 * MANY) {
        this.#queue.splice(0, this.#next);
        this.#next = 0;
      }
      this.#await();
    } else {
      this.#queue = [];
      this.#next = 0;
    }
  }
}

// The page's one clock. It reads like wall time in milliseconds, so that it can
// label a plot, but it only ever runs forward: it starts at the wall clock and
// then follows the monotonic one. A computer that sleeps stops the monotonic
// clock; then the wall clock's larger step is taken, so that a view opened after
// an hour of sleep says "an hour old" and not "3 s old".

export interface Clock {
  now(): number;
}

/** A difference between the two clocks above this is sleep, not jitter. */
const sleepMillis = 1000;

export class PageClock implements Clock {
  private at: number;
  private lastWall: number;
  private lastMonotonic: number;

  constructor(
    private readonly wall: () => number = () => Date.now(),
    private readonly monotonic: () => number = () => performance.now(),
  ) {
    this.lastWall = wall();
    this.lastMonotonic = monotonic();
    this.at = this.lastWall;
  }

  now(): number {
    const wall = this.wall();
    const monotonic = this.monotonic();
    const wallStep = wall - this.lastWall;
    const step = Math.max(0, monotonic - this.lastMonotonic);
    this.lastWall = wall;
    this.lastMonotonic = monotonic;
    this.at += wallStep - step > sleepMillis ? wallStep : step;
    return this.at;
  }
}

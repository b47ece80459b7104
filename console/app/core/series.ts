// The samples that this page has received, per robot, for the small plots. They
// live as long as the page: the robots keep their own history.

import type { RobotView } from "./state";

/** Samples kept a robot: 20 minutes at one every 2 s. */
export const maxSamples = 600;
/** Robots whose samples are kept; the one silent for longest makes room. */
export const maxSeries = 256;
/** A longer silence is a gap in the plot, not a straight line. */
const gapMillis = 30_000;
/** Two samples closer than this are one, told twice. */
const sameSampleMillis = 500;

/** One column a measure, as uPlot wants them; times are seconds. */
export interface Columns {
  time: number[];
  cpuPercent: (number | null)[];
  memoryPercent: (number | null)[];
  temperatureC: (number | null)[];
  rxBytesPerSec: (number | null)[];
  txBytesPerSec: (number | null)[];
}

export type Measure = Exclude<keyof Columns, "time">;

const measures: readonly Measure[] = ["cpuPercent", "memoryPercent", "temperatureC", "rxBytesPerSec", "txBytesPerSec"];

export class SeriesStore {
  private readonly byRobot = new Map<string, Columns>();

  columns(id: string): Columns | undefined {
    return this.byRobot.get(id);
  }

  get size(): number {
    return this.byRobot.size;
  }

  /** Records a robot's newest sample. False: there was nothing new. */
  record(r: RobotView): boolean {
    const s = r.telemetry;
    if (s === null || r.heardAt === null) return false;
    const columns = this.byRobot.get(r.id) ?? emptyColumns();
    const last = columns.time.at(-1);
    const at = r.heardAt / 1000;
    if (last !== undefined && (at - last) * 1000 < sameSampleMillis) return false;
    if (last !== undefined && (at - last) * 1000 > gapMillis) push(columns, (at + last) / 2, {});
    push(columns, at, {
      cpuPercent: s.cpuPercent,
      memoryPercent: s.memTotalBytes > 0 ? (100 * s.memUsedBytes) / s.memTotalBytes : null,
      temperatureC: s.temperatureC,
      rxBytesPerSec: s.netRxBytesPerSec,
      txBytesPerSec: s.netTxBytesPerSec,
    });
    this.byRobot.delete(r.id); // re-inserted last: the map's order is by recency
    this.byRobot.set(r.id, columns);
    for (const oldest of this.byRobot.keys()) {
      if (this.byRobot.size <= maxSeries) break;
      this.byRobot.delete(oldest);
    }
    return true;
  }

  clear(): void {
    this.byRobot.clear();
  }
}

function emptyColumns(): Columns {
  return { time: [], cpuPercent: [], memoryPercent: [], temperatureC: [], rxBytesPerSec: [], txBytesPerSec: [] };
}

function push(c: Columns, time: number, values: Partial<Record<Measure, number | null>>): void {
  c.time.push(time);
  for (const m of measures) c[m].push(values[m] ?? null);
  if (c.time.length <= maxSamples) return;
  c.time.shift();
  for (const m of measures) c[m].shift();
}

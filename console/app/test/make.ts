// Words of the protocol for tests, with only what a test cares about spelt out.

import type { Cursor, Fleet, FleetEvent, Robot } from "../core/protocol";

export const cursorAt = (seq: number, history = "h1"): Cursor => ({ history, seq, hash: `${history}-${seq}` });

export function aFleet(f: Partial<Fleet> = {}): Fleet {
  return {
    fleetId: "f", name: "garage", leader: { id: "a", name: "anna" }, term: 1, voters: [{ id: "a", name: "anna", reachable: true }], canLose: 0,
    canLoseReason: "one voter only", members: 1, robots: 1, ...f,
  };
}

export function aRobot(id: string, r: Partial<Robot> = {}): Robot {
  return {
    id, name: `robot ${id}`, type: "lekiwi", status: "online", statusSince: "2026-01-01T00:00:00Z", role: "follower", voterEligible: false, voterApproved: false,
    lifecycle: { state: "discovered", since: "", failures: 0, lastFailure: null }, deployed: null, hostname: "", version: "1", arch: "arm64", os: "linux", labels: {}, groups: [], http: "", telemetry: null, heardAgeMillis: null, ...r,
  };
}

export function sampleOf(cpuPercent: number): NonNullable<Robot["telemetry"]> {
  return {
    cpuPercent, memUsedBytes: 1, memTotalBytes: 4, diskUsedBytes: 0, diskTotalBytes: 0, temperatureC: 40, batteryPercent: null, netRxBytesPerSec: 0,
    netTxBytesPerSec: 0, uptimeSeconds: 1, load1: 0,
  };
}

export function anEvent(seq: number, e: Partial<FleetEvent> = {}): FleetEvent {
  return { seq, time: "2026-01-01T00:00:00Z", stream: "robot/a", version: seq, type: "robot.online", actor: { kind: "leader", id: "a" }, cause: "", data: {}, ...e };
}

/** Repeatable chance: the same seed gives the same numbers. */
export function seeded(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Time that passes only when told. */
export class FakeTime {
  at = 1_000_000;
  private timers = new Set<{ due: number; fn: () => void }>();

  readonly now = (): number => this.at;

  readonly after = (millis: number, fn: () => void): (() => void) => {
    const timer = { due: this.at + millis, fn };
    this.timers.add(timer);
    return () => this.timers.delete(timer);
  };

  get pending(): number {
    return this.timers.size;
  }

  pass(millis: number): void {
    const end = this.at + millis;
    for (;;) {
      const next = [...this.timers].filter((t) => t.due <= end).sort((a, b) => a.due - b.due)[0];
      if (next === undefined) break;
      this.timers.delete(next);
      this.at = next.due;
      next.fn();
    }
    this.at = end;
  }
}

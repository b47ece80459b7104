// A make-believe fleet: robots with wandering telemetry and a log of events.
// Pure: time and chance are given to it, and it opens no socket.

import { createHash } from "node:crypto";
import type { Cursor, Fleet, FleetEvent, Lifecycle, NodeRef, Robot, Sample } from "../core/protocol";

/** Seconds without news until the fake leader writes robot.offline (a real one waits 30). */
const offlineAfterMillis = 4000;

export interface FakeRobot extends NodeRef {
  type: string;
  alive: boolean;
  status: string;
  statusSince: number;
  heardAt: number | null;
  telemetry: Sample;
  battery: boolean;
  labels: Record<string, string>;
  groups: string[];
  http: string;
}

export class World {
  readonly robots: FakeRobot[] = [];
  readonly log: FleetEvent[] = [];
  term = 7;
  leader: FakeRobot | null = null;
  history = "h-" + fakeId("history").slice(0, 12);
  readonly name = "garage";

  constructor(private readonly now: () => number, private readonly random: () => number) {}

  get voters(): FakeRobot[] {
    return this.robots.slice(0, 3);
  }

  get cursor(): Cursor {
    return { history: this.history, seq: this.log.length, hash: fakeId(`${this.history}/${this.log.length}`) };
  }

  add(name: string, type: string, http: string): FakeRobot {
    const battery = type !== "unknown";
    const robot: FakeRobot = {
      id: fakeId(name), name, type, alive: true, status: "online", statusSince: this.now(), heardAt: this.now(), battery, http,
      labels: battery ? { site: "hall-2" } : {}, groups: battery ? ["mobile"] : [],
      telemetry: {
        cpuPercent: 5 + 30 * this.random(), memUsedBytes: 1.1e9 + 1e9 * this.random(), memTotalBytes: 4.1e9, diskUsedBytes: 11e9, diskTotalBytes: 62e9,
        temperatureC: 41 + 12 * this.random(), batteryPercent: battery ? 60 + 35 * this.random() : null, netRxBytesPerSec: 900, netTxBytesPerSec: 700,
        uptimeSeconds: 4000 * this.random(), load1: this.random(),
      },
    };
    this.robots.push(robot);
    const by = this.leader === null ? { kind: "genesis", id: "" } : { kind: "leader", id: this.leader.id };
    this.leader ??= robot;
    this.decide(`node/${robot.id}`, "node.admitted", { name, by: "enrolment" }, by);
    this.decide(`robot/${robot.id}`, "robot.registered", { name, type, version: "0.1.0", arch: "arm64", os: "linux" }, { kind: "node", id: robot.id });
    this.decide(`robot/${robot.id}`, "robot.online", {}, by);
    return robot;
  }

  decide(stream: string, type: string, data: Record<string, unknown>, actor = { kind: "leader", id: this.leader?.id ?? "" }): void {
    const version = 1 + this.log.filter((e) => e.stream === stream).length;
    this.log.push({ seq: this.log.length + 1, time: new Date(this.now()).toISOString(), stream, version, type, actor, cause: "", data });
  }

  /** A second or so of life. Returns the robots that changed. */
  step(): FakeRobot[] {
    const now = this.now();
    const changed: FakeRobot[] = [];
    for (const r of this.robots) {
      if (r.alive) {
        this.wander(r);
        r.heardAt = now;
        if (r.status !== "online") this.turn(r, "online", {});
        changed.push(r);
      } else if (r.status === "online" && now - (r.heardAt ?? 0) > offlineAfterMillis) {
        this.turn(r, "offline", { lastHeardSeconds: Math.round((now - (r.heardAt ?? now)) / 1000) });
        changed.push(r);
      }
    }
    this.elect();
    return changed;
  }

  fleet(): Fleet {
    const up = this.voters.filter((v) => v.alive).length;
    const canLose = Math.max(0, up - (Math.floor(this.voters.length / 2) + 1));
    return {
      fleetId: fakeId("fleet"), name: this.name, leader: this.leader && { id: this.leader.id, name: this.leader.name }, term: this.term,
      voters: this.voters.map((v) => ({ id: v.id, name: v.name, reachable: v.alive })), canLose,
      canLoseReason: canLose > 0 ? "" : this.voters.length === 1 ? "one voter only: set `voter = true` on another robot and run `skein node approve NAME`" : `${this.voters.length - up} of ${this.voters.length} voters do not answer: bring one back`,
      members: this.robots.length, robots: this.robots.length,
    };
  }

  robot(r: FakeRobot): Robot {
    const voter = this.voters.includes(r);
    return {
      id: r.id, name: r.name, type: r.type, status: r.status, statusSince: new Date(r.statusSince).toISOString(),
      role: r === this.leader ? "leader" : voter ? "voter" : "follower", voterEligible: voter, voterApproved: voter, version: "0.1.0", arch: "arm64",
      lifecycle: this.lifecycle(r), deployed: null, hostname: `${r.name}-pi`,
      os: "linux", labels: r.labels, groups: r.groups, http: r.http, telemetry: r.heardAt === null ? null : r.telemetry,
      heardAgeMillis: r.heardAt === null ? null : this.now() - r.heardAt,
    };
  }

  /** Every stage of a life is somewhere in a fleet of eight. */
  private lifecycle(r: FakeRobot): Lifecycle {
    const states = ["active", "ready", "discovered", "maintenance", "failed", "provisioning", "offline", "retired"];
    const state = states[this.robots.indexOf(r) % states.length] ?? "ready";
    const broken = state === "failed" || state === "offline";
    const at = new Date(r.statusSince).toISOString();
    return { state, since: at, failures: broken ? 3 : 0, lastFailure: broken ? { message: "the arm is stuck", kind: "hardware", at } : null };
  }

  /** As after a quorum recovery: a new history, numbered from the start. */
  reset(): void {
    this.history = "h-" + fakeId(`history ${this.random()}`).slice(0, 12);
    this.log.length = 0;
    for (const r of this.robots) this.decide(`robot/${r.id}`, "robot.registered", { name: r.name, type: r.type });
  }

  private turn(r: FakeRobot, status: string, data: Record<string, unknown>): void {
    r.status = status;
    r.statusSince = this.now();
    this.decide(`robot/${r.id}`, `robot.${status}`, data);
  }

  private elect(): void {
    const up = this.voters.filter((v) => v.alive);
    if (this.leader?.alive && up.length > this.voters.length / 2) return;
    const next = up.length > this.voters.length / 2 ? (up[0] ?? null) : null;
    if (next !== null) this.term++;
    this.leader = next;
  }

  private wander(r: FakeRobot): void {
    const t = r.telemetry;
    const step = (v: number, by: number, low: number, high: number): number => Math.min(high, Math.max(low, v + by * (this.random() - 0.5)));
    r.telemetry = {
      ...t,
      cpuPercent: step(t.cpuPercent, 18, 1, 99),
      memUsedBytes: step(t.memUsedBytes, 6e7, 5e8, 3.9e9),
      temperatureC: step(t.temperatureC ?? 45, 1.5, 35, 82),
      batteryPercent: r.battery ? Math.max(4, (t.batteryPercent ?? 50) - 0.05) : null,
      netRxBytesPerSec: step(t.netRxBytesPerSec, 5e3, 200, 6e4),
      netTxBytesPerSec: step(t.netTxBytesPerSec, 3e3, 200, 3e4),
      uptimeSeconds: t.uptimeSeconds + 1,
      load1: step(t.load1, 0.2, 0, 4),
    };
  }
}

/** 24 characters of base32, the form of a node id. */
export function fakeId(name: string): string {
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567";
  return [...createHash("sha256").update(name).digest().subarray(0, 24)].map((b) => alphabet[b % 32]).join("");
}

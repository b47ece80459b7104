// Filtering and sorting of the fleet table.

import type { RobotView } from "./state";

export const sortKeys = ["name", "type", "status", "role", "cpu", "memory", "temperature", "battery", "news"] as const;
export type SortKey = (typeof sortKeys)[number];

export function memoryPercent(r: RobotView): number | null {
  const t = r.telemetry;
  return t === null || t.memTotalBytes === 0 ? null : (100 * t.memUsedBytes) / t.memTotalBytes;
}

const roleOrder = ["leader", "voter", "follower"];
const statusOrder = ["online", "offline", "left", "revoked"];

const order = (list: string[], v: string): number => (list.includes(v) ? list.indexOf(v) : list.length);

/** The value a column sorts by; null is unknown and comes last either way. */
const valueOf: Record<SortKey, (r: RobotView) => string | number | null> = {
  name: (r) => r.name,
  type: (r) => r.type,
  status: (r) => order(statusOrder, r.status),
  role: (r) => order(roleOrder, r.role),
  cpu: (r) => r.telemetry?.cpuPercent ?? null,
  memory: memoryPercent,
  temperature: (r) => r.telemetry?.temperatureC ?? null,
  battery: (r) => r.telemetry?.batteryPercent ?? null,
  news: (r) => (r.heardAt === null ? null : -r.heardAt),
};

const natural = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** A sorted copy; robots that tie keep the order of their names, then ids. */
export function sorted(robots: readonly RobotView[], key: SortKey, down: boolean): RobotView[] {
  const value = valueOf[key];
  const sign = down ? -1 : 1;
  return [...robots].sort((a, b) => {
    const x = value(a);
    const y = value(b);
    if (x === null || y === null) {
      if (x !== y) return x === null ? 1 : -1;
    } else {
      const c = typeof x === "string" ? natural.compare(x, String(y)) : x - Number(y);
      if (c !== 0) return sign * c;
    }
    return natural.compare(a.name, b.name) || (a.id < b.id ? -1 : 1);
  });
}

/** Every word of the filter is somewhere in the robot's words. */
export function matches(r: RobotView, filter: string): boolean {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const labels = Object.entries(r.labels).map(([k, v]) => `${k}=${v}`);
  const hay = [r.name, r.id, r.type, r.status, r.lifecycle.state, r.role, ...r.groups, ...labels].join("\n").toLowerCase();
  return words.every((w) => hay.includes(w));
}

// The words of skein.console.v1, and the only place that reads a server's JSON.
//
// decode() trusts nothing: what it returns has every field with its type, so
// that no view asks again. Go writes an empty list or map as null, which counts
// as empty here. A missing detail gets a neutral value; a missing identity (a
// robot's id, an event's seq, a cursor) is a ProtocolError and ends the
// connection. A message type from a newer node is skipped, not an error.

export const subprotocol = "skein.console.v1";

/** How many past events a new view asks for. */
export const eventsWanted = 100;

/** Close codes of the server, from the contract of /api/v1/ws. */
export const closeCode = {
  notAuthenticated: 4401,
  notAllowed: 4403,
  authTooLate: 4408,
  tooSlow: 1013,
} as const;

/** A place in the fleet's history: `seq` counts events from 1 and has no holes. */
export interface Cursor {
  history: string;
  seq: number;
  hash: string;
}

export interface NodeRef {
  id: string;
  name: string;
}

/** Another node of the fleet; `http` is its origin, "http://ip:port". */
export interface Peer extends NodeRef {
  http: string;
}

export interface Voter extends NodeRef {
  reachable: boolean;
}

export interface Fleet {
  fleetId: string;
  name: string;
  leader: NodeRef | null;
  term: number;
  voters: Voter[];
  /** Voters that may fail before nothing can be decided. */
  canLose: number;
  canLoseReason: string;
  members: number;
  robots: number;
}

export interface Sample {
  cpuPercent: number;
  memUsedBytes: number;
  memTotalBytes: number;
  diskUsedBytes: number;
  diskTotalBytes: number;
  temperatureC: number | null;
  batteryPercent: number | null;
  netRxBytesPerSec: number;
  netTxBytesPerSec: number;
  uptimeSeconds: number;
  load1: number;
}

/** Where a robot is in its life; not whether it is heard, which is its status. */
export interface Lifecycle {
  /** discovered, provisioning, ready, active, maintenance, offline, failed or retired; a newer node may know more. */
  state: string;
  since: string;
  failures: number;
  lastFailure: { message: string; kind: string; at: string } | null;
}

/** The newest deployment onto a robot. */
export interface Deployed {
  deployment: string;
  version: string;
  status: string;
}

export interface Robot {
  id: string;
  name: string;
  type: string;
  /** online, offline, revoked or left; a newer node may know more. */
  status: string;
  statusSince: string;
  role: string;
  lifecycle: Lifecycle;
  deployed: Deployed | null;
  voterEligible: boolean;
  voterApproved: boolean;
  hostname: string;
  version: string;
  arch: string;
  os: string;
  labels: Record<string, string>;
  groups: string[];
  http: string;
  telemetry: Sample | null;
  /** Age of the last news when the node sent this; null: never heard. */
  heardAgeMillis: number | null;
}

export interface FleetEvent {
  seq: number;
  time: string;
  stream: string;
  version: number;
  type: string;
  actor: { kind: string; id: string };
  cause: string;
  data: Record<string, unknown>;
}

export type ServerMessage =
  | { type: "welcome"; node: NodeRef; fleet: Fleet; person: string; peers: Peer[] }
  | { type: "snapshot"; cursor: Cursor; fleet: Fleet; robots: Robot[]; events: FleetEvent[]; reset: boolean; reason: string }
  | { type: "resumed"; cursor: Cursor; fleet: Fleet; robots: Robot[] }
  | { type: "events"; events: FleetEvent[]; cursor: Cursor }
  | { type: "robots"; changed: Robot[]; removed: string[] }
  | { type: "fleet"; fleet: Fleet; peers: Peer[] }
  | { type: "tick"; cursor: Cursor; /** null: no leader heard since the node started */ ageMillis: number | null; stale: boolean }
  | { type: "behind"; by: number }
  | { type: "error"; code: string; message: string; next: string };

export type ClientMessage =
  | { type: "auth"; token: string }
  | { type: "watch"; cursor: Cursor | null; events: number };

/** The server said something that this protocol does not allow. */
export class ProtocolError extends Error {
  override name = "ProtocolError";
}

type Json = Record<string, unknown>;

const isObject = (v: unknown): v is Json => typeof v === "object" && v !== null && !Array.isArray(v);
const text = (v: unknown): string => (typeof v === "string" ? v : "");
const number = (v: unknown): number => (typeof v === "number" && Number.isFinite(v) ? v : 0);
const numberOrNull = (v: unknown): number | null => (typeof v === "number" && Number.isFinite(v) ? v : null);
const list = (v: unknown): unknown[] => (Array.isArray(v) ? v : []);

function object(v: unknown, what: string): Json {
  if (!isObject(v)) throw new ProtocolError(`${what} is not an object`);
  return v;
}

function identity(v: unknown, what: string): string {
  if (typeof v !== "string" || v === "") throw new ProtocolError(`${what} is missing`);
  return v;
}

function sequence(v: unknown, what: string): number {
  if (typeof v !== "number" || !Number.isSafeInteger(v) || v < 0) throw new ProtocolError(`${what} is not a sequence number`);
  return v;
}

function cursor(v: unknown): Cursor {
  const o = object(v, "cursor");
  return { history: identity(o.history, "cursor.history"), seq: sequence(o.seq, "cursor.seq"), hash: text(o.hash) };
}

function nodeRef(v: unknown): NodeRef {
  const o = object(v, "node");
  const id = identity(o.id, "node.id");
  return { id, name: text(o.name) || id };
}

function peers(v: unknown): Peer[] {
  return list(v).map((p) => ({ ...nodeRef(p), http: text((p as Json).http) }));
}

function fleet(v: unknown): Fleet {
  const o = object(v, "fleet");
  return {
    fleetId: text(o.fleetId),
    name: text(o.name),
    leader: isObject(o.leader) ? nodeRef(o.leader) : null,
    term: number(o.term),
    voters: list(o.voters).map((x) => ({ ...nodeRef(x), reachable: (x as Json).reachable !== false })),
    canLose: number(o.canLose),
    canLoseReason: text(o.canLoseReason),
    members: number(o.members),
    robots: number(o.robots),
  };
}

function sample(v: unknown): Sample | null {
  if (!isObject(v)) return null;
  return {
    cpuPercent: number(v.cpuPercent),
    memUsedBytes: number(v.memUsedBytes),
    memTotalBytes: number(v.memTotalBytes),
    diskUsedBytes: number(v.diskUsedBytes),
    diskTotalBytes: number(v.diskTotalBytes),
    temperatureC: numberOrNull(v.temperatureC),
    batteryPercent: numberOrNull(v.batteryPercent),
    netRxBytesPerSec: number(v.netRxBytesPerSec),
    netTxBytesPerSec: number(v.netTxBytesPerSec),
    uptimeSeconds: number(v.uptimeSeconds),
    load1: number(v.load1),
  };
}

function labels(v: unknown): Record<string, string> {
  if (!isObject(v)) return {};
  return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, text(x)]));
}

/** A node of before lifecycles says nothing of it: its robots are discovered. */
function lifecycle(v: unknown): Lifecycle {
  const o = isObject(v) ? v : {};
  const f = isObject(o.lastFailure) ? o.lastFailure : null;
  return {
    state: text(o.state) || "discovered",
    since: text(o.since),
    failures: number(o.failures),
    lastFailure: f === null ? null : { message: text(f.message), kind: text(f.kind), at: text(f.at) },
  };
}

function deployed(v: unknown): Deployed | null {
  return isObject(v) ? { deployment: text(v.deployment), version: text(v.version), status: text(v.status) } : null;
}

function robot(v: unknown): Robot {
  const o = object(v, "robot");
  const id = identity(o.id, "robot.id");
  return {
    id,
    name: text(o.name) || id,
    type: text(o.type) || "unknown",
    status: text(o.status) || "unknown",
    statusSince: text(o.statusSince),
    role: text(o.role),
    lifecycle: lifecycle(o.lifecycle),
    deployed: deployed(o.deployed),
    voterEligible: o.voterEligible === true,
    voterApproved: o.voterApproved === true,
    hostname: text(o.hostname),
    version: text(o.version),
    arch: text(o.arch),
    os: text(o.os),
    labels: labels(o.labels),
    groups: list(o.groups).map(text),
    http: text(o.http),
    telemetry: sample(o.telemetry),
    heardAgeMillis: numberOrNull(o.heardAgeMillis),
  };
}

function event(v: unknown): FleetEvent {
  const o = object(v, "event");
  const actor = isObject(o.actor) ? o.actor : {};
  return {
    seq: sequence(o.seq, "event.seq"),
    time: text(o.time),
    stream: text(o.stream),
    version: number(o.version),
    type: identity(o.type, "event.type"),
    actor: { kind: text(actor.kind), id: text(actor.id) },
    cause: text(o.cause),
    data: isObject(o.data) ? o.data : {},
  };
}

/** Reads one server message. Null: a type that this console does not know. */
export function decode(json: string): ServerMessage | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch {
    throw new ProtocolError("message is not JSON");
  }
  const o = object(parsed, "message");
  switch (o.type) {
    case "welcome":
      return { type: "welcome", node: nodeRef(o.node), fleet: fleet(o.fleet), person: personName(o.person), peers: peers(o.peers) };
    case "snapshot":
      return {
        type: "snapshot", cursor: cursor(o.cursor), fleet: fleet(o.fleet), robots: list(o.robots).map(robot),
        events: list(o.events).map(event), reset: o.reset === true, reason: text(o.reason),
      };
    case "resumed":
      return { type: "resumed", cursor: cursor(o.cursor), fleet: fleet(o.fleet), robots: list(o.robots).map(robot) };
    case "events":
      return { type: "events", events: list(o.events).map(event), cursor: cursor(o.cursor) };
    case "robots":
      return { type: "robots", changed: list(o.changed).map(robot), removed: list(o.removed).map(text) };
    case "fleet":
      return { type: "fleet", fleet: fleet(o.fleet), peers: peers(o.peers) };
    case "tick":
      return { type: "tick", cursor: cursor(o.cursor), ageMillis: number(o.ageMillis) < 0 ? null : number(o.ageMillis), stale: o.stale === true };
    case "behind":
      return { type: "behind", by: number(o.by) };
    case "error":
      return { type: "error", code: text(o.code), message: text(o.message), next: text(o.next) };
    default:
      return null;
  }
}

/** The contract says "person" and leaves its form open: a name, or {name}. */
function personName(v: unknown): string {
  return isObject(v) ? text(v.name) || text(v.id) : text(v);
}

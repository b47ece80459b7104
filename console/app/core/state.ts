// What the page knows, and the one pure function that changes it.
//
// Order is the event's seq alone. Three rules hold whatever a node sends, and
// however often the page moves between nodes:
//   1. within one history the cursor never goes back, and an event is shown once;
//   2. a node that is behind what the page has shown changes nothing decided:
//      its robots and fleet are held until it has caught up;
//   3. of two pieces of news from a robot the more recent one stays.
// Only a snapshot marked `reset` replaces the view, and says so.

import type { Cursor, Fleet, FleetEvent, NodeRef, Peer, Robot, ServerMessage } from "./protocol";
import { ProtocolError } from "./protocol";

/** Events kept in the page; older ones are in the log of any voter. */
export const maxEvents = 500;
/** Robots kept in the page, as many as presence carries. */
export const maxRobots = 4096;
/** Other nodes kept as places to move to. */
export const maxPeers = 64;

export interface RobotView extends Omit<Robot, "heardAgeMillis"> {
  /** Page-clock time of the last news from this robot; null: never heard. */
  heardAt: number | null;
}

export interface Reset {
  at: number;
  reason: string;
}

/** Decided state of a node that is behind the page, kept until it catches up. */
interface Held {
  fleet: Fleet | null;
  /** null: the robot is gone. */
  robots: ReadonlyMap<string, RobotView | null>;
}

export interface Model {
  node: NodeRef | null;
  fleet: Fleet | null;
  robots: ReadonlyMap<string, RobotView>;
  /** Newest first, at most maxEvents. */
  events: readonly FleetEvent[];
  cursor: Cursor | null;
  /** Events that the connected node still lacks; 0: it has all we have shown. */
  behindBy: number;
  held: Held | null;
  /** Age of the node's own view at `at`, from its ticks. */
  asOf: { at: number; ageMillis: number | null; stale: boolean } | null;
  lastMessageAt: number | null;
  reset: Reset | null;
  /** The last list as told, never merged with older ones: a node that was
   *  revoked since must not be offered this page's token. */
  peers: readonly Peer[];
}

export function emptyModel(peers: readonly Peer[] = []): Model {
  return {
    node: null, fleet: null, robots: new Map(), events: [], cursor: null, behindBy: 0, held: null,
    asOf: null, lastMessageAt: null, reset: null, peers,
  };
}

/** Applies one message. Throws ProtocolError when the node contradicts itself. */
export function reduce(m: Model, msg: ServerMessage, now: number): Model {
  const next = { ...m, lastMessageAt: now };
  switch (msg.type) {
    case "welcome":
      // The fleet in a welcome may be older than what is shown; the snapshot or
      // resumption that follows brings it with its cursor.
      return { ...next, node: msg.node, peers: msg.peers.slice(0, maxPeers), asOf: null, behindBy: 0, held: null };
    case "snapshot":
      return snapshot(next, msg, now);
    case "resumed":
      return resumed(next, msg, now);
    case "events":
      return events(next, msg);
    case "robots": {
      const changes = new Map<string, RobotView | null>(msg.changed.map((r) => [r.id, view(r, now)]));
      for (const id of msg.removed) changes.set(id, null);
      return robots(next, changes);
    }
    case "fleet":
      return fleet({ ...next, peers: msg.peers.slice(0, maxPeers) }, msg.fleet);
    case "tick":
      return tick(next, msg, now);
    case "behind":
      return { ...next, behindBy: Math.max(1, msg.by), held: m.held ?? noneHeld };
    case "error":
      return next;
  }
}

const noneHeld: Held = { fleet: null, robots: new Map() };

type Snapshot = Extract<ServerMessage, { type: "snapshot" }>;

function snapshot(m: Model, msg: Snapshot, now: number): Model {
  const sameHistory = m.cursor !== null && m.cursor.history === msg.cursor.history;
  if (m.cursor !== null && !sameHistory && !msg.reset) {
    throw new ProtocolError("the history changed without a reset");
  }
  if (sameHistory && m.cursor !== null && msg.cursor.seq < m.cursor.seq) {
    return replaceAll({ ...m, behindBy: m.cursor.seq - msg.cursor.seq, held: noneHeld }, msg, now);
  }
  const keep = sameHistory && !msg.reset;
  const list = new Map<string, RobotView>();
  for (const r of msg.robots.slice(0, maxRobots)) list.set(r.id, newer(m.robots.get(r.id), view(r, now)));
  return {
    ...m,
    cursor: msg.cursor,
    fleet: msg.fleet,
    robots: list,
    events: mergeEvents(keep ? m.events : [], msg.events),
    behindBy: 0,
    held: null,
    reset: msg.reset && m.cursor !== null ? { at: now, reason: msg.reason } : m.reset,
  };
}

function resumed(m: Model, msg: Extract<ServerMessage, { type: "resumed" }>, now: number): Model {
  if (m.cursor === null || m.cursor.history !== msg.cursor.history) {
    throw new ProtocolError("resumed a history that this page does not have");
  }
  // The cursor stays: the events between ours and the node's come as deltas.
  const lag = m.cursor.seq - msg.cursor.seq;
  return replaceAll({ ...m, behindBy: Math.max(0, lag), held: lag > 0 ? noneHeld : null }, msg, now);
}

/** Takes a node's whole list of robots: who is not on it is gone. */
function replaceAll(m: Model, msg: { fleet: Fleet; robots: Robot[] }, now: number): Model {
  const changes = new Map<string, RobotView | null>();
  for (const id of m.robots.keys()) changes.set(id, null);
  for (const r of msg.robots) changes.set(r.id, view(r, now));
  return fleet(robots(m, changes), msg.fleet);
}

function events(m: Model, msg: Extract<ServerMessage, { type: "events" }>): Model {
  if (m.cursor === null) throw new ProtocolError("events came before a snapshot");
  if (m.cursor.history !== msg.cursor.history) throw new ProtocolError("events of another history came without a reset");
  return caughtUp({ ...m, events: mergeEvents(m.events, msg.events) }, msg.cursor);
}

function tick(m: Model, msg: Extract<ServerMessage, { type: "tick" }>, now: number): Model {
  const asOf = { at: now, ageMillis: msg.ageMillis, stale: msg.stale };
  if (m.cursor === null || m.cursor.history !== msg.cursor.history) return { ...m, asOf };
  // A tick never moves our cursor forward: events still under way would be lost.
  const lag = m.cursor.seq - msg.cursor.seq;
  if (lag > 0) return { ...m, asOf, behindBy: lag, held: m.held ?? noneHeld };
  return release({ ...m, asOf, behindBy: 0 });
}

/** Takes a node's cursor: forward only; a lower one means the node is behind. */
function caughtUp(m: Model, c: Cursor): Model {
  if (m.cursor !== null && c.seq < m.cursor.seq) {
    return { ...m, behindBy: m.cursor.seq - c.seq, held: m.held ?? noneHeld };
  }
  return release({ ...m, cursor: c, behindBy: 0 });
}

/** Shows what was held while the node was behind. */
function release(m: Model): Model {
  if (m.held === null) return m;
  const held = m.held;
  const free = { ...m, held: null };
  return held.fleet === null ? robots(free, held.robots) : fleet(robots(free, held.robots), held.fleet);
}

function fleet(m: Model, f: Fleet): Model {
  return m.held === null ? { ...m, fleet: f } : { ...m, held: { ...m.held, fleet: f } };
}

function robots(m: Model, changes: ReadonlyMap<string, RobotView | null>): Model {
  if (changes.size === 0) return m;
  const shown = new Map(m.robots);
  if (m.held !== null) {
    const held = new Map(m.held.robots);
    for (const [id, r] of changes) {
      held.set(id, r);
      const old = shown.get(id);
      if (old !== undefined && r !== null) shown.set(id, telemetryOnly(old, r));
    }
    return { ...m, robots: shown, held: { ...m.held, robots: held } };
  }
  for (const [id, r] of changes) {
    if (r === null) shown.delete(id);
    else if (shown.has(id) || shown.size < maxRobots) shown.set(id, newer(shown.get(id), r));
  }
  return { ...m, robots: shown };
}

function view(r: Robot, now: number): RobotView {
  const { heardAgeMillis, ...rest } = r;
  return { ...rest, heardAt: heardAgeMillis === null ? null : now - heardAgeMillis };
}

/** The robots with their roles as the fleet header has them: the two come in
 *  messages of their own, and a page must not show two leaders in between. */
export function withRoles(robots: ReadonlyMap<string, RobotView>, fleet: Fleet | null): ReadonlyMap<string, RobotView> {
  if (fleet === null || fleet.voters.length === 0) return robots;
  const voters = new Set(fleet.voters.map((v) => v.id));
  const shown = new Map<string, RobotView>();
  for (const [id, r] of robots) {
    const role = id === fleet.leader?.id ? "leader" : voters.has(id) ? "voter" : r.role === "leader" || r.role === "voter" ? "follower" : r.role;
    shown.set(id, role === r.role ? r : { ...r, role });
  }
  return shown;
}

/** The same news told by two nodes differs by their clocks' rounding. */
const sameNewsMillis = 500;

/** The decided part of `r` with the more recent telemetry of both. */
function newer(old: RobotView | undefined, r: RobotView): RobotView {
  if (old === undefined || old.heardAt === null) return r;
  if (r.heardAt !== null && r.heardAt > old.heardAt - sameNewsMillis) {
    return r.telemetry === null ? { ...r, telemetry: old.telemetry } : r;
  }
  return { ...r, heardAt: old.heardAt, telemetry: old.telemetry };
}

function telemetryOnly(old: RobotView, r: RobotView): RobotView {
  const merged = newer(old, r);
  return { ...old, heardAt: merged.heardAt, telemetry: merged.telemetry };
}

/** Newest first, each seq once, the oldest dropped above maxEvents. */
function mergeEvents(old: readonly FleetEvent[], added: readonly FleetEvent[]): readonly FleetEvent[] {
  if (added.length === 0) return old;
  const bySeq = new Map<number, FleetEvent>();
  for (const e of added) bySeq.set(e.seq, e);
  for (const e of old) bySeq.set(e.seq, e); // an event shown once keeps its object
  return [...bySeq.values()].sort((a, b) => b.seq - a.seq).slice(0, maxEvents);
}

import assert from "node:assert/strict";
import { test } from "node:test";
import { ProtocolError, type ServerMessage } from "../core/protocol";
import { emptyModel, maxEvents, maxRobots, reduce, withRoles, type Model } from "../core/state";
import { aFleet, anEvent, aRobot, cursorAt, sampleOf, seeded } from "./make";

const run = (messages: ServerMessage[], m: Model = emptyModel(), now = 1000): Model => messages.reduce((state, msg) => reduce(state, msg, now), m);
const seqs = (m: Model): number[] => m.events.map((e) => e.seq);

const snapshot = (seq: number, o: Partial<Extract<ServerMessage, { type: "snapshot" }>> = {}): ServerMessage => ({
  type: "snapshot", cursor: cursorAt(seq), fleet: aFleet(), robots: [aRobot("a")], events: [], reset: false, reason: "", ...o,
});
const events = (...list: number[]): ServerMessage => ({ type: "events", events: list.map((n) => anEvent(n)), cursor: cursorAt(Math.max(...list)) });
const tick = (seq: number): ServerMessage => ({ type: "tick", cursor: cursorAt(seq), ageMillis: 0, stale: false });
const welcome: ServerMessage = { type: "welcome", node: { id: "b", name: "bert" }, fleet: aFleet(), person: "", peers: [] };
const resumed = (seq: number, robots = [aRobot("a")], fleet = aFleet()): ServerMessage => ({ type: "resumed", cursor: cursorAt(seq), fleet, robots });

test("a snapshot fills the view, deltas follow, newest first", () => {
  const m = run([welcome, snapshot(2, { events: [anEvent(1), anEvent(2)] }), events(3, 4)]);
  assert.deepEqual(seqs(m), [4, 3, 2, 1]);
  assert.deepEqual(m.cursor, cursorAt(4));
  assert.equal(m.reset, null, "a first snapshot is no reset");
});

test("an event is shown once, however often it is sent", () => {
  assert.deepEqual(seqs(run([snapshot(1, { events: [anEvent(1)] }), events(2), events(2), events(1, 2, 3)])), [3, 2, 1]);
});

test("a tick does not swallow events that are still under way", () => {
  const m = run([snapshot(1), tick(3), events(2, 3)]);
  assert.deepEqual(seqs(m), [3, 2]);
});

test("a resumption keeps the cursor until its events have come", () => {
  const m = run([snapshot(1), welcome, resumed(3), events(2, 3)]);
  assert.deepEqual(seqs(m), [3, 2]);
  assert.equal(m.cursor?.seq, 3);
});

test("the event list is bounded and drops the oldest", () => {
  let m = run([snapshot(0)]);
  for (let n = 1; n <= maxEvents + 25; n++) m = run([events(n)], m);
  assert.equal(m.events.length, maxEvents);
  assert.equal(m.events.at(-1)?.seq, 26);
});

test("robots are bounded", () => {
  const many = Array.from({ length: maxRobots + 5 }, (_, i) => aRobot(`r${i}`));
  assert.equal(run([snapshot(1, { robots: many })]).robots.size, maxRobots);
  assert.equal(run([snapshot(1), { type: "robots", changed: many, removed: [] }]).robots.size, maxRobots);
});

test("a node behind the page changes nothing decided until it has caught up", () => {
  const old = aRobot("a", { name: "old name", status: "offline" });
  let m = run([snapshot(9), welcome, { type: "behind", by: 4 }, resumed(5, [old, aRobot("z")], aFleet({ term: 0 }))]);
  assert.equal(m.behindBy, 4);
  assert.equal(m.cursor?.seq, 9);
  assert.equal(m.robots.get("a")?.name, "robot a");
  assert.equal(m.robots.get("a")?.status, "online");
  assert.equal(m.robots.has("z"), false);
  assert.equal(m.fleet?.term, 1);
  m = run([tick(7)], m);
  assert.equal(m.behindBy, 2);
  m = run([{ type: "robots", changed: [aRobot("a", { name: "newest name" })], removed: [] }, tick(9)], m);
  assert.equal(m.behindBy, 0);
  assert.equal(m.robots.get("a")?.name, "newest name");
  assert.equal(m.robots.has("z"), true, "what was held is shown now");
  assert.equal(m.fleet?.term, 0);
});

test("telemetry of a node that is behind is shown: it is not decided", () => {
  const fresh = aRobot("a", { name: "old name", telemetry: sampleOf(77), heardAgeMillis: 10 });
  const m = run([snapshot(9), { type: "behind", by: 4 }, { type: "robots", changed: [fresh], removed: [] }]);
  assert.equal(m.robots.get("a")?.telemetry?.cpuPercent, 77);
  assert.equal(m.robots.get("a")?.name, "robot a");
});

test("an older snapshot of the same history is held, not shown", () => {
  const m = run([snapshot(9), snapshot(3, { robots: [aRobot("a", { name: "old" })] })]);
  assert.equal(m.cursor?.seq, 9);
  assert.equal(m.behindBy, 6);
  assert.equal(m.robots.get("a")?.name, "robot a");
});

test("a reset replaces the view and says so", () => {
  const m = run([snapshot(9, { events: [anEvent(9)] }), snapshot(2, { cursor: cursorAt(2, "h2"), events: [anEvent(2)], robots: [], reset: true, reason: "recovered" })]);
  assert.deepEqual(seqs(m), [2]);
  assert.equal(m.cursor?.history, "h2");
  assert.equal(m.robots.size, 0);
  assert.deepEqual(m.reset, { at: 1000, reason: "recovered" });
});

test("a second snapshot of the same history keeps the events already shown", () => {
  assert.deepEqual(seqs(run([snapshot(2, { events: [anEvent(1), anEvent(2)] }), snapshot(4, { events: [anEvent(3), anEvent(4)] })])), [4, 3, 2, 1]);
});

for (const [what, messages] of Object.entries<ServerMessage[]>({
  "events before a snapshot": [events(1)],
  "another history without a reset": [snapshot(1), snapshot(5, { cursor: cursorAt(5, "h2") })],
  "events of another history": [snapshot(1), { type: "events", events: [], cursor: cursorAt(2, "h2") }],
  "a resumption of nothing": [resumed(1)],
})) {
  test(`refuses ${what}`, () => assert.throws(() => run(messages), ProtocolError));
}

test("of two pieces of news the more recent stays", () => {
  const at = (cpu: number, heardAgeMillis: number | null): ServerMessage => ({ type: "robots", changed: [aRobot("a", { telemetry: sampleOf(cpu), heardAgeMillis })], removed: [] });
  let m = run([snapshot(1), at(10, 1000)], emptyModel(), 100_000);
  m = run([at(20, 50_000)], m, 101_000);
  assert.equal(m.robots.get("a")?.telemetry?.cpuPercent, 10, "another node had heard this robot earlier");
  assert.equal(m.robots.get("a")?.heardAt, 99_000);
  m = run([at(30, 100)], m, 102_000);
  assert.equal(m.robots.get("a")?.telemetry?.cpuPercent, 30);
});

test("a removed robot goes, and one missing from a resumption too", () => {
  assert.equal(run([snapshot(1), { type: "robots", changed: [], removed: ["a"] }]).robots.size, 0);
  assert.equal(run([snapshot(1), resumed(1, [])]).robots.size, 0);
});

test("roles follow the fleet header, so there is never a second leader", () => {
  const m = run([snapshot(1, { robots: [aRobot("a", { role: "leader" }), aRobot("b", { role: "voter" }), aRobot("c", { role: "voter" })] })]);
  const voters = ["a", "b"].map((id) => ({ id, name: id, reachable: true }));
  const shown = withRoles(m.robots, aFleet({ leader: { id: "b", name: "b" }, voters }));
  assert.deepEqual([...shown.values()].map((r) => r.role), ["voter", "leader", "follower"]);
});

test("whatever is sent, the cursor of one history never goes back and events stay in order", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = seeded(seed);
    const below = (n: number): number => Math.floor(random() * n);
    let m = emptyModel();
    for (let i = 0; i < 60; i++) {
      const seq = below(20);
      const kinds: ServerMessage[] = [
        snapshot(seq, { events: [anEvent(seq)], reset: below(2) === 0 }), snapshot(seq, { cursor: cursorAt(seq, "h2"), reset: true }), resumed(seq),
        events(seq, seq + 1), tick(seq), { type: "behind", by: below(5) }, welcome, { type: "robots", changed: [aRobot("q")], removed: ["a"] },
      ];
      let next: Model;
      try {
        next = run([kinds[below(kinds.length)] as ServerMessage], m);
      } catch (e) {
        assert.ok(e instanceof ProtocolError);
        continue;
      }
      const context = `seed ${seed}, step ${i}`;
      if (m.cursor !== null && next.cursor?.history === m.cursor.history) assert.ok(next.cursor.seq >= m.cursor.seq, context);
      const list = seqs(next);
      assert.deepEqual(list, [...new Set(list)].sort((a, b) => b - a), context);
      m = next;
    }
  }
});

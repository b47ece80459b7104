import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, ProtocolError } from "../core/protocol";
import { seeded } from "./make";

const header = { fleetId: "f", name: "n", leader: null, term: 3, voters: null, canLose: 0, canLoseReason: "", members: 0, robots: 0 };
const place = { history: "h", seq: 4, hash: "x" };

test("null lists and maps of Go count as empty", () => {
  const m = decode(JSON.stringify({ type: "snapshot", cursor: place, fleet: header, robots: [{ id: "a", labels: null, groups: null, telemetry: null }], events: null }));
  assert.ok(m?.type === "snapshot");
  assert.deepEqual(m.events, []);
  assert.deepEqual(m.robots[0]?.labels, {});
  assert.deepEqual(m.robots[0]?.groups, []);
  assert.equal(m.robots[0]?.name, "a");
  assert.equal(m.robots[0]?.heardAgeMillis, null);
  assert.deepEqual(m.fleet.voters, []);
  assert.equal(m.reset, false);
});

test("a robot's life is read, and is neutral where an older node says nothing of it", () => {
  const read = (r: Record<string, unknown>) => {
    const m = decode(JSON.stringify({ type: "robots", changed: [{ id: "a", ...r }], removed: [] }));
    assert.ok(m?.type === "robots");
    return m.changed[0];
  };
  assert.deepEqual(read({})?.lifecycle, { state: "discovered", since: "", failures: 0, lastFailure: null });
  assert.equal(read({})?.deployed, null);
  assert.equal(read({ lifecycle: 7 })?.lifecycle.state, "discovered");
  const at = "2026-01-01T00:00:00Z";
  const r = read({
    hostname: "goose-pi", deployed: { deployment: "d", version: "2", status: "completed" },
    lifecycle: { state: "failed", since: at, failures: 3, lastFailure: { message: "stuck", code: "E7", kind: "hardware", at } },
  });
  assert.deepEqual(r?.lifecycle, { state: "failed", since: at, failures: 3, lastFailure: { message: "stuck", kind: "hardware", at } });
  assert.deepEqual(r?.deployed, { deployment: "d", version: "2", status: "completed" });
  assert.equal(r?.hostname, "goose-pi");
  assert.equal(read({ lifecycle: { state: "ready", since: null, failures: 0, lastFailure: null } })?.lifecycle.since, "");
});

test("a message of a newer node is skipped", () => {
  assert.equal(decode('{"type":"poetry","lines":3}'), null);
});

test("an age of -1 is no age", () => {
  const m = decode(JSON.stringify({ type: "tick", cursor: place, ageMillis: -1, stale: true }));
  assert.ok(m?.type === "tick");
  assert.equal(m.ageMillis, null);
});

for (const [what, json] of Object.entries({
  "not JSON": "{",
  "not an object": "[]",
  "a robot without an id": JSON.stringify({ type: "robots", changed: [{ name: "x" }], removed: [] }),
  "an event without a seq": JSON.stringify({ type: "events", events: [{ type: "t" }], cursor: place }),
  "a fractional seq": JSON.stringify({ type: "events", events: [], cursor: { ...place, seq: 1.5 } }),
  "a negative seq": JSON.stringify({ type: "events", events: [], cursor: { ...place, seq: -1 } }),
  "a snapshot without a cursor": JSON.stringify({ type: "snapshot", fleet: header, robots: [], events: [] }),
  "a peer that is a number": JSON.stringify({ type: "fleet", fleet: header, peers: [7] }),
  "a voter that is null": JSON.stringify({ type: "fleet", fleet: { ...header, voters: [null] }, peers: [] }),
})) {
  test(`refuses ${what}`, () => assert.throws(() => decode(json), ProtocolError));
}

test("damage gives a message or a ProtocolError, never anything else", () => {
  const random = seeded(7);
  const good = JSON.stringify({ type: "snapshot", cursor: place, fleet: { ...header, leader: { id: "a", name: "b" } }, robots: [{ id: "a", telemetry: { cpuPercent: 3 } }], events: [{ seq: 1, type: "x", data: {} }] });
  const scraps = ["null", "[]", "{}", '"x"', "1e400", "true", "-1"];
  for (let i = 0; i < 3000; i++) {
    const at = Math.floor(random() * good.length);
    const cut = Math.floor(random() * 12);
    const damaged = good.slice(0, at) + scraps[Math.floor(random() * scraps.length)] + good.slice(at + cut);
    try {
      decode(damaged);
    } catch (e) {
      assert.ok(e instanceof ProtocolError, `${damaged} gave ${String(e)}`);
    }
  }
});

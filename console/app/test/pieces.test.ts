import assert from "node:assert/strict";
import { test } from "node:test";
import { PageClock } from "../core/clock";
import { bytes, celsius, duration, eventTime, percent, rate } from "../core/format";
import { loginCode, parseRoute, robotHref } from "../core/route";
import { maxSamples, maxSeries, SeriesStore } from "../core/series";
import { codeOf, loadPeers, loadSession, savePeers, saveSession, SignInError, signIn } from "../core/session";
import type { RobotView } from "../core/state";
import { actor, robotOf, summary } from "../core/summary";
import { matches, sorted } from "../core/table";
import { anEvent, aRobot, sampleOf } from "./make";

const view = (id: string, r: Partial<RobotView> = {}): RobotView => {
  const { heardAgeMillis: _, ...rest } = aRobot(id);
  return { ...rest, heardAt: null, ...r };
};
const plain = (s: string): string => s.replaceAll("\u00a0", " ");

class MemoryStore {
  private readonly map = new Map<string, string>();
  getItem = (k: string): string | null => this.map.get(k) ?? null;
  setItem = (k: string, v: string): void => void this.map.set(k, v);
  removeItem = (k: string): void => void this.map.delete(k);
}

test("the clock follows the monotonic one, ignores steps back and adds sleep", () => {
  let wall = 5_000_000;
  let mono = 0;
  const clock = new PageClock(() => wall, () => mono);
  assert.equal(clock.now(), 5_000_000);
  wall += 900;
  mono += 1000;
  assert.equal(clock.now(), 5_001_000);
  wall -= 3_600_000;
  mono += 10;
  assert.equal(clock.now(), 5_001_010);
  wall += 7_200_000;
  mono += 20;
  assert.equal(clock.now(), 5_001_010 + 7_200_000);
});

test("numbers carry their units", () => {
  assert.equal(plain(percent(41.6)), "42 %");
  assert.equal(percent(null), "–");
  assert.equal(plain(celsius(51.2)), "51 °C");
  assert.equal(plain(bytes(1536)), "1.5 KiB");
  assert.equal(plain(bytes(512)), "512 B");
  assert.equal(plain(rate(999.6)), "1.0 kB/s");
  assert.equal(plain(rate(20_000)), "20 kB/s");
  assert.equal(plain(rate(0)), "0 B/s");
  assert.deepEqual([-5, 99_000, 100_000, 3_900_000, 36_000_000, 200_000_000].map(duration).map(plain), ["0 s", "99 s", "1 min", "1 h 5 min", "10 h", "2 d"]);
});

test("an event's day is told when it is not today; Go's zero time is absent", () => {
  const at = new Date(2026, 2, 4, 5, 6, 7);
  assert.equal(eventTime(at.toISOString(), at.toDateString()), "05:06:07");
  assert.equal(eventTime(at.toISOString(), "another day"), "2026-03-04 05:06:07");
  assert.equal(eventTime("0001-01-01T00:00:00Z", ""), "–");
  assert.equal(eventTime("", ""), "–");
});

test("routes come and go through the fragment", () => {
  assert.deepEqual(parseRoute(""), { page: "fleet" });
  assert.deepEqual(parseRoute("#/events"), { page: "events" });
  assert.deepEqual(parseRoute(robotHref("a b/c")), { page: "robot", id: "a b/c" });
  assert.deepEqual(parseRoute("#/robot/%zz"), { page: "robot", id: "%zz" });
  assert.deepEqual(parseRoute("#/robot/"), { page: "fleet" });
  assert.equal(loginCode("#login=a%2Bb"), "a+b");
  assert.equal(loginCode("#login="), null);
  assert.equal(loginCode("#/events"), null);
});

test("a series takes each sample once, marks silence and is bounded", () => {
  const s = new SeriesStore();
  const at = (heardAt: number): RobotView => view("a", { telemetry: sampleOf(5), heardAt });
  assert.equal(s.record(view("a")), false, "no telemetry, no sample");
  assert.equal(s.record(at(10_000)), true);
  assert.equal(s.record(at(10_200)), false, "the same sample told by another node");
  assert.equal(s.record(at(9_000)), false, "older news");
  assert.equal(s.record(at(12_000)), true);
  assert.equal(s.record(at(60_000)), true);
  assert.deepEqual(s.columns("a")?.cpuPercent, [5, 5, null, 5]);
  assert.deepEqual(s.columns("a")?.memoryPercent, [25, 25, null, 25]);
  for (let i = 0; i < 2 * maxSamples; i++) s.record(at(60_000 + 2000 * (i + 1)));
  assert.equal(s.columns("a")?.time.length, maxSamples);
  assert.equal(s.columns("a")?.txBytesPerSec.length, maxSamples);
  for (let i = 0; i <= maxSeries; i++) s.record(view(`r${i}`, { telemetry: sampleOf(1), heardAt: 1 }));
  assert.equal(s.size, maxSeries);
  assert.equal(s.columns("a"), undefined, "the one silent for longest made room");
});

test("the table sorts naturally, unknown values last in both directions", () => {
  const names = (l: RobotView[]): string[] => l.map((r) => r.name);
  const list = [view("1", { name: "kiwi-10" }), view("2", { name: "kiwi-9", telemetry: sampleOf(50) }), view("3", { name: "Anna", telemetry: sampleOf(7) })];
  assert.deepEqual(names(sorted(list, "name", false)), ["Anna", "kiwi-9", "kiwi-10"]);
  assert.deepEqual(names(sorted(list, "name", true)), ["kiwi-10", "kiwi-9", "Anna"]);
  assert.deepEqual(names(sorted(list, "cpu", false)), ["Anna", "kiwi-9", "kiwi-10"]);
  assert.deepEqual(names(sorted(list, "cpu", true)), ["kiwi-9", "Anna", "kiwi-10"]);
});

test("the filter looks at everything a robot is called", () => {
  const r = view("abc123", { name: "Kiwi", labels: { site: "hall-2" }, groups: ["mobile"], status: "offline" });
  assert.ok(matches(view("x", { lifecycle: { state: "maintenance", since: "", failures: 0, lastFailure: null } }), "maint online"));
  for (const hit of ["", "kiwi", "ABC", "site=hall", "mobile offline", " lekiwi "]) assert.ok(matches(r, hit), hit);
  for (const miss of ["dock", "kiwi online"]) assert.ok(!matches(r, miss), miss);
});

test("events read as sentences, unknown ones by their type", () => {
  const nameOf = (id: string): string => ({ a: "anna", b: "bert" })[id] ?? id;
  const say = (type: string, data: Record<string, unknown>, stream = "robot/a"): string => summary(anEvent(1, { type, data, stream }), nameOf);
  assert.equal(say("robot.failed", { message: "the arm is stuck", kind: "hardware" }), `${nameOf("a")} failed: the arm is stuck`);
  assert.equal(say("robot.provisioned", { version: "2.0" }), `${nameOf("a")} was provisioned with version 2.0`);
  assert.equal(say("log.sealed", { seq: 1000 }, "log"), "The log was sealed up to event 1000");
  assert.equal(plain(say("robot.offline", { lastHeardSeconds: 31 })), "anna went offline, last heard 31 s before");
  assert.equal(say("robot.labels_changed", { set: { site: "hall" }, remove: ["old"] }), "Labels of anna changed: site=hall, old removed");
  assert.equal(say("group.robot_added", { robot: "b" }, "group/mobile"), "bert joined group mobile");
  assert.equal(say("node.revoked", { reason: "stolen" }, "node/b"), "bert was revoked: stolen");
  assert.equal(say("zone.leased", {}, "zone/door"), "zone.leased on zone/door");
  assert.equal(say("constructor", {}), "constructor on robot/a");
  assert.equal(robotOf(anEvent(1, { stream: "group/mobile", data: { robot: "b" } })), "b");
  assert.equal(robotOf(anEvent(1, { stream: "fleet" })), null);
  assert.deepEqual(["leader", "node", "person", "genesis"].map((kind) => actor(anEvent(1, { actor: { kind, id: "a" } }), nameOf)), ["anna as leader", "anna", "a", "genesis"]);
});

test("a session and the peers survive a reload, damage counts as none", () => {
  const store = new MemoryStore();
  assert.equal(loadSession(store, 0), null);
  saveSession(store, { token: "t", expiresAt: "2026-01-01T00:00:00Z", person: "p" });
  assert.equal(loadSession(store, Date.parse("2025-12-31T00:00:00Z"))?.token, "t");
  assert.equal(loadSession(store, Date.parse("2026-01-02T00:00:00Z")), null, "expired");
  saveSession(store, null);
  assert.equal(loadSession(store, 0), null);
  savePeers(store, [{ id: "a", name: "anna", http: "http://a" }]);
  assert.equal(loadPeers(store).length, 1);
  store.setItem("skein.peers", '[{"id":1},null]');
  assert.deepEqual(loadPeers(store), []);
  store.setItem("skein.peers", "{");
  assert.deepEqual(loadPeers(store), []);
});

test("the link and the bare code are both accepted", () => {
  assert.equal(codeOf("  abc "), "abc");
  assert.equal(codeOf("http://robot:7780/#login=a%2Bb\n"), "a+b");
});

test("signing in keeps the token and tells why it failed", async () => {
  const answer = (status: number, body: unknown): typeof fetch => async () => new Response(JSON.stringify(body), { status });
  const session = await signIn("c", answer(200, { token: "t", expiresAt: "x", person: "p" }));
  assert.deepEqual(session, { token: "t", expiresAt: "x", person: "p" });
  await assert.rejects(signIn("c", answer(401, { detail: "used", next: "again" })), (e) => e instanceof SignInError && e.message === "used" && e.next === "again" && !e.unreachable);
  await assert.rejects(signIn("c", answer(200, {})), SignInError);
  const dead: typeof fetch = async () => {
    throw new TypeError("fetch failed");
  };
  await assert.rejects(signIn("c", dead), (e) => e instanceof SignInError && e.unreachable);
});

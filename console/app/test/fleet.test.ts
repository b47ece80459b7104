// The page's store against the fake fleet, over real sockets on loopback.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { WebSocket } from "ws";
import { PageClock } from "../core/clock";
import type { Socket, SocketHandlers } from "../core/connection";
import { subprotocol } from "../core/protocol";
import { AppStore } from "../core/store";
import { fakeToken, FakeFleet } from "../dev/fleet";
import { seeded } from "./make";

const deadlineMillis = 15_000;

let fleet: FakeFleet;
let store: AppStore;

function open(url: string, handlers: SocketHandlers): Socket {
  const ws = new WebSocket(`${url.replace(/^http/, "ws")}/api/v1/ws`, subprotocol);
  ws.on("open", () => handlers.opened());
  ws.on("message", (data) => handlers.message(String(data)));
  ws.on("error", () => {}); // "close" follows
  ws.on("close", (code) => handlers.closed(code));
  return { send: (text) => ws.send(text), close: () => ws.terminate() };
}

function after(millis: number, fn: () => void): () => void {
  const timer = setTimeout(fn, millis);
  return () => clearTimeout(timer);
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const end = Date.now() + deadlineMillis;
  while (!condition()) {
    assert.ok(Date.now() < end, `${what}: not within ${deadlineMillis} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

beforeEach(async () => {
  const map = new Map<string, string>();
  fleet = new FakeFleet(async () => new Map(), seeded(3));
  for (const name of ["dock-1", "dock-2", "base-3", "kiwi-4"]) await fleet.add(name, "unknown", 0);
  fleet.start();
  store = new AppStore({
    clock: new PageClock(),
    storage: { getItem: (k) => map.get(k) ?? null, setItem: (k, v) => void map.set(k, v), removeItem: (k) => void map.delete(k) },
    home: fleet.node("dock-1").robot.http,
    connection: { open, after, random: seeded(5) },
    signIn: async () => ({ token: fakeToken, expiresAt: "", person: "admin" }),
  });
  store.start();
  await store.signIn("code");
  await until("first picture", () => store.robots.value.size === 4);
});

afterEach(async () => {
  store.stop();
  await fleet.stop();
});

test("the page's node dies; the page moves, misses no event and shows none twice", async () => {
  const before = store.cursor.value?.seq ?? 0;
  let banner = false;
  const watching = store.staleness.subscribe((s) => (banner ||= s !== null));
  await fleet.node("dock-1").die();
  for (let i = 0; i < 20; i++) fleet.world.decide("group/g", "group.created", { n: i });
  await until("moved", () => store.link.value.phase === "live" && store.link.value.target?.name !== "dock-1");
  await until("caught up", () => (store.cursor.value?.seq ?? 0) >= before + 20);
  const seqs = store.events.value.map((e) => e.seq);
  assert.deepEqual(seqs, Array.from({ length: seqs.length }, (_, i) => seqs.length - i), "all of 1..n, newest first");
  assert.ok(banner, "the banner was shown");
  await until("the banner goes", () => store.staleness.value === null);
  watching();
  await until("offline", () => store.robots.value.get(fleet.node("dock-1").robot.id)?.status === "offline");
});

test("a node that lacks what was shown is told from one that has it", async () => {
  fleet.world.decide("group/g", "group.created", {});
  await until("the event", () => store.cursor.value?.seq === fleet.world.cursor.seq);
  const seen = store.cursor.value?.seq;
  for (const name of ["dock-2", "base-3", "kiwi-4"]) fleet.node(name).lag = 3;
  await fleet.node("dock-1").die();
  await until("behind", () => store.behindBy.value > 0);
  assert.equal(store.cursor.value?.seq, seen);
  for (const node of fleet.nodes) node.lag = 0;
  await until("caught up", () => store.behindBy.value === 0);
  assert.ok((store.cursor.value?.seq ?? 0) >= (seen ?? 0));
});

test("a new history is announced and replaces the view", async () => {
  fleet.world.reset();
  await until("reset", () => store.reset.value !== null);
  assert.equal(store.cursor.value?.history, fleet.world.history);
  assert.deepEqual(store.events.value.map((e) => e.seq), fleet.world.log.map((e) => e.seq).reverse());
  store.dismissReset();
  assert.equal(store.reset.value, null);
});

test("a new robot appears; signing out ends the connection and forgets", async () => {
  await fleet.add("kiwi-5", "lekiwi", 0);
  await until("five robots", () => store.robots.value.size === 5);
  store.signOut();
  assert.equal(store.link.value.phase, "idle");
  assert.equal(store.robots.value.size, 0);
  await until("no client left", () => fleet.nodes.every((n) => n.clients.size === 0));
});

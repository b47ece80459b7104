import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Connection, connectMillis, idleLink, type Link, type Refusal, silenceMillis, type Socket, type SocketHandlers, staleMillis } from "../core/connection";
import { ProtocolError, type ClientMessage, type Cursor, type Peer, type ServerMessage } from "../core/protocol";
import { aFleet, aRobot, cursorAt, FakeTime, seeded } from "./make";

const home = "http://a:1";
const peers: Peer[] = [
  { id: "a", name: "anna", http: "http://10.0.0.1:1" }, // home, under its other address
  { id: "b", name: "bert", http: "http://b:1" },
  { id: "c", name: "cleo", http: "http://c:1" },
];

/** One dial, seen from the other end. */
class Dial {
  sent: ClientMessage[] = [];
  closed = false;
  constructor(readonly url: string, private readonly handlers: SocketHandlers) {}
  readonly socket: Socket = { send: (text) => this.sent.push(JSON.parse(text) as ClientMessage), close: () => (this.closed = true) };
  open(): void {
    this.handlers.opened();
  }
  say(m: object): void {
    this.handlers.message(JSON.stringify(m));
  }
  end(code = 1006): void {
    this.handlers.closed(code);
  }
  welcome(id: string): void {
    this.open();
    this.say({ type: "welcome", node: { id, name: peers.find((p) => p.id === id)?.name }, fleet: aFleet(), person: "p", peers });
  }
  live(id: string): void {
    this.welcome(id);
    this.say({ type: "snapshot", cursor: cursorAt(1), fleet: aFleet(), robots: [aRobot("a")], events: [] });
  }
  tick(stale = false, ageMillis = 100): void {
    this.say({ type: "tick", cursor: cursorAt(1), ageMillis, stale });
  }
}

let time: FakeTime;
let dials: Dial[];
let links: Link[];
let got: ServerMessage[];
let refusals: Refusal[];
let cursor: Cursor | null;
let known: Peer[];
let poison: boolean;
let connection: Connection;

const last = (): Dial => dials.at(-1) as Dial;
const link = (): Link => links.at(-1) ?? idleLink;
/** Lets the next attempt happen, however far in the future. */
const nextDial = (): Dial => {
  const before = dials.length;
  for (let i = 0; i < 200 && dials.length === before; i++) time.pass(100);
  assert.equal(dials.length, before + 1, "an attempt follows");
  return last();
};

function begin(seed: number): void {
  time = new FakeTime();
  dials = [];
  links = [];
  got = [];
  refusals = [];
  cursor = null;
  known = peers;
  poison = false;
  connection = new Connection(
    {
      open: (url, handlers) => {
        const dial = new Dial(url, handlers);
        dials.push(dial);
        return dial.socket;
      },
      now: time.now,
      after: time.after,
      random: seeded(seed),
      token: () => "secret",
      cursor: () => cursor,
      peers: () => known,
      voters: () => ["a", "c"],
      message: (m) => {
        if (poison) throw new ProtocolError("nonsense");
        got.push(m);
      },
      link: (l) => links.push(l),
      refused: (why) => refusals.push(why),
    },
    home,
  );
  connection.start();
}

beforeEach(() => begin(1));

test("authenticates first, then watches from nothing, then is live", () => {
  assert.equal(last().url, home);
  assert.deepEqual(last().sent, []);
  last().open();
  assert.deepEqual(last().sent, [{ type: "auth", token: "secret" }]);
  last().live("a");
  assert.deepEqual(last().sent.at(-1), { type: "watch", cursor: null, events: 100 });
  assert.equal(link().phase, "live");
  assert.deepEqual(link().target, { url: home, id: "a", name: "anna" });
  assert.deepEqual(got.map((m) => m.type), ["welcome", "snapshot"]);
});

test("a lost node is left at once for another, voters first, and resumed by cursor", () => {
  last().live("a");
  time.pass(6000 - 1);
  last().tick();
  cursor = cursorAt(5);
  last().end();
  assert.equal(dials.length, 2, "no wait before the first attempt");
  assert.equal(last().url, "http://c:1", "the other voter, not the plain node and not the dead one");
  assert.equal(link().lost?.name, "anna");
  last().welcome("c");
  assert.deepEqual(last().sent.at(-1), { type: "watch", cursor: cursorAt(5), events: 100 });
  last().say({ type: "resumed", cursor: cursorAt(5), fleet: aFleet(), robots: [] });
  assert.equal(link().phase, "live");
  assert.equal(link().lost, null);
  assert.equal(link().movedFrom?.name, "anna");
});

test("wherever chance leads, voters come first and the lost node last", () => {
  for (let seed = 1; seed <= 20; seed++) {
    begin(seed);
    last().live("a");
    time.pass(5500);
    last().end();
    const order = [last().url];
    for (let i = 0; i < 2; i++) {
      last().end();
      order.push(nextDial().url);
    }
    assert.deepEqual(order, ["http://c:1", "http://b:1", home], `seed ${seed}`);
  }
});

test("silence counts from the last news", () => {
  last().live("a");
  time.pass(silenceMillis - 1);
  last().tick();
  const heard = time.at;
  time.pass(silenceMillis - 1);
  assert.equal(link().phase, "live");
  const silent = last();
  time.pass(1);
  assert.ok(silent.closed);
  assert.equal(link().phase, "connecting");
  assert.deepEqual(link().lost, { name: "anna", at: heard, why: "silent" });
});

test("a node that accepts and never welcomes is given up", () => {
  const first = last();
  first.open();
  time.pass(connectMillis);
  assert.ok(first.closed);
  assert.notEqual(nextDial().url, home);
});

test("news from a socket already left is ignored", () => {
  last().live("a");
  const old = last();
  time.pass(silenceMillis);
  const before = got.length;
  old.tick();
  old.end(4401);
  assert.equal(got.length, before);
  assert.equal(refusals.length, 0);
});

test("goes round for ever, home included once, ever slower up to a bound", () => {
  last().live("a");
  time.pass(5500);
  last().end();
  last().end();
  const starts: number[] = [];
  const urls: string[] = [];
  for (let i = 0; i < 40; i++) {
    const d = nextDial();
    starts.push(time.at);
    urls.push(d.url);
    d.end();
  }
  assert.deepEqual([...new Set(urls)].sort(), ["http://a:1", "http://b:1", "http://c:1"], "home is not tried under its second address too");
  const gaps = starts.slice(1).map((t, i) => t - (starts[i] as number));
  assert.ok(Math.max(...gaps) <= 13_100, `waits are bounded: ${Math.max(...gaps)}`);
  assert.ok(Math.max(...gaps) >= 7_000, "waits grow");
  assert.equal(link().failures, 42, "the loss itself, the dial after it, and these");
});

test("someone can end the wait", () => {
  for (let i = 0; i < 12; i++) {
    last().end();
    if (i < 11) nextDial();
  }
  assert.equal(link().phase, "waiting");
  const before = dials.length;
  connection.retryNow();
  assert.equal(dials.length, before + 1);
});

test("a node that accepts and drops at once does not reset the back-off", () => {
  known = [];
  let attempts = 0;
  const end = time.at + 60_000;
  while (time.at < end) {
    if (!last().closed && link().phase === "connecting") {
      attempts++;
      last().live("a");
      last().end();
    }
    time.pass(50);
  }
  assert.ok(attempts < 25, `${attempts} attempts in a minute`);
});

test("one refusal is checked with a second node before the login counts as lost", () => {
  last().open();
  last().say({ type: "error", code: "unauthenticated", message: "unknown key", next: "" });
  last().end(4401);
  assert.deepEqual(refusals, []);
  assert.equal(link().error, "a:1 says: unknown key");
  const second = nextDial();
  second.open();
  second.end(4401);
  assert.deepEqual(refusals, ["expired"]);
  assert.equal(link().phase, "idle");
  assert.equal(time.pending, 0, "no timer is left");
});

test("a lone node's refusal is final, and so is a missing scope", () => {
  known = [];
  last().open();
  last().end(4401);
  assert.deepEqual(refusals, ["expired"]);
  connection.start();
  known = peers;
  last().open();
  last().end(4403);
  assert.deepEqual(refusals, ["expired", "notAllowed"]);
});

test("a node that makes no sense is left, and the reason kept", () => {
  last().welcome("a");
  poison = true;
  last().say({ type: "behind", by: 1 });
  assert.match(link().error, /^anna sent .*nonsense/);
  poison = false;
  assert.equal(nextDial().url, "http://c:1");
  assert.equal(link().phase, "connecting");
});

test("each stale node is left once; when all are stale the page stays", () => {
  const visited: string[] = [];
  last().live("a");
  for (let i = 0; i < 60; i++) {
    time.pass(2000);
    const d = last();
    if (link().phase === "connecting") {
      visited.push(d.url);
      d.live(d.url.includes("b") ? "b" : d.url.includes("c") ? "c" : "a");
    }
    last().tick(true, 20_000);
  }
  assert.deepEqual(visited, ["http://c:1", "http://b:1"]);
  assert.equal(link().phase, "live");
  assert.equal(link().movedFrom, null, "a stale node is not an arrival");
});

test("a stale node is not left again and again for nodes that do not answer", () => {
  last().live("a");
  for (let i = 0; i < 90; i++) {
    time.pass(1000);
    const d = last();
    if (link().phase === "connecting" && d.url === home) d.live("a");
    else if (link().phase === "connecting") d.end();
    if (link().phase === "live") last().tick(true, 20_000);
  }
  const urls = dials.map((d) => d.url);
  assert.deepEqual([...urls].sort(), [home, home, "http://b:1", "http://c:1"], "each other node once, then back for good");
});

test("a stale node is left only after a while, and a fresh one ends it", () => {
  last().live("a");
  time.pass(1000);
  last().tick(true, 15_000);
  time.pass(staleMillis / 2);
  last().tick(true, 20_000);
  assert.equal(dials.length, 1);
  time.pass(staleMillis / 2);
  last().tick(true, 25_000);
  assert.equal(last().url, "http://c:1");
  assert.deepEqual(link().lost, { name: "anna", at: time.at - 25_000, why: "stale" });
  last().live("c");
  assert.equal(link().lost?.why, "stale", "being connected proves nothing yet");
  last().tick(false);
  assert.equal(link().lost, null);
  assert.equal(link().movedFrom?.name, "anna");
});

test("an address that the browser refuses is skipped", () => {
  connection.stop();
  const refusing = new Connection(
    {
      open: () => {
        throw new Error("insecure");
      },
      now: time.now, after: time.after, random: seeded(1), token: () => "", cursor: () => null, peers: () => [], voters: () => [],
      message: () => {}, link: (l) => links.push(l), refused: () => {},
    },
    home,
  );
  refusing.start();
  time.pass(30_000);
  assert.equal(link().error, "a:1 cannot be called: insecure");
  assert.ok(link().failures > 3);
  refusing.stop();
});

test("peers without a usable address are never dialled", () => {
  connection.stop();
  known = [
    { id: "x", name: "x", http: "" },
    { id: "y", name: "y", http: "javascript:alert(1)" },
  ];
  connection.start();
  for (let i = 0; i < 6; i++) {
    last().end();
    nextDial();
  }
  assert.deepEqual([...new Set(dials.map((d) => d.url))], [home]);
});

test("after stop nothing is left and nothing happens", () => {
  last().live("a");
  const d = last();
  connection.stop();
  assert.ok(d.closed);
  assert.equal(time.pending, 0);
  time.pass(60_000);
  assert.equal(dials.length, 1);
});

// One WebSocket to one node, and the moves between nodes.
//
// The page was loaded from one node (home) but belongs to none: when the
// connected node falls silent, closes or loses touch with the fleet, the page
// goes to another one it has been told about and resumes there by cursor.
//
// Order: voters first, then the others, each group shuffled so that the consoles
// of a dead node do not all rush to the same one; the node just lost comes last.
// The first round is immediate; each later one waits longer, up to 10 s, for
// ever. A connection counts as good once it has lived for 5 s; one that is
// accepted and dropped at once keeps the back-off growing.
//
// The class owns its socket and its timers: after stop() there are none.

import type { ClientMessage, Cursor, Peer, ServerMessage } from "./protocol";
import { closeCode, decode, eventsWanted, ProtocolError } from "./protocol";

/** Ticks come every 2 s; after three missing ones the node counts as silent. */
export const silenceMillis = 6000;
/** From dialling to the welcome. */
export const connectMillis = 5000;
/** A node without word from the leader for this long is left, once. */
export const staleMillis = 10_000;
/** Other nodes tried in one round. */
export const maxTargets = 32;
const stableMillis = 5000;
const betweenMillis = 200;
const firstBackoffMillis = 500;
const maxBackoffMillis = 10_000;

/** A node to connect to; `url` is its HTTP origin. */
export interface Target {
  url: string;
  id: string | null;
  name: string;
}

export interface Lost {
  name: string;
  /** Page-clock time of the last news that is known to be good. */
  at: number;
  why: "silent" | "closed" | "stale";
}

export interface Link {
  phase: "idle" | "connecting" | "live" | "waiting";
  /** The node connected to, being tried, or next. */
  target: Target | null;
  /** What the view has been without since; null while live and not known to be stale. */
  lost: Lost | null;
  /** Set when live again after a loss, for one notice. */
  movedFrom: Lost | null;
  retryAt: number | null;
  /** Attempts that failed since the last live moment. */
  failures: number;
  /** Why the last attempt failed, as far as a node said so: "anna says: …". */
  error: string;
}

export interface Socket {
  send(text: string): void;
  close(): void;
}

export interface SocketHandlers {
  opened(): void;
  message(text: string): void;
  closed(code: number): void;
}

export type Refusal = "expired" | "notAllowed";

/** What the connection needs from the page; tests give it a world of their own. */
export interface Deps {
  open(url: string, handlers: SocketHandlers): Socket;
  now(): number;
  /** Runs fn once; the result cancels it. */
  after(millis: number, fn: () => void): () => void;
  /** 0 ≤ random < 1. */
  random(): number;
  token(): string;
  cursor(): Cursor | null;
  peers(): readonly Peer[];
  voters(): readonly string[];
  /** May throw ProtocolError. */
  message(m: ServerMessage): void;
  link(l: Link): void;
  refused(why: Refusal): void;
}

export const idleLink: Link = { phase: "idle", target: null, lost: null, movedFrom: null, retryAt: null, failures: 0, error: "" };

export class Connection {
  private link: Link = idleLink;
  private socket: Socket | null = null;
  private cancelTimer: () => void = () => {};
  private queue: Target[] = [];
  private round = 0;
  private liveAt = 0;
  private lastMessageAt = 0;
  private refusals = 0;
  private readonly home: Target;
  /** Nodes left for being stale, and those tried instead, since the fleet was last seen fresh. */
  private readonly leftStale = new Set<string>();
  private staleSince: number | null = null;

  constructor(private readonly deps: Deps, homeUrl: string) {
    this.home = { url: homeUrl, id: null, name: new URL(homeUrl).host };
  }

  start(): void {
    if (this.link.phase !== "idle") return;
    this.round = 1;
    this.queue = this.targets(null);
    this.next(0);
  }

  stop(): void {
    this.drop();
    this.queue = [];
    this.round = 0;
    this.refusals = 0;
    this.leftStale.clear();
    this.staleSince = null;
    this.show(idleLink);
  }

  /** Ends a wait: someone pressed a button, or the network came back. */
  retryNow(): void {
    if (this.link.phase === "waiting") this.next(0);
  }

  /** Leaves the connected node for another, because someone asked. */
  moveOn(): void {
    if (this.link.phase === "live") this.lose("stale");
  }

  private show(l: Link): void {
    this.link = l;
    this.deps.link(l);
  }

  /** Closes the socket and forgets its callbacks. */
  private drop(): void {
    this.cancelTimer();
    const old = this.socket;
    this.socket = null;
    old?.close();
  }

  private next(delayMillis: number): void {
    this.drop();
    if (this.queue.length === 0) {
      this.round++;
      this.queue = this.targets(this.link.target);
      delayMillis = this.backoffMillis();
    }
    const target = this.queue[0] as Target;
    if (delayMillis === 0) return this.connect();
    this.show({ ...this.link, phase: "waiting", target, retryAt: this.deps.now() + delayMillis, movedFrom: null });
    this.cancelTimer = this.deps.after(delayMillis, () => this.connect());
  }

  private backoffMillis(): number {
    const full = Math.min(maxBackoffMillis, firstBackoffMillis * 2 ** (this.round - 2));
    return full * (0.7 + 0.6 * this.deps.random());
  }

  private connect(): void {
    const target = this.queue.shift() as Target;
    this.cancelTimer();
    if (this.leftStale.size > 0) this.leftStale.add(target.url);
    this.show({ ...this.link, phase: "connecting", target, retryAt: null, movedFrom: null });
    this.watch(connectMillis);
    let mine: Socket | null = null;
    const current = (): boolean => mine !== null && this.socket === mine;
    try {
      mine = this.deps.open(target.url, {
        opened: () => current() && this.send({ type: "auth", token: this.deps.token() }),
        message: (text) => current() && this.received(text),
        closed: (code) => current() && this.closed(code),
      });
      this.socket = mine;
    } catch (e) {
      // A browser refuses some addresses outright, such as ws: from an https: page.
      this.fail("closed", `${target.name} cannot be called: ${e instanceof Error ? e.message : String(e)}`);
    }
  }

  private send(m: ClientMessage): void {
    this.socket?.send(JSON.stringify(m));
  }

  private watch(millis: number): void {
    this.cancelTimer();
    this.cancelTimer = this.deps.after(millis, () => this.fail("silent", ""));
  }

  private received(text: string): void {
    this.lastMessageAt = this.deps.now();
    this.watch(silenceMillis);
    try {
      const m = decode(text);
      if (m === null) return;
      this.deps.message(m);
      this.follow(m);
    } catch (e) {
      if (!(e instanceof ProtocolError)) throw e;
      this.fail("closed", `${this.link.target?.name} sent what this console does not understand: ${e.message}`);
    }
  }

  private follow(m: ServerMessage): void {
    switch (m.type) {
      case "welcome":
        this.met(m.node.id, m.node.name);
        this.send({ type: "watch", cursor: this.deps.cursor(), events: eventsWanted });
        break;
      case "snapshot":
      case "resumed":
      case "behind":
        this.live();
        break;
      case "tick":
        this.judge(m.stale, m.ageMillis);
        break;
      case "error":
        this.show({ ...this.link, error: `${this.link.target?.name} says: ${[m.message, m.next].filter(Boolean).join("; ")}` });
        break;
    }
  }

  private met(id: string, name: string): void {
    const target = { url: this.link.target?.url ?? this.home.url, id, name };
    if (target.url === this.home.url) Object.assign(this.home, target);
    this.queue = this.queue.filter((t) => t.id !== id); // not again under another address
    this.show({ ...this.link, target });
  }

  private live(): void {
    if (this.link.phase === "live") return;
    this.liveAt = this.deps.now();
    this.refusals = 0;
    // After leaving a stale node only a tick shows whether this one is better.
    const lost = this.link.lost?.why === "stale" ? this.link.lost : null;
    this.show({ ...this.link, phase: "live", lost, movedFrom: lost === null ? this.link.lost : null, failures: 0, error: "" });
  }

  /** Leaves a node that has lost the leader, each at most once until one is fresh. */
  private judge(stale: boolean, ageMillis: number | null): void {
    const now = this.deps.now();
    if (this.link.phase === "live" && this.link.lost !== null) {
      this.show({ ...this.link, lost: null, movedFrom: stale ? null : this.link.lost });
    }
    if (!stale) {
      this.staleSince = null;
      this.leftStale.clear();
      return;
    }
    this.staleSince ??= now;
    if (now - this.staleSince < staleMillis || this.link.target === null) return;
    this.leftStale.add(this.link.target.url);
    const untried = this.targets(this.link.target).filter((t) => !this.leftStale.has(t.url));
    if (untried.length > 0) this.lose("stale", now - (ageMillis ?? now - this.liveAt), untried);
  }

  private closed(code: number): void {
    if (code === closeCode.notAllowed) return this.giveUp("notAllowed");
    if (code === closeCode.notAuthenticated) {
      // One node may lack the key of the voter that issued the token: ask a second.
      this.refusals++;
      if (this.refusals >= 2 || this.targets(null).length === 1) return this.giveUp("expired");
    }
    this.fail("closed", this.link.error);
  }

  private giveUp(why: Refusal): void {
    this.stop();
    this.deps.refused(why);
  }

  private fail(why: Lost["why"], error: string): void {
    this.show({ ...this.link, error, failures: this.link.failures + 1 });
    if (this.link.phase === "live") this.lose(why);
    else this.next(betweenMillis);
  }

  /** The live node is no longer good: what is shown ages from `at` on. */
  private lose(why: Lost["why"], at = this.lastMessageAt, queue?: Target[]): void {
    const from = this.link.target as Target;
    if (queue !== undefined || this.deps.now() - this.liveAt >= stableMillis) {
      this.round = 1;
      this.queue = queue ?? this.targets(from);
    }
    this.staleSince = null;
    this.show({ ...this.link, phase: "waiting", lost: { name: from.name, at, why } });
    this.next(this.round === 1 ? 0 : betweenMillis);
  }

  /** Where to go, in order; `last` at the end. Never empty: home is always on it. */
  private targets(last: Target | null): Target[] {
    const voters = new Set(this.deps.voters());
    const byUrl = new Map<string, Target & { rank: number }>();
    const add = (t: Target, rank: number): void => {
      const same = last !== null && (t.url === last.url || (t.id !== null && t.id === last.id));
      if (!byUrl.has(t.url)) byUrl.set(t.url, { ...t, rank: same ? 3 : rank });
    };
    add(this.home, last === null ? 0 : voters.has(this.home.id ?? "") ? 1 : 2);
    for (const p of this.deps.peers()) {
      const url = origin(p.http);
      if (url !== null && p.id !== this.home.id) add({ url, id: p.id, name: p.name }, voters.has(p.id) ? 1 : 2);
    }
    return [...byUrl.values()]
      .map((t) => ({ t, key: t.rank + this.deps.random() }))
      .sort((a, b) => a.key - b.key)
      .map(({ t }) => ({ url: t.url, id: t.id, name: t.name }))
      .slice(0, maxTargets);
  }
}

/** The origin of a peer's address; null when it is not one that a page can call. */
export function origin(http: string): string | null {
  try {
    const u = new URL(http);
    return u.protocol === "http:" || u.protocol === "https:" ? u.origin : null;
  } catch {
    return null;
  }
}

// The page's state as signals, and the wiring between session, connection and
// views. Everything here belongs to one page; nothing is global, so that a test
// can hold several.

import { batch, computed, effect, signal, type ReadonlySignal, type Signal } from "@preact/signals";
import type { Clock } from "./clock";
import { Connection, idleLink, type Deps, type Link, type Refusal } from "./connection";
import { shortId } from "./format";
import type { Cursor, Fleet, FleetEvent, Peer, ServerMessage } from "./protocol";
import { SeriesStore } from "./series";
import { loadPeers, loadSession, savePeers, saveSession, SignInError, signIn, type Session, type Store as Storage } from "./session";
import { emptyModel, reduce, withRoles, type Model, type RobotView } from "./state";

/** How long the notice of a move stays. */
const noticeMillis = 8000;
/** The stale banner stays at least this long, so that a quick move can be read. */
export const bannerMillis = 1500;

export interface Environment {
  clock: Clock;
  storage: Storage;
  /** The origin that served the page. */
  home: string;
  connection: Pick<Deps, "open" | "after" | "random">;
  signIn?: (code: string) => Promise<Session>;
}

export interface SignInState {
  busy: boolean;
  error: string;
  next: string;
  unreachable: boolean;
}

/** Why what is shown may be old. */
export interface Staleness {
  /** Page-clock time since when. */
  since: number;
  why: "silent" | "closed" | "stale" | "unheard" | "never";
  /** The node whose news is missing. */
  from: string;
}

const noSignIn: SignInState = { busy: false, error: "", next: "", unreachable: false };

export class AppStore {
  readonly session: Signal<Session | null>;
  readonly signInState = signal<SignInState>(noSignIn);
  readonly link = signal<Link>(idleLink);
  /** The page clock, at least once a second. */
  readonly now: Signal<number>;
  /** The reader's day; changes at midnight. */
  readonly today: ReadonlySignal<string>;
  /** What a screen reader is told next. */
  readonly announcement = signal("");
  /** null: what is shown is as fresh as the fleet allows. */
  readonly staleness = signal<Staleness | null>(null);
  readonly moved = signal<{ from: string; at: number } | null>(null);
  readonly series = new SeriesStore();
  /** Changes whenever any series does. */
  readonly seriesVersion = signal(0);

  readonly robots: ReadonlySignal<ReadonlyMap<string, RobotView>>;
  readonly events: ReadonlySignal<readonly FleetEvent[]>;
  readonly fleet: ReadonlySignal<Fleet | null>;
  readonly cursor: ReadonlySignal<Cursor | null>;
  readonly peers: ReadonlySignal<readonly Peer[]>;
  readonly behindBy: ReadonlySignal<number>;
  readonly reset: ReadonlySignal<Model["reset"]>;
  readonly asOf: ReadonlySignal<Model["asOf"]>;
  /** Id to human name; changes only when a name does, not with every sample. */
  readonly names: ReadonlySignal<ReadonlyMap<string, string>>;

  private readonly model: Signal<Model>;
  private readonly dismissed = signal<Model["reset"]>(null);
  private readonly connection: Connection;
  private readonly openedAt: number;
  private disposers: (() => void)[] = [];

  constructor(private readonly env: Environment) {
    this.openedAt = env.clock.now();
    this.now = signal(this.openedAt);
    this.today = computed(() => new Date(this.now.value).toDateString());
    this.session = signal(loadSession(env.storage, this.openedAt));
    this.model = signal(emptyModel(loadPeers(env.storage)));
    this.robots = computed(() => withRoles(this.model.value.robots, this.model.value.fleet));
    this.events = computed(() => this.model.value.events);
    this.fleet = computed(() => this.model.value.fleet);
    this.cursor = computed(() => this.model.value.cursor);
    this.peers = computed(() => this.model.value.peers);
    this.behindBy = computed(() => this.model.value.behindBy);
    this.asOf = computed(() => this.model.value.asOf);
    this.reset = computed(() => (this.model.value.reset === this.dismissed.value ? null : this.model.value.reset));
    let names: ReadonlyMap<string, string> = new Map();
    this.names = computed(() => (names = sameOr(names, namesIn(this.model.value))));
    this.connection = new Connection(this.connectionDeps(), env.home);
  }

  /** Starts the clock and, while signed in, the connection. */
  start(): void {
    this.disposers = [
      this.everySecond(),
      this.holdStaleness(),
      effect(() => savePeers(this.env.storage, this.peers.value)),
      effect(() => (this.session.value === null ? this.connection.stop() : this.connection.start())),
    ];
  }

  stop(): void {
    for (const dispose of this.disposers) dispose();
    this.disposers = [];
    this.connection.stop();
  }

  /** Trades a one-time code; a session that already works survives a bad code. */
  async signIn(code: string): Promise<void> {
    if (this.signInState.peek().busy) return;
    this.signInState.value = { ...noSignIn, busy: true };
    try {
      const session = await (this.env.signIn ?? signIn)(code);
      saveSession(this.env.storage, session);
      this.connection.stop(); // the effect starts it again with the new token
      batch(() => {
        this.signInState.value = noSignIn;
        this.session.value = session;
      });
    } catch (e) {
      const known = e instanceof SignInError ? e : new SignInError(String(e), "", false);
      this.signInState.value = { busy: false, error: known.message, next: known.next, unreachable: known.unreachable };
    }
  }

  /** Takes a failed sign-in as read. */
  dismissSignIn(): void {
    this.signInState.value = noSignIn;
  }

  signOut(): void {
    this.forget(noSignIn);
  }

  retryNow(): void {
    this.connection.retryNow();
  }

  moveOn(): void {
    this.connection.moveOn();
  }

  dismissReset(): void {
    this.dismissed.value = this.model.value.reset;
  }

  /** The human name behind an id, for events and headers. */
  readonly nameOf = (id: string): string => this.names.value.get(id) ?? shortId(id);

  private forget(state: SignInState): void {
    saveSession(this.env.storage, null);
    this.series.clear();
    batch(() => {
      this.signInState.value = state;
      this.session.value = null;
      this.model.value = emptyModel(this.peers.peek());
      this.moved.value = null;
    });
  }

  private connectionDeps(): Deps {
    return {
      ...this.env.connection,
      now: () => this.env.clock.now(),
      token: () => this.session.peek()?.token ?? "",
      cursor: () => this.model.peek().cursor,
      peers: () => this.model.peek().peers,
      voters: () => this.model.peek().fleet?.voters.map((v) => v.id) ?? [],
      message: (m) => this.apply(m),
      link: (l) => this.linkChanged(l),
      refused: (why) => this.refused(why),
    };
  }

  private apply(m: ServerMessage): void {
    const before = this.model.peek();
    const now = this.env.clock.now();
    const after = reduce(before, m, now);
    let recorded = false;
    if (after.robots !== before.robots) {
      for (const [id, r] of after.robots) {
        if (before.robots.get(id) !== r && this.series.record(r)) recorded = true;
      }
    }
    const said = changeInWords(before, after);
    batch(() => {
      this.model.value = after;
      this.now.value = now;
      if (recorded) this.seriesVersion.value++;
      if (said !== "") this.announcement.value = said;
    });
  }

  private linkChanged(l: Link): void {
    const was = this.link.peek();
    const now = this.env.clock.now();
    batch(() => {
      this.link.value = l;
      this.now.value = now;
      if (l.phase === "live" && l.movedFrom !== null && l.movedFrom !== was.movedFrom) {
        this.moved.value = { from: l.movedFrom.name, at: now };
        this.announcement.value = `Connected to ${l.target?.name ?? "a node"}. The view is live again.`;
      } else if (was.lost === null && l.lost !== null) {
        this.moved.value = null;
        this.announcement.value = `No news from ${l.lost.name}. Trying another node.`;
      }
    });
  }

  private currentStaleness(): Staleness | null {
    const l = this.link.value;
    const from = l.target?.name ?? this.env.home;
    if (l.phase === "idle") return null;
    if (l.lost !== null) return { since: l.lost.at, why: l.lost.why, from: l.lost.name };
    if (l.phase !== "live") return l.failures > 0 ? { since: this.openedAt, why: "never", from } : null;
    const asOf = this.asOf.value;
    if (!asOf?.stale) return null;
    return asOf.ageMillis === null ? { since: this.openedAt, why: "unheard", from } : { since: asOf.at - asOf.ageMillis, why: "stale", from };
  }

  /** staleness follows currentStaleness, at once when it appears and late when it goes. */
  private holdStaleness(): () => void {
    let shownAt = 0;
    let cancel = (): void => {};
    const dispose = effect(() => {
      const current = this.currentStaleness();
      cancel();
      const now = this.env.clock.now();
      if (current !== null) {
        if (this.staleness.peek() === null) shownAt = now;
        this.staleness.value = current;
      } else if (this.staleness.peek() !== null) {
        cancel = this.env.connection.after(Math.max(0, shownAt + bannerMillis - now), () => (this.staleness.value = null));
      }
    });
    return () => {
      cancel();
      dispose();
    };
  }

  private refused(why: Refusal): void {
    const error =
      why === "notAllowed"
        ? "This login may not look at the fleet: it lacks the scope “viewer”."
        : "This login is no longer accepted: it has expired, or the fleet does not know it.";
    this.forget({ ...noSignIn, error });
  }

  private everySecond(): () => void {
    let cancel = (): void => {};
    const beat = (): void => {
      const now = this.env.clock.now();
      this.now.value = now;
      const moved = this.moved.peek();
      if (moved !== null && now - moved.at > noticeMillis) this.moved.value = null;
      cancel = this.env.connection.after(1000 - (now % 1000), beat);
    };
    beat();
    return () => cancel();
  }
}

function namesIn(m: Model): Map<string, string> {
  const names = new Map<string, string>();
  for (const v of m.fleet?.voters ?? []) names.set(v.id, v.name);
  for (const p of m.peers) names.set(p.id, p.name);
  if (m.node !== null) names.set(m.node.id, m.node.name);
  for (const r of m.robots.values()) names.set(r.id, r.name);
  return names;
}

function sameOr(old: ReadonlyMap<string, string>, fresh: Map<string, string>): ReadonlyMap<string, string> {
  if (old.size !== fresh.size) return fresh;
  for (const [id, name] of fresh) if (old.get(id) !== name) return fresh;
  return old;
}

/** What a screen reader is told: transitions, never samples. */
function changeInWords(before: Model, after: Model): string {
  if (before.cursor === null || after.reset !== before.reset) return "";
  const parts: string[] = [];
  for (const [id, r] of after.robots) {
    const old = before.robots.get(id);
    if (old === undefined) parts.push(`${r.name} is new, ${r.status}`);
    else if (old.status !== r.status) parts.push(`${r.name} is ${r.status}`);
  }
  const leader = after.fleet?.leader;
  if (leader?.id !== before.fleet?.leader?.id) parts.push(leader ? `${leader.name} leads now` : "the fleet has no leader");
  return parts.length > 5 ? `${parts.length} changes in the fleet` : parts.join("; ");
}

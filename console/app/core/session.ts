// Who is signed in, and where else to look for the fleet. Both live in the tab's
// sessionStorage: a closed tab forgets them. Signing in is always at the node
// that served the page.

import type { Peer } from "./protocol";

export interface Session {
  token: string;
  expiresAt: string;
  person: string;
}

/** The subset of Storage used here. */
export interface Store {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

const sessionKey = "skein.session";
const peersKey = "skein.peers";

export function loadSession(store: Store, now: number): Session | null {
  const s = read(store, sessionKey) as Partial<Session> | null;
  if (typeof s?.token !== "string" || s.token === "") return null;
  const session = { token: s.token, expiresAt: String(s.expiresAt ?? ""), person: String(s.person ?? "") };
  return Date.parse(session.expiresAt) <= now ? null : session;
}

export function saveSession(store: Store, s: Session | null): void {
  if (s === null) store.removeItem(sessionKey);
  else write(store, sessionKey, s);
}

export function loadPeers(store: Store): Peer[] {
  const list = read(store, peersKey);
  if (!Array.isArray(list)) return [];
  return list.filter((p): p is Peer => typeof p?.id === "string" && typeof p?.name === "string" && typeof p?.http === "string");
}

export function savePeers(store: Store, peers: readonly Peer[]): void {
  write(store, peersKey, peers);
}

function read(store: Store, key: string): unknown {
  try {
    return JSON.parse(store.getItem(key) ?? "null");
  } catch {
    return null; // damaged by hand: as good as absent
  }
}

/** A browser whose storage is full or forbidden loses a reload's comfort, nothing else. */
function write(store: Store, key: string, value: unknown): void {
  try {
    store.setItem(key, JSON.stringify(value));
  } catch {
    store.removeItem(key);
  }
}

/** A sign-in that did not work, in words for the page. */
export class SignInError extends Error {
  override name = "SignInError";
  constructor(message: string, readonly next: string, readonly unreachable: boolean) {
    super(message);
  }
}

/** Accepts what people paste: the bare code, or the whole link that carries it. */
export function codeOf(pasted: string): string {
  const trimmed = pasted.trim();
  const at = trimmed.indexOf("#login=");
  const code = at < 0 ? trimmed : trimmed.slice(at + "#login=".length);
  try {
    return decodeURIComponent(code);
  } catch {
    return code;
  }
}

const signInMillis = 10_000;

/** Trades a one-time code for a token. */
export async function signIn(code: string, fetcher: typeof fetch = fetch): Promise<Session> {
  let answer: Response;
  let body: Record<string, unknown>;
  try {
    answer = await fetcher("/api/v1/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ code }),
      signal: AbortSignal.timeout(signInMillis),
    });
    body = ((await answer.json().catch(() => ({}))) ?? {}) as Record<string, unknown>;
  } catch {
    throw new SignInError("This node does not answer.", "", true);
  }
  const said = (k: string): string => (typeof body[k] === "string" ? (body[k] as string) : "");
  if (!answer.ok) {
    throw new SignInError(said("detail") || said("title") || `This node answered ${answer.status}.`, said("next"), false);
  }
  if (said("token") === "") throw new SignInError("This node answered without a token.", "", false);
  return { token: said("token"), expiresAt: said("expiresAt"), person: said("person") };
}

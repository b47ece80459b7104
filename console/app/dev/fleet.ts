// The fake fleet's nodes: each a real HTTP and WebSocket server that speaks
// skein.console.v1 about one shared World, and can be made to misbehave.

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocket, WebSocketServer } from "ws";
import type { Cursor, FleetEvent, Peer } from "../core/protocol";
import { subprotocol } from "../core/protocol";
import { World, type FakeRobot } from "./world";

export type PageFiles = () => Promise<Map<string, Buffer>>;

const stepMillis = 1000;
const tickMillis = 2000;
const waitMillis = 2000;
export const fakeToken = "fake-token";

const contentTypes: Record<string, string> = {
  html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8", css: "text/css; charset=utf-8", svg: "image/svg+xml", txt: "text/plain; charset=utf-8",
};
/** As the Go handler sends it. */
const policy = "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

interface Client {
  ws: WebSocket;
  sent: Cursor | null;
}

export class FakeNode {
  readonly clients = new Set<Client>();
  /** Connected, yet says nothing. */
  mute = false;
  /** Events that this node has not heard of yet. */
  lag = 0;
  private http: Server | null = null;

  constructor(private readonly fleet: FakeFleet, readonly robot: FakeRobot, private port: number, private readonly files: PageFiles) {}

  async listen(): Promise<void> {
    const http = createServer((req, res) => {
      this.answer(req.method ?? "", new URL(req.url ?? "/", "http://node"))
        .then(({ status, type, body }) => res.writeHead(status, { "Content-Type": type, "Content-Security-Policy": policy }).end(body))
        .catch((e) => res.writeHead(500).end(String(e)));
    });
    const sockets = new WebSocketServer({ server: http, path: "/api/v1/ws", handleProtocols: (p) => (p.has(subprotocol) ? subprotocol : false) });
    sockets.on("connection", (ws) => this.serve(ws));
    await new Promise<void>((resolve, reject) => http.once("error", reject).listen(this.port, "127.0.0.1", resolve));
    this.port = (http.address() as AddressInfo).port;
    this.robot.http = `http://127.0.0.1:${this.port}`;
    this.robot.alive = true;
    this.http = http;
  }

  /** Gone as by a power cut: the port refuses, the sockets end. */
  async die(): Promise<void> {
    const http = this.http;
    this.http = null;
    this.robot.alive = false;
    for (const c of this.clients) c.ws.terminate();
    this.clients.clear();
    if (http !== null) {
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
    }
  }

  get cursor(): Cursor {
    const c = this.fleet.world.cursor;
    return { ...c, seq: Math.max(0, c.seq - this.lag) };
  }

  private events(after: number): FleetEvent[] {
    return this.fleet.world.log.filter((e) => e.seq > after && e.seq <= this.cursor.seq);
  }

  private async answer(method: string, url: URL): Promise<{ status: number; type: string; body: string | Buffer }> {
    if (method === "POST" && url.pathname === "/api/v1/login") return this.login();
    const name = url.pathname === "/" ? "index.html" : url.pathname.slice(1);
    const body = (await this.files()).get(name);
    if (body === undefined) return { status: 404, type: "text/plain", body: "not found\n" };
    return { status: 200, type: contentTypes[name.split(".").at(-1) ?? ""] ?? "application/octet-stream", body };
  }

  private login(): { status: number; type: string; body: string } {
    if (this.fleet.refuseLogin) {
      const problem = { title: "Login refused", status: 401, detail: "This code has been used already.", code: "login_used", next: "Type `skein fleet login` for a new one." };
      return { status: 401, type: "application/problem+json", body: JSON.stringify(problem) };
    }
    const expiresAt = new Date(Date.now() + 12 * 3600e3).toISOString();
    return { status: 200, type: "application/json", body: JSON.stringify({ token: fakeToken, expiresAt, person: "admin", scopes: ["viewer"] }) };
  }

  private serve(ws: WebSocket): void {
    const client: Client = { ws, sent: null };
    this.clients.add(client);
    ws.on("close", () => this.clients.delete(client));
    ws.on("message", (data) => {
      const m = JSON.parse(String(data)) as { type: string; token?: string; cursor?: Cursor | null; events?: number };
      if (m.type === "auth") this.auth(client, m.token ?? "");
      if (m.type === "watch") void this.watch(client, m.cursor ?? null, m.events ?? 0);
    });
  }

  send(c: Client, m: Record<string, unknown>): void {
    if (!this.mute && c.ws.readyState === WebSocket.OPEN) c.ws.send(JSON.stringify(m));
  }

  private auth(c: Client, token: string): void {
    if (token !== fakeToken) {
      this.send(c, { type: "error", code: "unauthenticated", message: "this token is not known here", next: "sign in again" });
      c.ws.close(4401);
      return;
    }
    const { id, name } = this.robot;
    this.send(c, { type: "welcome", node: { id, name }, fleet: this.fleet.world.fleet(), person: "admin", peers: this.fleet.peers() });
  }

  private async watch(c: Client, cursor: Cursor | null, events: number): Promise<void> {
    const state = (): Record<string, unknown> => ({ cursor: this.cursor, fleet: this.fleet.world.fleet(), robots: this.fleet.world.robots.map((r) => this.fleet.world.robot(r)) });
    if (cursor === null || cursor.history !== this.cursor.history) {
      const reset = cursor === null ? {} : { reset: true, reason: "The fleet's history began anew." };
      this.send(c, { type: "snapshot", ...state(), events: this.events(0).slice(-events), ...reset });
      c.sent = this.cursor;
      return;
    }
    if (cursor.seq > this.cursor.seq) {
      await new Promise((resolve) => setTimeout(resolve, waitMillis));
      if (cursor.seq > this.cursor.seq) this.send(c, { type: "behind", by: cursor.seq - this.cursor.seq });
    }
    this.send(c, { type: "resumed", ...state() });
    c.sent = cursor;
    this.deliver(c);
  }

  /** Sends what the client has not had yet. */
  deliver(c: Client): void {
    if (c.sent === null) return;
    if (c.sent.history !== this.cursor.history) {
      void this.watch(c, c.sent, 100);
      return;
    }
    const events = this.events(c.sent.seq);
    if (events.length === 0) return;
    c.sent = this.cursor;
    this.send(c, { type: "events", events, cursor: c.sent });
  }
}

export class FakeFleet {
  readonly world: World;
  readonly nodes: FakeNode[] = [];
  refuseLogin = false;
  /** Since when no node has had word from the leader; null: all is well. */
  staleSince: number | null = null;
  private timers: NodeJS.Timeout[] = [];
  private lastHeader = "";

  constructor(private readonly files: PageFiles, random: () => number = Math.random) {
    this.world = new World(() => Date.now(), random);
  }

  /** Port 0 takes any. */
  async add(name: string, type: string, port: number): Promise<FakeNode> {
    const node = new FakeNode(this, this.world.add(name, type, ""), port, this.files);
    this.nodes.push(node);
    await node.listen();
    this.spread([node.robot]);
    return node;
  }

  start(): void {
    this.timers = [setInterval(() => this.step(), stepMillis), setInterval(() => this.tick(), tickMillis)];
  }

  async stop(): Promise<void> {
    for (const t of this.timers) clearInterval(t);
    await Promise.all(this.nodes.map((n) => n.die()));
  }

  node(name: string): FakeNode {
    const found = this.nodes.find((n) => n.robot.name === name);
    if (found === undefined) throw new Error(`no node ${name}; there are ${this.nodes.map((n) => n.robot.name).join(", ")}`);
    return found;
  }

  peers(): Peer[] {
    return this.world.robots.map(({ id, name, http }) => ({ id, name, http }));
  }

  step(): void {
    this.spread(this.world.step());
    const header = { type: "fleet", fleet: this.world.fleet(), peers: this.peers() };
    const said = JSON.stringify(header);
    if (said !== this.lastHeader) this.all((n, c) => n.send(c, header));
    this.lastHeader = said;
  }

  tick(): void {
    const ageMillis = this.staleSince === null ? 800 : Date.now() - this.staleSince;
    this.all((n, c) => n.send(c, { type: "tick", cursor: n.cursor, ageMillis, stale: ageMillis > 12_000 }));
  }

  private spread(changed: FakeRobot[]): void {
    this.all((n, c) => {
      n.deliver(c);
      if (c.sent !== null) n.send(c, { type: "robots", changed: changed.map((r) => this.world.robot(r)), removed: [] });
    });
  }

  private all(fn: (n: FakeNode, c: Client) => void): void {
    for (const n of this.nodes) for (const c of n.clients) if (c.sent !== null) fn(n, c);
  }
}

// `npm run dev`: the page, rebuilt at every load, before a fake fleet.
//
// The fleet obeys POST /COMMAND?node=NAME&n=NUMBER at the control port:
//   kill, start      a node dies, comes back
//   mute, speak      a node stays connected and says nothing, speaks again
//   lag?n=5          a node has not heard of the last n events
//   add              one more robot (name by node=)
//   stale, fresh     no node hears from the leader
//   reset            the fleet's history begins anew
//   event            something is decided
//   refuse, accept   login codes are refused

import { createServer, type Server } from "node:http";
import { FakeFleet, type PageFiles } from "./fleet";

export interface DevOptions {
  files: PageFiles;
  firstPort: number;
  robots: number;
}

const names = ["dock-1", "dock-2", "base-3"];

function nameOf(i: number): { name: string; type: string } {
  const name = names[i];
  if (name !== undefined) return { name, type: "unknown" };
  const type = i % 2 === 0 ? "xlerobot" : "lekiwi";
  return { name: `${type}-${i + 1}`, type };
}

async function obey(fleet: FakeFleet, url: URL): Promise<void> {
  const node = url.searchParams.get("node") ?? "";
  const n = Number(url.searchParams.get("n") ?? 0);
  const commands: Record<string, () => unknown> = {
    kill: () => fleet.node(node).die(),
    start: () => fleet.node(node).listen(),
    mute: () => (fleet.node(node).mute = true),
    speak: () => (fleet.node(node).mute = false),
    lag: () => (fleet.node(node).lag = n),
    add: () => fleet.add(node || nameOf(fleet.nodes.length).name, "lekiwi", 0),
    stale: () => (fleet.staleSince = Date.now() - 13_000),
    fresh: () => (fleet.staleSince = null),
    reset: () => fleet.world.reset(),
    event: () => fleet.world.decide("group/mobile", "group.created", { description: "made by hand" }, { kind: "person", id: "admin" }),
    refuse: () => (fleet.refuseLogin = true),
    accept: () => (fleet.refuseLogin = false),
  };
  const command = commands[url.pathname.slice(1)];
  if (command === undefined) throw new Error(`commands: ${Object.keys(commands).join(" ")}`);
  await command();
}

/** Serves until stopped. The control port is the one before the first node's. */
export async function serve(o: DevOptions): Promise<{ stop: () => Promise<void> }> {
  const fleet = new FakeFleet(o.files);
  for (let i = 0; i < o.robots; i++) {
    const { name, type } = nameOf(i);
    await fleet.add(name, type, o.firstPort + i);
  }
  fleet.start();
  const control: Server = createServer((req, res) => {
    obey(fleet, new URL(req.url ?? "/", "http://control"))
      .then(() => res.end("done\n"))
      .catch((e: unknown) => res.writeHead(400).end(`${e instanceof Error ? e.message : e}\n`));
  });
  await new Promise<void>((resolve) => control.listen(o.firstPort - 1, "127.0.0.1", resolve));
  console.log(`console   http://127.0.0.1:${o.firstPort}/#login=any-code`);
  console.log(`control   curl -X POST 'http://127.0.0.1:${o.firstPort - 1}/kill?node=dock-1'`);
  return {
    stop: async () => {
      control.close();
      await fleet.stop();
    },
  };
}

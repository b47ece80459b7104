// Where in the page one is, kept in the fragment so that any node can serve it.

export type Route = { page: "fleet" } | { page: "events" } | { page: "robot"; id: string };

export function parseRoute(hash: string): Route {
  const parts = hash.replace(/^#\/?/, "").split("/");
  if (parts[0] === "events") return { page: "events" };
  if (parts[0] === "robot" && parts[1]) return { page: "robot", id: decode(parts[1]) };
  return { page: "fleet" };
}

export const fleetHref = "#/";
export const eventsHref = "#/events";
export const robotHref = (id: string): string => `#/robot/${encodeURIComponent(id)}`;

/** The one-time code of a link "/#login=CODE"; null: this is no such link. */
export function loginCode(hash: string): string | null {
  const prefix = "#login=";
  return hash.startsWith(prefix) && hash.length > prefix.length ? decode(hash.slice(prefix.length)) : null;
}

function decode(s: string): string {
  try {
    return decodeURIComponent(s);
  } catch {
    return s;
  }
}

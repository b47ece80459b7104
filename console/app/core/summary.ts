// An event as one line for people. A type that is not listed here, from a newer
// node, is shown by its stream and type: nothing is ever hidden.

import type { FleetEvent } from "./protocol";
import { duration, shortId } from "./format";

/** The human name of a node or robot, or its short id. */
export type NameOf = (id: string) => string;

type Describe = (subject: string, data: Record<string, unknown>, nameOf: NameOf) => string;

const word = (v: unknown): string => (typeof v === "string" || typeof v === "number" ? String(v) : "");
const because = (v: unknown): string => (word(v) ? `: ${word(v)}` : "");

const describers: Record<string, Describe> = {
  "fleet.created": (_, d) => `Fleet ${word(d.name)} was created`,
  "person.added": (s, d) => `${s} was added${Array.isArray(d.scopes) ? ` as ${d.scopes.map(word).join(", ")}` : ""}`,
  "person.removed": (s) => `${s} was removed`,
  "enrolment.added": (s) => `Enrolment key ${shortId(s)} was added`,
  "enrolment.revoked": (s, d) => `Enrolment key ${shortId(s)} was revoked${because(d.reason)}`,
  "token.created": (_, d) => `A join token was created, good for ${duration(1000 * Number(d.ttlSeconds))}`,
  "node.admitted": (s, d) => `${word(d.name) || s} was admitted by ${word(d.by)}`,
  "node.revoked": (s, d) => `${s} was revoked${because(d.reason)}`,
  "node.left": (s) => `${s} left the fleet`,
  "voter.eligible": (s, d) => `${s} is ${d.eligible === false ? "no longer" : "now"} eligible as a voter`,
  "voter.approved": (s) => `${s} was approved as a voter`,
  "voter.withdrawn": (s) => `The approval of ${s} as a voter was withdrawn`,
  "voter.added": (s) => `${s} became a voter`,
  "voter.removed": (s) => `${s} is no longer a voter`,
  "gossip_key.rotated": (_, d) => `Gossip keys were rotated to epoch ${word(d.epoch)}`,
  "robot.registered": (s, d) => `${word(d.name) || s} registered${word(d.type) && d.type !== "unknown" ? ` as ${word(d.type)}` : ""}`,
  "robot.online": (s) => `${s} is online`,
  "robot.offline": (s, d) => `${s} went offline${word(d.lastHeardSeconds) ? `, last heard ${duration(1000 * Number(d.lastHeardSeconds))} before` : ""}`,
  "robot.config_changed": (s, d) => `${s} changed${word(d.name) ? ` name to ${word(d.name)}` : ""}${word(d.type) ? ` type to ${word(d.type)}` : ""}`,
  "robot.labels_changed": (s, d) => `Labels of ${s} changed: ${labelChange(d)}`,
  "robot.provisioned": (s, d) => `${s} was provisioned${word(d.version) ? ` with version ${word(d.version)}` : ""}`,
  "robot.activated": (s, d) => `${s} was put to work${because(d.reason)}`,
  "robot.deactivated": (s, d) => `${s} ended its work${because(d.reason)}`,
  "robot.failed": (s, d) => `${s} failed${because(d.message)}`,
  "robot.recovered": (s, d) => `${s} recovered${because(d.reason)}`,
  "robot.maintenance_started": (s, d) => `${s} went into maintenance${because(d.reason)}`,
  "robot.maintenance_ended": (s) => `${s} came back from maintenance`,
  "robot.retired": (s, d) => `${s} was retired${because(d.reason)}`,
  "robot.deployment_started": (s, d) => `${s} began to take version ${word(d.version)}`,
  "robot.deployment_completed": (s, d) => `${s} runs version ${word(d.version)}`,
  "robot.deployment_failed": (s, d) => `${s} could not take version ${word(d.version)}${because(d.message)}`,
  "fleet.ceiling_raised": (_, d) => `The fleet may use events of level ${word(d.level)}`,
  "log.sealed": (_, d) => `The log was sealed up to event ${word(d.seq)}`,
  "log.recovered": (_, d) => `The fleet was recovered at event ${word(d.seq)}${because(d.reason)}`,
  "group.created": (s) => `Group ${s} was created`,
  "group.deleted": (s) => `Group ${s} was deleted`,
  "group.robot_added": (s, d, nameOf) => `${nameOf(word(d.robot))} joined group ${s}`,
  "group.robot_removed": (s, d, nameOf) => `${nameOf(word(d.robot))} left group ${s}`,
};

function labelChange(d: Record<string, unknown>): string {
  const set = typeof d.set === "object" && d.set !== null ? Object.entries(d.set).map(([k, v]) => `${k}=${word(v)}`) : [];
  const removed = Array.isArray(d.remove) ? d.remove.map((k) => `${word(k)} removed`) : [];
  return [...set, ...removed].join(", ");
}

export function summary(e: FleetEvent, nameOf: NameOf): string {
  const describe = Object.hasOwn(describers, e.type) ? describers[e.type] : undefined;
  if (describe === undefined) return `${e.type} on ${e.stream}`;
  return describe(subject(e.stream, nameOf), e.data, nameOf);
}

/** "robot/abc" is about the robot of that id; "group/dock" about "dock". */
export function subject(stream: string, nameOf: NameOf): string {
  const slash = stream.indexOf("/");
  if (slash < 0) return stream;
  const kind = stream.slice(0, slash);
  const id = stream.slice(slash + 1);
  return kind === "robot" || kind === "node" ? nameOf(id) : id;
}

/** The robot that an event is about, if it is about one. */
export function robotOf(e: FleetEvent): string | null {
  const [kind, id] = e.stream.split("/", 2);
  if ((kind === "robot" || kind === "node") && id) return id;
  return kind === "group" && typeof e.data.robot === "string" ? e.data.robot : null;
}

export function actor(e: FleetEvent, nameOf: NameOf): string {
  switch (e.actor.kind) {
    case "person":
      return e.actor.id;
    case "node":
      return nameOf(e.actor.id);
    case "leader":
      return e.actor.id === "" ? "the leader" : `${nameOf(e.actor.id)} as leader`;
    case "":
      return "unknown";
    default:
      return e.actor.kind;
  }
}

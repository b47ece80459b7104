// Small pieces that several views share.

import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import { absent, duration } from "../core/format";
import type { Lifecycle } from "../core/protocol";
import type { RobotView } from "../core/state";
import { useApp } from "./context";

/** A robot is expected to be heard every 10 s while someone looks. */
const quietMillis = 15_000;

/** A command to type, with a button that copies it. */
export function Command({ children }: { children: string }): JSX.Element {
  const [copied, setCopied] = useState(false);
  const copy = async (): Promise<void> => {
    setCopied(await copyText(children));
    setTimeout(() => setCopied(false), 2000);
  };
  return (
    <span class="command">
      <code>{children}</code>
      <button type="button" class="quiet" onClick={copy} aria-label={`Copy ${children}`}>
        {copied ? "Copied" : "Copy"}
      </button>
    </span>
  );
}

/** The clipboard API exists only on https: and localhost; a LAN console is neither. */
async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "offscreen";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** A node's own words; what it puts between backticks is to be typed. */
export function Said({ text }: { text: string }): JSX.Element {
  return <span>{text.split("`").map((part, i) => (i % 2 === 1 ? <code key={i}>{part}</code> : part))}</span>;
}

export function Status({ status }: { status: string }): JSX.Element {
  const known = ["online", "offline", "revoked", "left"].includes(status) ? status : "unknown";
  return (
    <span class={`status ${known}`}>
      <span class="mark" aria-hidden="true" />
      {status}
    </span>
  );
}

const stages = ["provisioning", "ready", "active", "maintenance", "offline", "failed", "retired"];

/** Where a robot is in its life. A newly discovered one is the quiet normal. */
export function Stage({ lifecycle: l }: { lifecycle: Lifecycle }): JSX.Element {
  const title = l.lastFailure === null ? undefined : `Last failure: ${l.lastFailure.message} (${l.lastFailure.kind})`;
  // Beside the status "online" this word of the log would be a riddle.
  const words = l.state === "offline" ? "failed, expected back" : l.state;
  return (
    <span class={stages.includes(l.state) ? `stage ${l.state}` : "stage muted"} title={title} data-testid="row-state" data-state={l.state}>
      {words}
    </span>
  );
}

/** Role of a node in the fleet's decisions; followers are the quiet normal. */
export function Role({ role }: { role: string }): JSX.Element {
  return role === "leader" || role === "voter" ? <span class={`role ${role}`}>{role}</span> : <span class="muted">{role || absent}</span>;
}

/** How long ago a robot was last heard; counts up by itself. */
export function Age({ robot }: { robot: RobotView }): JSX.Element {
  const { store } = useApp();
  if (robot.heardAt === null) return <span class="muted" title="Not heard since this node started to listen">never</span>;
  const age = store.now.value - robot.heardAt;
  const quiet = robot.status === "online" && age > quietMillis;
  return (
    <span class={quiet ? "warn" : undefined} title={quiet ? "Expected at least every 10 s" : undefined}>
      {duration(age)}
    </span>
  );
}

/** A number with a small bar under it; `high` marks it from there on. */
export function Meter({ value, text, high, title }: { value: number | null; text: string; high: number; title?: string }): JSX.Element {
  if (value === null) return <span class="muted">{absent}</span>;
  const share = Math.min(100, Math.max(0, value));
  return (
    <span class={`meter${value >= high ? " high" : ""}`} title={title}>
      {text}
      <span class="bar" aria-hidden="true">
        <span style={{ width: `${share}%` }} />
      </span>
    </span>
  );
}

export function Empty({ title, children }: { title: string; children: ComponentChildren }): JSX.Element {
  return (
    <div class="empty">
      <p class="title">{title}</p>
      {children}
    </div>
  );
}

/** Robots in formation: the mark of the house. */
export function Logo(): JSX.Element {
  return (
    <svg class="logo" viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
      <path d="M3 22 L16 9 L29 22" fill="none" stroke="currentColor" stroke-width="2" opacity=".45" />
      <circle cx="16" cy="9" r="3.4" fill="currentColor" />
      <circle cx="9.5" cy="15.5" r="2.6" fill="currentColor" />
      <circle cx="22.5" cy="15.5" r="2.6" fill="currentColor" />
      <circle cx="3.6" cy="21.5" r="2.2" fill="currentColor" />
      <circle cx="28.4" cy="21.5" r="2.2" fill="currentColor" />
    </svg>
  );
}

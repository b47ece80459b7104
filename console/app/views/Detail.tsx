// One robot: what it is, how it has been since this page was opened, its events.

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { absent, bytes, celsius, duration, eventTime, percent, plural, rate } from "../core/format";
import { origin } from "../core/connection";
import { fleetHref } from "../core/route";
import type { RobotView } from "../core/state";
import { useApp } from "./context";
import { EventList } from "./Events";
import { Age, Command, Empty, Role, Stage, Status } from "./parts";
import { Plot, type Line } from "./Plot";

const cpu: readonly Line[] = [{ measure: "cpuPercent", label: "CPU" }];
const memory: readonly Line[] = [{ measure: "memoryPercent", label: "memory" }];
const temperature: readonly Line[] = [{ measure: "temperatureC", label: "temperature" }];
const network: readonly Line[] = [
  { measure: "rxBytesPerSec", label: "in" },
  { measure: "txBytesPerSec", label: "out" },
];

export function Detail({ id }: { id: string }): JSX.Element {
  const { store } = useApp();
  const heading = useRef<HTMLHeadingElement>(null);
  const robot = store.robots.value.get(id);
  useEffect(() => heading.current?.focus(), [id, robot === undefined]);
  useEffect(() => {
    const close = (e: KeyboardEvent): void => {
      if (e.key === "Escape" && !e.defaultPrevented) location.hash = fleetHref;
    };
    addEventListener("keydown", close);
    return () => removeEventListener("keydown", close);
  }, []);
  if (robot === undefined) {
    return (
      <Empty title="This fleet has no robot with that id.">
        <h1 class="offscreen">Robot not found</h1>
        <p>
          <code>{id}</code>
        </p>
        <p>
          <a href={fleetHref}>Back to the fleet</a>
        </p>
      </Empty>
    );
  }
  return (
    <article class="detail" data-testid="detail" data-robot-id={robot.id}>
      <p>
        <a href={fleetHref} data-testid="detail-close">
          ← Fleet
        </a>
      </p>
      <div class="title">
        <h1 tabIndex={-1} ref={heading}>
          {robot.name}
        </h1>
        <Status status={robot.status} />
        <Stage lifecycle={robot.lifecycle} />
        <Role role={robot.role} />
        <span class="muted">
          last news <Age robot={robot} />
        </span>
      </div>
      <Plots robot={robot} />
      <div class="columns">
        <Facts robot={robot} />
        <EventList heading="Its events" robot={robot.id} />
      </div>
    </article>
  );
}

function Plots({ robot }: { robot: RobotView }): JSX.Element {
  const { store } = useApp();
  void store.seriesVersion.value;
  if (store.series.columns(robot.id) === undefined) {
    return (
      <Empty title="No telemetry from this robot yet.">
        <p>
          It is asked for while someone looks, and comes within 10 s. If not, type on the robot <Command>skein doctor</Command>
        </p>
      </Empty>
    );
  }
  return (
    <div class="plots">
      <Plot title="CPU" robot={robot.id} lines={cpu} format={percent} range={[0, 100]} />
      <Plot title="Memory" robot={robot.id} lines={memory} format={percent} range={[0, 100]} />
      <Plot title="Temperature" robot={robot.id} lines={temperature} format={celsius} range={[20, 90]} />
      <Plot title="Network" robot={robot.id} lines={network} format={rate} range={[0, 10_000]} />
    </div>
  );
}

function Facts({ robot: r }: { robot: RobotView }): JSX.Element {
  const { store } = useApp();
  const t = r.telemetry;
  const page = origin(r.http);
  const since = eventTime(r.statusSince, store.today.value);
  return (
    <section class="facts" aria-label="Facts">
      <h2>Facts</h2>
      <dl>
        <Fact name="Id">
          <code>{r.id}</code>
        </Fact>
        <Fact name="Type">{r.type}</Fact>
        <Fact name="Status">
          {r.status}
          {since !== absent && ` since ${since}`}
        </Fact>
        <Fact name="State">{stateWords(r, store.today.value)}</Fact>
        {r.lifecycle.lastFailure !== null && (
          <Fact name="Last failure">
            {r.lifecycle.lastFailure.message} ({r.lifecycle.lastFailure.kind}), {eventTime(r.lifecycle.lastFailure.at, store.today.value)}
          </Fact>
        )}
        <Fact name="Deployed">{r.deployed === null ? absent : `${r.deployed.version} (${r.deployed.deployment}), ${r.deployed.status}`}</Fact>
        <Fact name="Vote">{voteWords(r)}</Fact>
        <Fact name="Version">{r.version || absent}</Fact>
        <Fact name="Computer">{r.hostname || absent}</Fact>
        <Fact name="System">{[r.os, r.arch].filter(Boolean).join(" / ") || absent}</Fact>
        <Fact name="Disk">{t === null || t.diskTotalBytes === 0 ? absent : `${bytes(t.diskUsedBytes)} of ${bytes(t.diskTotalBytes)}`}</Fact>
        <Fact name="Memory">{t === null || t.memTotalBytes === 0 ? absent : `${bytes(t.memUsedBytes)} of ${bytes(t.memTotalBytes)}`}</Fact>
        <Fact name="Battery">{percent(t?.batteryPercent ?? null)}</Fact>
        <Fact name="Load">{t === null ? absent : t.load1.toFixed(2)}</Fact>
        <Fact name="Up for">{t === null ? absent : duration(t.uptimeSeconds * 1000)}</Fact>
        <Fact name="Console">{page === null ? absent : <a href={page}>{page}</a>}</Fact>
        <Fact name="Labels">
          <Chips of={Object.entries(r.labels).map(([k, v]) => `${k}=${v}`)} />
        </Fact>
        <Fact name="Groups">
          <Chips of={r.groups} />
        </Fact>
      </dl>
    </section>
  );
}

function Fact({ name, children }: { name: string; children: ComponentChildren }): JSX.Element {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

function Chips({ of }: { of: string[] }): JSX.Element {
  if (of.length === 0) return <span class="muted">none</span>;
  return (
    <>
      {of.map((text) => (
        <span class="chip" key={text}>
          {text}
        </span>
      ))}
    </>
  );
}

function stateWords(r: RobotView, today: string): string {
  const l = r.lifecycle;
  const since = eventTime(l.since, today);
  const failures = l.failures === 0 ? "" : `, ${plural(l.failures, "failure")} since it last worked well`;
  return l.state + (since === absent ? "" : ` since ${since}`) + failures;
}

function voteWords(r: RobotView): string {
  if (r.role === "leader" || r.role === "voter") return r.role === "leader" ? "voter, leads now" : "voter";
  if (r.voterEligible) return r.voterApproved ? "approved, not yet added" : "eligible, not approved";
  return "not eligible";
}

// What the fleet has decided, newest first.

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { eventTime, plural } from "../core/format";
import type { FleetEvent } from "../core/protocol";
import { robotHref } from "../core/route";
import { maxEvents } from "../core/state";
import { actor, robotOf, subject, summary } from "../core/summary";
import { useApp } from "./context";
import { Command, Empty } from "./parts";

/** Rows drawn at first and with each "more". */
const pageRows = 100;

interface Props {
  heading: string;
  /** Only events about this robot; the stream filter is then not offered. */
  robot?: string;
}

export function EventList({ heading, robot }: Props): JSX.Element {
  const { store } = useApp();
  const type = useSignal("");
  const stream = useSignal("");
  const rows = useSignal(pageRows);
  const all = store.events.value;
  const about = robot === undefined ? all : all.filter((e) => robotOf(e) === robot);
  const types = [...new Set(about.map((e) => e.type))].sort();
  const wanted = stream.value.trim().toLowerCase();
  const shown = about.filter(
    (e) => (type.value === "" || e.type === type.value) && (wanted === "" || e.stream.toLowerCase().includes(wanted) || subject(e.stream, store.nameOf).toLowerCase().includes(wanted)),
  );
  const filtered = type.value !== "" || wanted !== "";
  const clear = (): void => {
    type.value = "";
    stream.value = "";
  };
  return (
    <section class="events" aria-label={heading}>
      <div class="controls">
        <h2>{heading}</h2>
        <label>
          <span class="offscreen">Type of event</span>
          <select value={type.value} onChange={(e) => (type.value = e.currentTarget.value)} data-testid="event-type">
            <option value="">all types</option>
            {types.map((t) => (
              <option key={t}>{t}</option>
            ))}
          </select>
        </label>
        {robot === undefined && (
          <label>
            <span class="offscreen">Stream or name</span>
            <input type="search" placeholder="Stream, name…" value={stream.value} onInput={(e) => (stream.value = e.currentTarget.value)} data-testid="event-stream" />
          </label>
        )}
      </div>
      <ol class="log" tabIndex={-1}>
        {shown.slice(0, rows.value).map((e, i) => (
          <EventRow key={e.seq} event={e} skipped={!filtered && robot === undefined ? gap(shown[i - 1], e) : 0} />
        ))}
      </ol>
      {shown.length > rows.value && (
        <button type="button" onClick={() => (rows.value += pageRows)}>
          Show {Math.min(pageRows, shown.length - rows.value)} more
        </button>
      )}
      {shown.length === 0 && <NoEvents filtered={filtered} held={about.length} robot={robot} clear={clear} />}
      {shown.length > 0 && shown.length <= rows.value && !filtered && <Older robot={robot} />}
    </section>
  );
}

/** Events between two neighbours that this page was never sent. */
function gap(newer: FleetEvent | undefined, e: FleetEvent): number {
  return newer === undefined ? 0 : newer.seq - e.seq - 1;
}

function EventRow({ event: e, skipped }: { event: FleetEvent; skipped: number }): JSX.Element {
  const { store } = useApp();
  const robot = robotOf(e);
  return (
    <li data-testid="event-row" data-type={e.type} data-seq={e.seq} class={bad.has(e.type) ? "bad" : undefined}>
      {skipped > 0 && <p class="gap">{plural(skipped, "event")} not shown here</p>}
      <details>
        <summary>
          <time dateTime={e.time} title={e.time}>
            {eventTime(e.time, store.today.value)}
          </time>
          <span class="what">{summary(e, store.nameOf)}</span>
          <span class="kind">{e.type}</span>
        </summary>
        <dl>
          <dt>seq</dt>
          <dd>{e.seq}</dd>
          <dt>by</dt>
          <dd>{actor(e, store.nameOf)}</dd>
          <dt>stream</dt>
          <dd>
            {robot === null ? e.stream : <a href={robotHref(robot)}>{e.stream}</a>} version {e.version}
          </dd>
          {e.cause !== "" && (
            <>
              <dt>cause</dt>
              <dd>{e.cause}</dd>
            </>
          )}
          <dt>data</dt>
          <dd>
            <pre tabIndex={0}>{JSON.stringify(e.data, null, 2)}</pre>
          </dd>
        </dl>
      </details>
    </li>
  );
}

/** Types that someone should notice while scrolling. */
const bad = new Set(["robot.offline", "robot.failed", "robot.deployment_failed", "log.recovered", "node.revoked", "enrolment.revoked", "voter.removed", "voter.withdrawn"]);

interface NoEventsProps {
  filtered: boolean;
  held: number;
  robot: string | undefined;
  clear: () => void;
}

function NoEvents({ filtered, held, robot, clear }: NoEventsProps): JSX.Element {
  if (filtered && held > 0) {
    return (
      <Empty title="No event matches.">
        <p>Only the newest {maxEvents} since this page was opened are searched here.</p>
        <button type="button" onClick={clear}>
          Show all {plural(held, "event")}
        </button>
      </Empty>
    );
  }
  return (
    <Empty title={robot === undefined ? "No events yet." : "No recent event is about this robot."}>
      <p>
        The whole log: <Command>{robot === undefined ? "skein events" : `skein events --stream robot/${robot}`}</Command>
      </p>
    </Empty>
  );
}

function Older({ robot }: { robot: string | undefined }): JSX.Element {
  return (
    <p class="muted older">
      Older events: <Command>{robot === undefined ? "skein events" : `skein events --stream robot/${robot}`}</Command>
    </p>
  );
}

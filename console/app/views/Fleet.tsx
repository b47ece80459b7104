// The fleet at a glance: counts, filter, table; and how to get more robots.

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { bytes, celsius, percent, plural, shortId } from "../core/format";
import { robotHref } from "../core/route";
import { matches, memoryPercent, type SortKey, sortKeys, sorted } from "../core/table";
import type { RobotView } from "../core/state";
import { useApp } from "./context";
import { Age, Command, Empty, Meter, Role, Stage, Status } from "./parts";

/** Rows drawn before someone asks for all. */
const firstRows = 200;

const columns: readonly { key: SortKey; label: string; numeric: boolean }[] = [
  { key: "name", label: "Name", numeric: false },
  { key: "type", label: "Type", numeric: false },
  { key: "status", label: "Status", numeric: false },
  { key: "role", label: "Role", numeric: false },
  { key: "cpu", label: "CPU", numeric: true },
  { key: "memory", label: "Memory", numeric: true },
  { key: "temperature", label: "Temp.", numeric: true },
  { key: "battery", label: "Battery", numeric: true },
  { key: "news", label: "Last news", numeric: true },
];

type StatusFilter = "all" | "online" | "offline" | "gone";

const inFilter: Record<StatusFilter, (r: RobotView) => boolean> = {
  all: () => true,
  online: (r) => r.status === "online",
  offline: (r) => r.status === "offline",
  gone: (r) => r.status === "revoked" || r.status === "left",
};

export function FleetTable({ returnTo }: { returnTo: { id: string | null } }): JSX.Element {
  const { store } = useApp();
  const filter = useSignal("");
  const status = useSignal<StatusFilter>("all");
  const sort = useSignal<{ key: SortKey; down: boolean }>({ key: "name", down: false });
  const showAll = useSignal(false);
  const all = [...store.robots.value.values()];
  const shown = sorted(all.filter((r) => inFilter[status.value](r) && matches(r, filter.value)), sort.value.key, sort.value.down);
  const drawn = showAll.value ? shown : shown.slice(0, firstRows);
  const clear = (): void => {
    filter.value = "";
    status.value = "all";
  };
  const sortBy = (key: SortKey): void => {
    sort.value = { key, down: sort.value.key === key ? !sort.value.down : false };
  };
  return (
    <section class="fleet" aria-label="Robots">
      <h1 class="offscreen">Fleet {store.fleet.value?.name}</h1>
      <div class="controls">
        <Counts all={all} status={status.value} choose={(s) => (status.value = s)} />
        <label class="offscreen" for="filter">
          Filter robots
        </label>
        <input
          id="filter" type="search" placeholder="Filter robots…" title="By name, id, type, status, role, label or group" value={filter.value}
          onInput={(e) => (filter.value = e.currentTarget.value)} data-testid="fleet-filter"
        />
        <SortChoice sort={sort.value} choose={(s) => (sort.value = s)} />
      </div>
      {shown.length > 0 && <Table robots={drawn} sort={sort.value} sortBy={sortBy} returnTo={returnTo} />}
      {drawn.length < shown.length && (
        <button type="button" onClick={() => (showAll.value = true)}>
          Show all {shown.length} robots
        </button>
      )}
      {all.length > 0 && shown.length === 0 && (
        <Empty title="No robot matches.">
          <button type="button" onClick={clear}>
            Show all {plural(all.length, "robot")}
          </button>
        </Empty>
      )}
      {all.length <= 1 && shown.length === all.length && <MoreRobots none={all.length === 0} />}
      <Voters />
    </section>
  );
}

function Counts(p: { all: RobotView[]; status: StatusFilter; choose: (s: StatusFilter) => void }): JSX.Element {
  const choices: readonly StatusFilter[] = ["all", "online", "offline", "gone"];
  return (
    <div class="counts" role="group" aria-label="Show by status">
      {choices.map((s) => {
        const n = p.all.filter(inFilter[s]).length;
        if (s === "gone" && n === 0 && p.status !== s) return null;
        return (
          <button key={s} type="button" aria-pressed={p.status === s} onClick={() => p.choose(s)} data-testid={`count-${s}`}>
            {s} <b>{n}</b>
          </button>
        );
      })}
    </div>
  );
}

/** On a phone the table has no header row; this stands in for it. */
function SortChoice({ sort, choose }: { sort: { key: SortKey; down: boolean }; choose: (s: { key: SortKey; down: boolean }) => void }): JSX.Element {
  return (
    <label class="sort-choice">
      Sort by{" "}
      <select value={sort.key} onChange={(e) => choose({ key: sortKeys.find((k) => k === e.currentTarget.value) ?? "name", down: false })}>
        {columns.map((c) => (
          <option key={c.key} value={c.key}>
            {c.label}
          </option>
        ))}
      </select>
    </label>
  );
}

interface TableProps {
  robots: RobotView[];
  sort: { key: SortKey; down: boolean };
  sortBy: (key: SortKey) => void;
  returnTo: { id: string | null };
}

/** Roles are spelt out because the phone layout takes the rows out of table layout. */
function Table({ robots, sort, sortBy, returnTo }: TableProps): JSX.Element {
  const body = useRef<HTMLTableSectionElement>(null);
  useEffect(() => {
    // Back from a robot's page: on with the keyboard where it was left.
    if (returnTo.id !== null) body.current?.querySelector<HTMLElement>(`[data-robot-id="${CSS.escape(returnTo.id)}"] a`)?.focus();
    returnTo.id = null;
  }, []);
  return (
    <table class="robots" role="table" aria-label="Robots" aria-rowcount={robots.length + 1}>
      <thead role="rowgroup">
        <tr role="row">
          {columns.map((c) => (
            <th key={c.key} role="columnheader" scope="col" class={c.numeric ? "number" : undefined} aria-sort={sort.key === c.key ? (sort.down ? "descending" : "ascending") : "none"}>
              <button type="button" onClick={() => sortBy(c.key)} data-testid={`sort-${c.key}`}>
                <span>{c.label}</span>
                <span class="arrow" aria-hidden="true">
                  {sort.key === c.key ? (sort.down ? "▾" : "▴") : ""}
                </span>
              </button>
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup" ref={body} onKeyDown={(e) => moveFocus(e, body.current)}>
        {robots.map((r) => (
          <Row key={r.id} robot={r} />
        ))}
      </tbody>
    </table>
  );
}

/** Arrows, or j and k, go from row to row while one has the focus. */
function moveFocus(e: KeyboardEvent, body: HTMLElement | null): void {
  if (e.ctrlKey || e.metaKey || e.altKey || body === null) return;
  const links = [...body.querySelectorAll<HTMLElement>("a.name")];
  const at = links.indexOf(document.activeElement as HTMLElement);
  const to = { ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1, Home: 0, End: links.length - 1 }[e.key];
  if (to === undefined || at < 0) return;
  e.preventDefault();
  links[Math.min(links.length - 1, Math.max(0, to))]?.focus();
}

function Row({ robot: r }: { robot: RobotView }): JSX.Element {
  const t = r.telemetry;
  const memory = memoryPercent(r);
  const open = (e: MouseEvent): void => {
    if ((e.target as Element).closest("a, button") !== null || getSelection()?.toString()) return;
    location.hash = robotHref(r.id);
  };
  return (
    <tr role="row" class={r.status} onClick={open} data-testid="fleet-row" data-robot-id={r.id} data-name={r.name} data-status={r.status} data-state={r.lifecycle.state}>
      <td role="cell" class="who">
        <a class="name" href={robotHref(r.id)}>
          {r.name}
        </a>
        <span class="id" title={r.id}>
          {shortId(r.id)}
        </span>
      </td>
      <td role="cell" class={`type ${r.type === "unknown" ? "muted" : ""}`}>{r.type}</td>
      <td role="cell" class="state">
        <Status status={r.status} /> <Stage lifecycle={r.lifecycle} />
      </td>
      <td role="cell" class="part">
        <Role role={r.role} />
      </td>
      <td role="cell" class="number" data-label="CPU">
        <Meter value={t?.cpuPercent ?? null} text={percent(t?.cpuPercent ?? null)} high={90} />
      </td>
      <td role="cell" class="number" data-label="Memory">
        <Meter value={memory} text={percent(memory)} high={90} {...(t === null ? {} : { title: `${bytes(t.memUsedBytes)} of ${bytes(t.memTotalBytes)}` })} />
      </td>
      <td role="cell" class={`number ${(t?.temperatureC ?? 0) >= 80 ? "warn" : ""}`} data-label="Temp.">
        {celsius(t?.temperatureC ?? null)}
      </td>
      <td role="cell" class={`number ${(t?.batteryPercent ?? 100) <= 15 ? "warn" : ""}`} data-label="Battery">
        {percent(t?.batteryPercent ?? null)}
      </td>
      <td role="cell" class="number news" data-label="Last news" data-testid="row-age">
        <Age robot={r} />
      </td>
    </tr>
  );
}

function MoreRobots({ none }: { none: boolean }): JSX.Element {
  return (
    <Empty title={none ? "No robot has registered yet." : "This robot is alone so far."}>
      <p>
        A robot whose image carries the fleet file joins by itself: on it, start <Command>skein run</Command>
      </p>
      <p>
        Any other: here, make a one-time token with <Command>skein token create --ttl 10m</Command> and on the new robot type{" "}
        <Command>skein join TOKEN</Command>
      </p>
      <p class="muted">
        Not seen although it runs? On that robot, <code>skein doctor</code> names the cause.
      </p>
    </Empty>
  );
}

function Voters(): JSX.Element | null {
  const { store } = useApp();
  const fleet = store.fleet.value;
  if (fleet === null || fleet.voters.length === 0) return null;
  return (
    <p class="voters">
      {plural(fleet.voters.length, "voter")}:{" "}
      {fleet.voters.map((v, i) => (
        <span key={v.id}>
          {i > 0 && ", "}
          <a href={robotHref(v.id)}>{v.name}</a>
          {v.id === fleet.leader?.id && " (leader)"}
          {!v.reachable && <span class="bad"> (unreachable)</span>}
        </span>
      ))}
    </p>
  );
}

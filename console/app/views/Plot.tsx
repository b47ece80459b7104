// One small plot: up to two measures of one robot over the samples received.

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { absent, timeOfDay } from "../core/format";
import type { Columns, Measure } from "../core/series";
import { useApp } from "./context";

export interface Line {
  measure: Measure;
  /** Said only when a plot has two lines. */
  label: string;
}

interface Props {
  title: string;
  robot: string;
  lines: readonly Line[];
  format: (v: number | null) => string;
  /** The scale shows at least this range. */
  range: readonly [number, number];
}

const heightPixels = 120;
/** The time axis spans at least this. */
const spanSeconds = 60;
/** Of an axis label at 11 px, with room to spare. */
const charPixels = 6.5;

export function Plot({ title, robot, lines, format, range }: Props): JSX.Element {
  const { store, theme } = useApp();
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [hover, setHover] = useState<number | null>(null);
  const version = store.seriesVersion.value;
  const shownTheme = theme.shown.value;
  const columns = store.series.columns(robot);

  useEffect(() => {
    const div = holder.current;
    if (div === null) return;
    const u = new uPlot(options(div, lines, format, range, setHover), dataOf(store.series.columns(robot), lines), div);
    plot.current = u;
    const resize = new ResizeObserver(() => u.setSize({ width: div.clientWidth, height: heightPixels }));
    resize.observe(div);
    return () => {
      resize.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [robot, shownTheme]);

  useEffect(() => plot.current?.setData(dataOf(store.series.columns(robot), lines)), [version, robot]);

  const at = hover ?? (columns === undefined ? null : columns.time.length - 1);
  const time = hover === null ? undefined : columns?.time[hover];
  return (
    <figure class="plot">
      <figcaption>
        <span>{title}</span>
        <span class="value">
          {time !== undefined && <span class="muted">{timeOfDay(time * 1000)} </span>}
          {lines.map((l, i) => (
            <span key={l.measure} class={`line-${i + 1}`}>
              {lines.length > 1 && <small>{l.label} </small>}
              {at === null ? absent : format(columns?.[l.measure][at] ?? null)}
            </span>
          ))}
        </span>
      </figcaption>
      <div ref={holder} class="canvas" role="img" aria-label={`${title} over the last minutes: ${spoken(columns, lines, format)}`} />
    </figure>
  );
}

function dataOf(c: Columns | undefined, lines: readonly Line[]): uPlot.AlignedData {
  return [c?.time ?? [], ...lines.map((l) => c?.[l.measure] ?? [])] as uPlot.AlignedData;
}

/** The range of each line in words, for who cannot see the canvas. */
function spoken(c: Columns | undefined, lines: readonly Line[], format: Props["format"]): string {
  const ranges = lines.map((l) => {
    const values = (c?.[l.measure] ?? []).filter((v): v is number => v !== null);
    return values.length === 0 ? "no samples" : `${l.label} from ${format(Math.min(...values))} to ${format(Math.max(...values))}`;
  });
  return ranges.join(", ");
}

/** "18:47", and the seconds where a tick is not a whole minute. */
function tickTime(seconds: number): string {
  return timeOfDay(seconds * 1000).slice(0, seconds % 60 === 0 ? 5 : 8);
}

function options(div: HTMLElement, lines: readonly Line[], format: Props["format"], range: Props["range"], hover: (i: number | null) => void): uPlot.Options {
  const style = getComputedStyle(div);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const font = `11px ${style.fontFamily}`;
  const axis = { stroke: colour("--muted"), font, ticks: { show: false }, grid: { stroke: colour("--line"), width: 1 } };
  const strokes = [colour("--plot-1"), colour("--plot-2")];
  return {
    width: div.clientWidth || 300,
    height: heightPixels,
    legend: { show: false },
    padding: [8, 20, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { range: (_, min, max) => [Math.min(min, max - spanSeconds), max] },
      y: { range: (_, min, max) => [Math.min(range[0], min ?? range[0]), Math.max(range[1], (max ?? 0) * 1.1)] },
    },
    axes: [
      { ...axis, size: 22, space: 70, values: (_, ticks) => ticks.map(tickTime), incrs: [15, 30, 60, 120, 300, 600, 1200] },
      { ...axis, size: (_, ticks) => 12 + charPixels * Math.max(3, ...(ticks ?? []).map((t) => t.length)), space: 28, values: (_, ticks) => ticks.map((t) => format(t)) },
    ],
    series: [
      {},
      ...lines.map((l, i): uPlot.Series => {
        const stroke = strokes[i] ?? strokes[0] ?? "";
        return { label: l.label, stroke, width: 1.5, points: { size: 4, fill: stroke }, ...(lines.length === 1 ? { fill: `${stroke}22` } : { dash: i === 0 ? [] : [5, 3] }) };
      }),
    ],
    hooks: { setCursor: [(u) => hover(u.cursor.idx ?? null)] },
  };
}

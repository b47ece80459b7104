// Numbers and times as people read them. No value is ever shown without a unit.

export const absent = "–";

const space = "\u00a0"; // no line break between a number and its unit

export function percent(v: number | null): string {
  return v === null ? absent : `${Math.round(v)}${space}%`;
}

export function celsius(v: number | null): string {
  return v === null ? absent : `${Math.round(v)}${space}°C`;
}

export function bytes(v: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (v >= 1024 && i < units.length - 1) {
    v /= 1024;
    i++;
  }
  return `${v < 10 && i > 0 ? v.toFixed(1) : Math.round(v)}${space}${units[i]}`;
}

/** Rates count in thousands, as network people do. */
export function rate(bytesPerSec: number | null): string {
  if (bytesPerSec === null) return absent;
  const units = ["B/s", "kB/s", "MB/s", "GB/s"];
  let v = bytesPerSec;
  let i = 0;
  while (v >= 999.5 && i < units.length - 1) {
    v /= 1000;
    i++;
  }
  return `${v < 9.95 && i > 0 ? v.toFixed(1) : Math.round(v)}${space}${units[i]}`;
}

/** A length of time in its largest sensible unit: "3 s", "2 min", "1 h 5 min", "4 d". */
export function duration(millis: number): string {
  const s = Math.max(0, Math.floor(millis / 1000));
  if (s < 100) return `${s}${space}s`;
  const min = Math.floor(s / 60);
  if (min < 60) return `${min}${space}min`;
  const h = Math.floor(min / 60);
  if (h < 10 && min % 60 > 0) return `${h}${space}h ${min % 60}${space}min`;
  if (h < 48) return `${h}${space}h`;
  return `${Math.floor(h / 24)}${space}d`;
}

const pad = (n: number): string => String(n).padStart(2, "0");

export function timeOfDay(millis: number): string {
  const d = new Date(millis);
  return `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
}

/** The time of an event in the reader's zone; the day too when it is not `today` (Date.toDateString). */
export function eventTime(iso: string, today: string): string {
  const at = Date.parse(iso);
  if (!(at > 0)) return absent; // malformed, or the zero time of Go
  const d = new Date(at);
  return d.toDateString() === today ? timeOfDay(at) : `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${timeOfDay(at)}`;
}

export function shortId(id: string): string {
  return id.slice(0, 8);
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}
